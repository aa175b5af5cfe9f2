// Signing in, where a server has accounts and nobody is.
import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useTranslation } from "react-i18next";

import { type Session, signIn } from "./api";
import { Entrance } from "./Entrance";
import { Failure } from "./Failure";
import { Field } from "./Field";

/** Why the provider let nobody in, as the server writes it behind #sign-in=. */
const PROBLEMS: readonly string[] = [
  "busy",
  "no_owner",
  "other_identity",
  "provider",
  "refused",
  "state",
  "stranger",
  "suspended",
];

interface Props {
  /** Through whom one may sign in beside a password. */
  provider: Session["provider"];
  problem: string | undefined;
  onSignedIn: (session: Session) => void;
}

export function SignIn({ provider, problem, onSignedIn }: Props) {
  const { t } = useTranslation();
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const signingIn = useMutation({
    mutationFn: () => signIn(email, password),
    onSuccess: onSignedIn,
    onError: () => setPassword(""),
  });

  function submit(event: FormEvent): void {
    event.preventDefault();
    if (!signingIn.isPending) signingIn.mutate();
  }

  return (
    <Entrance title={t("account.signIn.title")}>
      {problem !== undefined && PROBLEMS.includes(problem) && (
        <p role="alert" className="notice notice-error mb-6" data-testid="provider-problem">
          {t(`account.provider.${problem}`)}
        </p>
      )}
      {provider && (
        <>
          <a href={provider.url} className="button button-primary flex items-center justify-center" data-testid="provider">
            {t("account.signIn.with", { name: provider.name })}
          </a>
          <p className="my-6 flex items-center gap-3 text-sm text-muted-foreground before:h-px before:grow before:bg-border after:h-px after:grow after:bg-border">
            {t("account.signIn.or")}
          </p>
        </>
      )}
      <form onSubmit={submit} data-testid="sign-in">
        <Field
          label={t("account.email")}
          type="text"
          inputMode="email"
          name="email"
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          autoFocus={!provider}
          required
          value={email}
          onChange={(event) => setEmail(event.target.value)}
          testId="email"
        />
        <Field
          className="mt-4"
          label={t("account.password")}
          type="password"
          name="password"
          autoComplete="current-password"
          required
          value={password}
          onChange={(event) => setPassword(event.target.value)}
          testId="password"
        />
        <Failure error={signingIn.error} />
        <button
          type="submit"
          className={`button mt-6 w-full ${provider ? "" : "button-primary"}`}
          aria-busy={signingIn.isPending}
          data-testid="sign-in-button"
        >
          {t("account.signIn.button")}
        </button>
      </form>
      <p className="mt-6 text-sm text-muted-foreground">{t("account.signIn.forgotten")}</p>
    </Entrance>
  );
}

/** Nobody is there yet: the first owner comes by the link on the console, never by being the first visitor. */
export function SetUp({ onCheck }: { onCheck: () => void }) {
  const { t } = useTranslation();
  return (
    <Entrance title={t("account.setUp.title")}>
      <p data-testid="set-up">{t("account.setUp.text")}</p>
      <p className="mt-4 text-muted-foreground">{t("account.setUp.again")}</p>
      <button type="button" className="button mt-6 self-start" onClick={onCheck}>
        {t("account.setUp.check")}
      </button>
    </Entrance>
  );
}
