// A labelled text field, with what has to be known about it.
import { type ComponentProps, type ReactNode, useId } from "react";

type Props = ComponentProps<"input"> & { label: string; help?: ReactNode; testId: string };

export function Field({ label, help, testId, className = "", ...input }: Props) {
  const id = useId();
  const helpId = `${id}-help`;
  return (
    <div className={className}>
      <label className="mb-1 block font-medium" htmlFor={id}>
        {label}
      </label>
      <input id={id} className="field" data-testid={testId} aria-describedby={help ? helpId : undefined} {...input} />
      {help && (
        <p id={helpId} className="mt-1 text-sm text-muted-foreground">
          {help}
        </p>
      )}
    </div>
  );
}
