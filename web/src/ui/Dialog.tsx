// A modal dialog: the browser's own, which traps focus, closes on Escape and gives the focus back.
import { type ReactNode, useEffect, useId, useRef } from "react";

interface Props {
  open: boolean;
  title: string;
  onClose: () => void;
  children: ReactNode;
  testId: string;
  /** Closed by its own buttons only: what it shows is shown once. */
  sticky?: boolean;
}

export function Dialog({ open, title, onClose, children, testId, sticky = false }: Props) {
  const ref = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  useEffect(() => {
    const dialog = ref.current;
    if (!dialog) return;
    if (open && !dialog.open) dialog.showModal();
    if (!open && dialog.open) dialog.close();
  }, [open]);
  return (
    <dialog
      ref={ref}
      aria-labelledby={titleId}
      data-testid={testId}
      onClose={onClose}
      closedby={sticky ? "none" : "any"} // any: a click beside it closes it
      className="dialog"
    >
      {open && (
        <div className="p-6">
          <h2 id={titleId} className="mb-3 text-lg font-semibold">
            {title}
          </h2>
          {children}
        </div>
      )}
    </dialog>
  );
}
