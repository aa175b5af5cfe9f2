// Asks before something is done that can not be undone.
import { useTranslation } from "react-i18next";

import { Failure } from "../account/Failure";
import { Dialog } from "./Dialog";

interface Props {
  open: boolean;
  title: string;
  text: string;
  /** What stands on the buttons; "Cancel" for the first unless said. */
  no?: string;
  yes: string;
  /** The mutation. */
  doing: { isPending: boolean; error: unknown };
  onYes: () => void;
  onClose: () => void;
  testId: string;
}

export function AskDialog({ open, title, text, no, yes, doing, onYes, onClose, testId }: Props) {
  const { t } = useTranslation();
  return (
    <Dialog open={open} title={title} onClose={onClose} testId={testId}>
      <p className="text-muted-foreground">{text}</p>
      <Failure error={doing.error} />
      <div className="mt-6 flex justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          {no ?? t("message.cancel")}
        </button>
        <button
          type="button"
          className="button button-danger"
          aria-busy={doing.isPending}
          onClick={() => !doing.isPending && onYes()}
          data-testid={`${testId}-yes`}
        >
          {yes}
        </button>
      </div>
    </Dialog>
  );
}
