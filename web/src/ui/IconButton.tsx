// A button that is an icon: with a name for screen readers and a tooltip for everybody else.
import { type ComponentProps, forwardRef } from "react";

type Props = ComponentProps<"button"> & { label: string; small?: boolean };

export const IconButton = forwardRef<HTMLButtonElement, Props>(function IconButton(
  { label, small = false, className = "", ...props },
  ref,
) {
  return (
    <button
      ref={ref}
      type="button"
      aria-label={label}
      title={label}
      className={`icon-button ${small ? "size-8 rounded-lg" : "size-9 rounded-xl sm:size-10"} ${className}`}
      {...props}
    />
  );
});
