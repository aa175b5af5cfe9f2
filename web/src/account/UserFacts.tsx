// What a user is, in two words.
import { useTranslation } from "react-i18next";

import type { User } from "./api";

/** The query of all users. */
export const USERS = ["users"];

export function UserFacts({ user }: { user: User }) {
  const { t } = useTranslation();
  return (
    <span className="flex shrink-0 flex-wrap items-center gap-1.5">
      {user.status !== "active" && (
        <span className={`badge ${user.status === "suspended" ? "badge-danger" : ""}`} data-testid="status">
          {t(`account.status.${user.status}`)}
        </span>
      )}
      <span className="badge" data-testid="role">
        {t(`account.role.${user.role}`)}
      </span>
    </span>
  );
}
