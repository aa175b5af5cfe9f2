// A role, at most as high as one's own.
import { useId } from "react";
import { useTranslation } from "react-i18next";

import type { Role } from "./api";
import { useSession } from "./session";

const ROLES: readonly Role[] = ["member", "admin", "owner"];

interface Props {
  value: Role;
  onChange: (role: Role) => void;
  className?: string;
  testId: string;
}

export function RoleSelect({ value, onChange, className = "", testId }: Props) {
  const { t } = useTranslation();
  const id = useId();
  const { session } = useSession();
  const own = session.user?.role ?? "member";
  const offered = ROLES.slice(0, Math.max(ROLES.indexOf(own), ROLES.indexOf(value)) + 1);
  return (
    <div className={className}>
      <label className="mb-1 block font-medium" htmlFor={id}>
        {t("account.roleLabel")}
      </label>
      <select
        id={id}
        value={value}
        onChange={(event) => onChange(event.target.value as Role)}
        aria-describedby={`${id}-help`}
        className="field"
        data-testid={testId}
      >
        {offered.map((role) => (
          <option key={role} value={role}>
            {t(`account.role.${role}`)}
          </option>
        ))}
      </select>
      <p id={`${id}-help`} className="mt-1 text-sm text-muted-foreground">
        {t(`account.role.help.${value}`)}
      </p>
    </div>
  );
}
