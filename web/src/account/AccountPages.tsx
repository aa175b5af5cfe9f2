// The pages beside the chat: their frame, with the way between them and back.
import { useMutation } from "@tanstack/react-query";
import {
  ArrowLeft,
  ChartColumn,
  CircleUserRound,
  GraduationCap,
  KeyRound,
  LogOut,
  type LucideIcon,
  UsersRound,
} from "lucide-react";
import { type ComponentType, lazy, Suspense, useEffect, useRef } from "react";
import { useTranslation } from "react-i18next";

import { LanguageSelect, ThemeButton } from "../ui/Header";
import { Loading } from "../ui/Loading";
import { AccountPage } from "./AccountPage";
import { signOut } from "./api";
import { Failure } from "./Failure";
import { KeysPage } from "./KeysPage";
import { type Page, pagesOf, usePart } from "./page";
import { useSession } from "./session";
import { UsersPage } from "./UsersPage";

const ICONS: Record<Page, LucideIcon> = {
  account: CircleUserRound,
  keys: KeyRound,
  jobs: GraduationCap,
  usage: ChartColumn,
  users: UsersRound,
};
// Loaded when they are opened: the chat shall not wait for forms and charts.
const CONTENT: Record<Page, ComponentType> = {
  account: AccountPage,
  keys: KeysPage,
  jobs: lazy(async () => ({ default: (await import("../jobs/JobsPage")).JobsPage })),
  usage: lazy(async () => ({ default: (await import("../usage/UsagePage")).UsagePage })),
  users: UsersPage,
};

export function AccountPages({ page: asked }: { page: Page }) {
  const { t } = useTranslation();
  const { session, update } = useSession();
  const part = usePart();
  const pages = pagesOf(session);
  const page = pages.find((page) => page === asked) ?? pages[0] ?? "account";
  const Content = CONTENT[page];
  const title = t(`account.page.${page}`);
  const leaving = useMutation({
    mutationFn: signOut,
    onSuccess: (session) => {
      window.location.hash = "";
      update(session);
    },
  });

  useEffect(() => {
    document.title = `${title} · Chatwright`;
    return () => {
      document.title = "Chatwright";
    };
  }, [title]);

  return (
    <div className="flex h-dvh flex-col" data-testid="account-pages">
      <header className="flex h-14 shrink-0 items-center gap-1 px-2 sm:px-3">
        <a href="#/" className="nav-link" data-testid="back-to-chat">
          <ArrowLeft aria-hidden className="size-5" />
          {t("account.back")}
        </a>
        <span className="grow" />
        <LanguageSelect />
        <ThemeButton />
      </header>
      <div className="mx-auto flex min-h-0 w-full max-w-6xl grow flex-col md:flex-row">
        <nav
          aria-label={t("account.nav")}
          className="flex shrink-0 flex-wrap items-center gap-1 px-2 pb-2 md:w-56 md:flex-col md:flex-nowrap md:items-stretch md:px-3 md:pt-4"
        >
          {pages.map((name) => {
            const Icon = ICONS[name];
            return (
              <a
                key={name}
                href={`#/${name}`}
                className="nav-link"
                aria-current={name === page ? "page" : undefined}
                data-testid={`nav-${name}`}
              >
                <Icon aria-hidden className="size-5 shrink-0" />
                {t(`account.page.${name}`)}
              </a>
            );
          })}
          {session.user && (
            <button
              type="button"
              className="nav-link md:mt-4"
              aria-busy={leaving.isPending}
              onClick={() => !leaving.isPending && leaving.mutate()}
              data-testid="sign-out"
            >
              <LogOut aria-hidden className="size-5 shrink-0" />
              {t("account.signOut")}
            </button>
          )}
          <Failure error={leaving.error} />
        </nav>
        <main className="min-h-0 min-w-0 grow overflow-y-auto px-4 pt-4 pb-16 md:px-8">
          <Heading key={`${page}/${part ?? ""}`}>{title}</Heading>
          <Suspense fallback={<Loading />}>
            <Content />
          </Suspense>
        </main>
      </div>
    </div>
  );
}

/** Takes the focus when its page opens: who does not see it hears where they are. */
function Heading({ children }: { children: string }) {
  const ref = useRef<HTMLHeadingElement>(null);
  useEffect(() => ref.current?.focus(), []);
  return (
    <h1 ref={ref} tabIndex={-1} className="mb-6 text-2xl font-semibold outline-none">
      {children}
    </h1>
  );
}
