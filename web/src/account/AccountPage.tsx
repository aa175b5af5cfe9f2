// Oneself: name, password, and the browsers that are signed in.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";

import { changePassword, endOtherSessions, endSession, listSessions, rename } from "./api";
import { Failure } from "./Failure";
import { Field } from "./Field";
import { PasswordField } from "./PasswordField";
import { Section } from "./Section";
import { useSession } from "./session";
import { moment } from "./time";

const SESSIONS = ["sessions"];

export function AccountPage() {
  return (
    <>
      <Profile />
      <Password />
      <Sessions />
    </>
  );
}

function Profile() {
  const { t } = useTranslation();
  const { session, update } = useSession();
  const [name, setName] = useState(session.user?.name ?? "");
  const renaming = useMutation({
    mutationFn: () => rename(name),
    onSuccess: (user) => {
      setName(user.name);
      update({ ...session, user });
    },
  });
  if (!session.user) return null;

  function submit(event: FormEvent): void {
    event.preventDefault();
    renaming.mutate();
  }

  return (
    <Section title={t("account.profile")}>
      <dl className="mb-4 grid grid-cols-[auto_1fr] gap-x-6 gap-y-1">
        <dt className="text-muted-foreground">{t("account.email")}</dt>
        <dd data-testid="own-email">{session.user.email}</dd>
        <dt className="text-muted-foreground">{t("account.roleLabel")}</dt>
        <dd>{t(`account.role.${session.user.role}`)}</dd>
      </dl>
      <form onSubmit={submit} className="max-w-md">
        <Field
          label={t("account.name")}
          name="name"
          autoComplete="name"
          required
          maxLength={100}
          value={name}
          onChange={(event) => setName(event.target.value)}
          testId="own-name"
        />
        <Failure error={renaming.error} />
        <div className="mt-4 flex items-center gap-3">
          <button type="submit" className="button button-primary" data-testid="save-name">
            {t("account.save")}
          </button>
          <Done when={renaming.isSuccess && name === session.user.name}>{t("account.saved")}</Done>
        </div>
      </form>
    </Section>
  );
}

function Password() {
  const { t } = useTranslation();
  const { session, update } = useSession();
  const queries = useQueryClient();
  const [old, setOld] = useState("");
  const [fresh, setFresh] = useState("");
  const changing = useMutation({
    mutationFn: () => changePassword(old, fresh),
    onSuccess: (session) => {
      setOld("");
      setFresh("");
      update(session);
      return queries.invalidateQueries({ queryKey: SESSIONS });
    },
  });

  function submit(event: FormEvent): void {
    event.preventDefault();
    if (!changing.isPending) changing.mutate();
  }

  return (
    <Section title={t("account.password")} text={t("account.passwordText")}>
      <form onSubmit={submit} className="max-w-md" data-testid="password-form">
        <input type="hidden" name="email" autoComplete="username" value={session.user?.email ?? ""} readOnly />
        <Field
          label={t("account.oldPassword")}
          type="password"
          name="old-password"
          autoComplete="current-password"
          required
          value={old}
          onChange={(event) => setOld(event.target.value)}
          testId="old-password"
        />
        <PasswordField className="mt-4" label={t("account.newPassword")} value={fresh} onChange={setFresh} />
        <Failure error={changing.error} />
        <div className="mt-4 flex items-center gap-3">
          <button
            type="submit"
            className="button button-primary"
            aria-busy={changing.isPending}
            data-testid="change-password"
          >
            {t("account.changePassword")}
          </button>
          <Done when={changing.isSuccess && !old && !fresh}>{t("account.passwordChanged")}</Done>
        </div>
      </form>
    </Section>
  );
}

function Sessions() {
  const { t, i18n } = useTranslation();
  const id = useId();
  const queries = useQueryClient();
  const sessions = useQuery({ queryKey: SESSIONS, queryFn: ({ signal }) => listSessions(signal) });
  const again = () => queries.invalidateQueries({ queryKey: SESSIONS });
  const ending = useMutation({ mutationFn: endSession, onSettled: again });
  const endingOthers = useMutation({ mutationFn: endOtherSessions, onSettled: again });
  const rows = sessions.data ?? [];
  return (
    <Section title={t("account.sessions")} text={t("account.sessionsText")}>
      <ul className="list" data-testid="sessions">
        {rows.map((row, index) => (
          <li key={row.id} className="list-row">
            <span className="min-w-0 grow" id={`${id}-${index}`}>
              <span className="block">{t("account.since", { time: moment(row.created_at, i18n.language) })}</span>
              <span className="block text-sm text-muted-foreground">
                {t("account.seen", { time: moment(row.seen_at, i18n.language) })}
              </span>
            </span>
            {row.current ? (
              <span className="badge">{t("account.thisBrowser")}</span>
            ) : (
              <button
                type="button"
                className="button button-small"
                aria-describedby={`${id}-${index}`}
                onClick={() => ending.mutate(row.id)}
                data-testid="end-session"
              >
                {t("account.signOut")}
              </button>
            )}
          </li>
        ))}
      </ul>
      <Failure error={sessions.error ?? ending.error ?? endingOthers.error} />
      {rows.length > 1 && (
        <button
          type="button"
          className="button mt-4"
          onClick={() => endingOthers.mutate()}
          data-testid="end-other-sessions"
        >
          {t("account.signOutElsewhere")}
        </button>
      )}
      <Done when={endingOthers.isSuccess && rows.length === 1}>{t("account.signedOutElsewhere")}</Done>
    </Section>
  );
}

/** Said to screen readers too, when it happens. */
function Done({ when, children }: { when: boolean; children: string }) {
  return (
    <output className="text-sm text-muted-foreground">{when && children}</output>
  );
}
