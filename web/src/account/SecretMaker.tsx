// A dialog that makes what is shown once, a key or a link: first the form, then the secret, which only its own button takes away.
import { type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";

import { Dialog } from "../ui/Dialog";
import { Secret } from "./Secret";

interface Props {
  open: boolean;
  /** Above the form, and above the secret. */
  titles: [string, string];
  label: string;
  help: string;
  onClose: () => void;
  testId: string;
  doneTestId: string;
  /** The form, which says what it made. */
  children: (onMade: (secret: string) => void, onCancel: () => void) => ReactNode;
}

export function SecretMaker({ open, titles, label, help, onClose, testId, doneTestId, children }: Props) {
  const { t } = useTranslation();
  const [made, setMade] = useState<string | undefined>();
  const close = (): void => {
    setMade(undefined);
    onClose();
  };
  return (
    <Dialog
      open={open}
      title={titles[made === undefined ? 0 : 1]}
      onClose={close}
      sticky={made !== undefined}
      testId={testId}
    >
      {made === undefined ? (
        children(setMade, close)
      ) : (
        <>
          <Secret label={label} value={made} help={help} />
          <div className="mt-6 flex justify-end">
            <button type="button" className="button button-primary" onClick={close} data-testid={doneTestId}>
              {t("settings.done")}
            </button>
          </div>
        </>
      )}
    </Dialog>
  );
}
