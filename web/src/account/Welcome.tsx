// What a link #welcome=TOKEN opens: the first owner's account, an invitation, or a new password.
import { useMutation, useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useTranslation } from "react-i18next";

import { asApiError } from "../api/errors";
import { lookAtLink, type Session, spendLink, type WelcomeLink } from "./api";
import { Entrance } from "./Entrance";
import { Failure } from "./Failure";
import { Field } from "./Field";
import { PasswordField } from "./PasswordField";

interface Props {
  token: string;
  onSignedIn: (session: Session) => void;
  onLeave: () => void;
}

export function Welcome({ token, onSignedIn, onLeave }: Props) {
  const { t } = useTranslation();
  const link = useQuery({ queryKey: ["welcome", token], queryFn: () => lookAtLink(token), gcTime: 0, staleTime: Infinity });
  if (link.data) return <WelcomeForm link={link.data} token={token} onSignedIn={onSignedIn} onLeave={onLeave} />;
  if (link.isPending) return <Entrance title={t("account.welcome.looking")}>{null}</Entrance>;
  const isBad = ["notFound", "key"].includes(asApiError(link.error).kind);
  return (
    <Entrance title={isBad ? t("account.welcome.bad") : t("account.welcome.failed")}>
      {isBad ? <p data-testid="bad-link">{t("account.welcome.badHelp")}</p> : <Failure error={link.error} />}
      <div className="mt-6 flex gap-2">
        {!isBad && (
          <button type="button" className="button button-primary" onClick={() => void link.refetch()}>
            {t("error.retry")}
          </button>
        )}
        <button type="button" className="button" onClick={onLeave} data-testid="leave-welcome">
          {t("account.welcome.leave")}
        </button>
      </div>
    </Entrance>
  );
}

function WelcomeForm({ link, token, onSignedIn, onLeave }: Props & { link: WelcomeLink }) {
  const { t } = useTranslation();
  const [email, setEmail] = useState(link.email ?? "");
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const isNew = link.purpose !== "reset";
  const spending = useMutation({
    mutationFn: () =>
      spendLink({
        token,
        password,
        ...(link.purpose === "setup" ? { email } : {}),
        ...(isNew && name.trim() ? { name: name.trim() } : {}),
      }),
    onSuccess: onSignedIn,
  });

  function submit(event: FormEvent): void {
    event.preventDefault();
    if (!spending.isPending) spending.mutate();
  }

  return (
    <Entrance title={t(`account.welcome.${link.purpose}`)}>
      <p className="mb-6 text-muted-foreground">{t(`account.welcome.help.${link.purpose}`)}</p>
      <form onSubmit={submit} data-testid="welcome" data-purpose={link.purpose}>
        <Field
          label={t("account.email")}
          type="text"
          inputMode="email"
          name="email"
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          required
          autoFocus={link.email === null}
          readOnly={link.email !== null}
          value={email}
          onChange={(event) => setEmail(event.target.value)}
          testId="email"
        />
        {isNew && (
          <Field
            className="mt-4"
            label={t("account.nameOptional")}
            name="name"
            autoComplete="name"
            maxLength={100}
            value={name}
            onChange={(event) => setName(event.target.value)}
            testId="name"
          />
        )}
        <PasswordField
          className="mt-4"
          label={t("account.newPassword")}
          autoFocus={link.email !== null}
          value={password}
          onChange={setPassword}
        />
        <Failure error={spending.error} />
        <div className="mt-6 flex gap-2">
          <button
            type="submit"
            className="button button-primary grow"
            aria-busy={spending.isPending}
            data-testid="welcome-button"
          >
            {t("account.welcome.button")}
          </button>
          <button type="button" className="button" onClick={onLeave} data-testid="leave-welcome">
            {t("key.cancel")}
          </button>
        </div>
      </form>
    </Entrance>
  );
}
