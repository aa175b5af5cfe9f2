// A failure, kindly: what happened, what to do, and the server's own words.
import { CircleAlert } from "lucide-react";
import { useTranslation } from "react-i18next";

import { useSession } from "../account/session";
import type { ApiError } from "../api/errors";

interface Props {
  error: ApiError;
  onRetry?: (() => void) | undefined;
  onEnterKey: () => void;
}

export function ErrorNotice({ error, onRetry, onEnterKey }: Props) {
  const { t } = useTranslation();
  // Where people sign in it is not a key that is missing.
  const isOver = useSession().session.accounts && error.kind === "key";
  const help = isOver
    ? t("account.ended.help")
    : (error.kind === "busy" || error.kind === "limit") && error.retryAfter_s !== undefined
      ? t("error.help.busyAfter", { count: error.retryAfter_s })
      : t(`error.help.${error.kind}`);
  return (
    <div role="alert" data-testid="error" data-kind={error.kind} className="notice notice-error">
      <CircleAlert aria-hidden className="mt-0.5 size-5 shrink-0 text-destructive" />
      <div className="min-w-0 grow">
        <p className="font-medium">{isOver ? t("account.ended.title") : t(`error.title.${error.kind}`)}</p>
        <p className="text-muted-foreground">{help}</p>
        {error.message && !isOver && (
          <p lang="en" className="mt-1 text-sm break-words text-muted-foreground">
            {error.message}
          </p>
        )}
        <div className="mt-2 flex gap-2">
          {error.kind === "key" ? (
            <button type="button" className="button button-small" onClick={onEnterKey}>
              {isOver ? t("account.ended.button") : t("error.enterKey")}
            </button>
          ) : (
            onRetry && (
              <button type="button" className="button button-small" onClick={onRetry} data-testid="retry">
                {t("error.retry")}
              </button>
            )
          )}
        </div>
      </div>
    </div>
  );
}
