// Why a page has nothing to show, and the way on: again, signing in, or the admin token of a server without accounts.
import { useQueryClient } from "@tanstack/react-query";
import { CircleAlert } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { useSession } from "../account/session";
import { asApiError } from "../api/errors";
import { apiKey } from "../api/key";
import { KeyDialog } from "./KeyDialog";

interface Props {
  /** Of a query; nothing is shown for null. */
  error: unknown;
  onRetry: () => void;
}

export function Trouble({ error, onRetry }: Props) {
  const { t } = useTranslation();
  const { session, refresh } = useSession();
  const queries = useQueryClient();
  const [asking, setAsking] = useState(false);
  if (!error) return null;
  const { kind, message } = asApiError(error);
  const isOver = kind === "key" && session.user !== null;
  const wantsToken = !session.user && (kind === "key" || kind === "forbidden");
  const own = kind === "network" || kind === "server" || !message;
  return (
    <div role="alert" data-testid="trouble" data-kind={kind} className="notice notice-error mb-6">
      <CircleAlert aria-hidden className="mt-0.5 size-5 shrink-0 text-destructive" />
      <div className="min-w-0 grow">
        <p className="font-medium">
          {isOver ? t("account.ended.title") : wantsToken ? t("key.adminTitle") : own ? t(`error.title.${kind}`) : message}
        </p>
        {wantsToken && (
          <p className="text-muted-foreground">{t(apiKey() === null ? "key.adminText" : "key.adminRefused")}</p>
        )}
        {own && !isOver && !wantsToken && <p className="text-muted-foreground">{t(`error.help.${kind}`)}</p>}
        <button
          type="button"
          className="button button-small mt-2"
          onClick={() => (isOver ? void refresh() : wantsToken ? setAsking(true) : onRetry())}
          data-testid={wantsToken ? "enter-token" : "retry"}
        >
          {isOver ? t("account.ended.button") : wantsToken ? t("key.adminEnter") : t("error.retry")}
        </button>
      </div>
      <KeyDialog
        admin
        open={asking}
        onClose={() => setAsking(false)}
        onSaved={() => {
          setAsking(false);
          void queries.invalidateQueries();
        }}
      />
    </div>
  );
}
