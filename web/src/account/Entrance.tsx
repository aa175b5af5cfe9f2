// The page before the door: a card in the middle, with the language and the theme, which one may want before signing in.
import { type ReactNode, useEffect } from "react";

import { LanguageSelect, ThemeButton } from "../ui/Header";

interface Props {
  title: string;
  children: ReactNode;
}

export function Entrance({ title, children }: Props) {
  useEffect(() => {
    document.title = `${title} · Chatwright`;
    return () => {
      document.title = "Chatwright";
    };
  }, [title]);
  return (
    <div className="flex min-h-dvh flex-col">
      <header className="flex h-14 shrink-0 items-center gap-1 px-3">
        <span className="grow" />
        <LanguageSelect />
        <ThemeButton />
      </header>
      <main className="mx-auto flex w-full max-w-md grow flex-col justify-center px-6 pb-24">
        <img src="/favicon.svg" alt="" width={48} height={48} className="mb-4" />
        <h1 className="mb-6 text-2xl font-semibold">{title}</h1>
        {children}
      </main>
    </div>
  );
}
