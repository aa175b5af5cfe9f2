// Why something could not be done, beside the button that was pressed. The server's sentences are in the page's language.
import { useTranslation } from "react-i18next";

import { asApiError } from "../api/errors";
import { useSession } from "./session";

interface Props {
  /** Of a mutation or query; nothing is shown for null. */
  error: unknown;
  id?: string;
}

export function Failure({ error, id }: Props) {
  const { t } = useTranslation();
  const { session, refresh } = useSession();
  if (!error) return null;
  const { kind, message } = asApiError(error);
  const isOver = kind === "key" && session.user !== null;
  const own = kind === "network" || kind === "server" || !message;
  return (
    <div role="alert" id={id} data-testid="failure" className="mt-3 text-sm text-destructive">
      <p>{isOver ? t("account.ended.title") : own ? t(`error.title.${kind}`) : message}</p>
      {isOver && (
        <button type="button" className="button button-small mt-2" onClick={() => void refresh()}>
          {t("account.ended.button")}
        </button>
      )}
    </div>
  );
}
