// A part of a page, with its heading.
import { type ReactNode, useId } from "react";

interface Props {
  title: string;
  text?: string;
  children: ReactNode;
}

export function Section({ title, text, children }: Props) {
  const id = useId();
  return (
    <section aria-labelledby={id} className="mb-10 border-b pb-10 last:border-0">
      <h2 id={id} className="mb-2 text-lg font-semibold">
        {title}
      </h2>
      {text && <p className="mb-4 text-muted-foreground">{text}</p>}
      {children}
    </section>
  );
}
