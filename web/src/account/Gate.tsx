// The door: a server with accounts shows itself to who is signed in; one without shows its chat to everybody, as ever.
import { QueryClient, QueryClientProvider, useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useCallback, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";

import { asApiError } from "../api/errors";
import { ErrorNotice } from "../ui/ErrorNotice";
import { AccountPages } from "./AccountPages";
import { loadSession, type Session } from "./api";
import { forgetArrival, useArrival } from "./arrival";
import { usePage } from "./page";
import { Context } from "./session";
import { SetUp, SignIn } from "./SignIn";
import { Welcome } from "./Welcome";

export const QUERY_OPTIONS = { queries: { retry: false, networkMode: "always" }, mutations: { networkMode: "always" } } as const;
const SESSION = ["session"];

export function Gate({ children }: { children: ReactNode }) {
  const { t } = useTranslation();
  const queries = useQueryClient();
  // Asked again when the tab is looked at: somebody may have signed out, or in as somebody else, in another one.
  const asked = useQuery({ queryKey: SESSION, queryFn: ({ signal }) => loadSession(signal), refetchOnWindowFocus: "always" });
  const { welcome, problem } = useArrival();
  const { data: session, refetch } = asked;

  const update = useCallback(
    (session: Session) => {
      void queries.cancelQueries({ queryKey: SESSION });
      queries.setQueryData(SESSION, session);
    },
    [queries],
  );
  const refresh = useCallback(async () => (await refetch({ cancelRefetch: true })).data, [refetch]);
  const context = useMemo(() => session && { session, update, refresh }, [session, update, refresh]);

  const done = (session: Session): void => {
    forgetArrival();
    update(session);
  };
  if (welcome !== undefined) {
    return <Welcome key={welcome} token={welcome} onSignedIn={done} onLeave={forgetArrival} />;
  }
  if (!session || !context) {
    return (
      <main className="mx-auto max-w-3xl p-4" aria-busy={asked.isPending}>
        <h1 className="sr-only">Chatwright</h1>
        {asked.error ? (
          <ErrorNotice error={asApiError(asked.error)} onRetry={() => void refetch()} onEnterKey={() => undefined} />
        ) : (
          <output className="sr-only">{t("account.loading")}</output>
        )}
      </main>
    );
  }
  if (session.accounts && !session.user) {
    if (session.setup_needed) return <SetUp onCheck={() => void refetch()} />;
    return <SignIn provider={session.provider} problem={problem} onSignedIn={done} />;
  }
  return (
    <Context.Provider value={context}>
      <Inside key={session.user?.id ?? "everybody"}>{children}</Inside>
    </Context.Provider>
  );
}

/** One person's pages. What was fetched for them is forgotten with them: the next one in this tab gets nothing of it. */
function Inside({ children }: { children: ReactNode }) {
  const [queries] = useState(() => new QueryClient({ defaultOptions: QUERY_OPTIONS }));
  const page = usePage();
  return (
    <QueryClientProvider client={queries}>
      {/* The chat stays while an account page is open: an answer goes on, a half-written message is kept. */}
      <div hidden={page !== undefined}>{children}</div>
      {page && <AccountPages page={page} />}
    </QueryClientProvider>
  );
}
