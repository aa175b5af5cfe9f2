// One user, for administrators: role, a new link, keys, keeping them out, removing them.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { changeUser, makeLink, removeUser, type Role, type User } from "./api";
import { Failure } from "./Failure";
import { KeyList, keysQuery } from "./KeyList";
import { RoleSelect } from "./RoleSelect";
import { Secret } from "./Secret";
import { useSession } from "./session";
import { UserFacts, USERS } from "./UserFacts";

interface Props {
  user: User;
  /** Nobody else could make owners: such a one stays. */
  isLastOwner: boolean;
  /** A link is on the screen that is not shown again. */
  onSecret: () => void;
  onClose: () => void;
}

export function UserPanel({ user, isLastOwner, onSecret, onClose }: Props) {
  const { t } = useTranslation();
  const { session, refresh } = useSession();
  const queries = useQueryClient();
  const [role, setRole] = useState<Role>(user.role);
  const [question, setQuestion] = useState<"suspend" | "remove" | undefined>();

  async function changed(): Promise<void> {
    setQuestion(undefined);
    // Who changes themselves may be somebody else now, or nobody.
    if (user.id === session.user?.id) await refresh();
    await Promise.all([USERS, keysQuery(user.id)].map((queryKey) => queries.invalidateQueries({ queryKey })));
  }
  const changing = useMutation({
    mutationFn: (body: Parameters<typeof changeUser>[1]) => changeUser(user.id, body),
    onSettled: changed,
  });
  const removing = useMutation({
    mutationFn: () => removeUser(user.id),
    onSuccess: onClose,
    onSettled: changed,
  });
  const linking = useMutation({ mutationFn: () => makeLink(user.id), onSuccess: onSecret, gcTime: 0 });

  const isBelow = user.role !== "owner" || session.user?.role === "owner";
  const isSuspended = user.status === "suspended";
  return (
    <>
      <div className="mb-4 flex flex-wrap items-center justify-between gap-2">
        <span className="text-muted-foreground">{user.email}</span>
        <UserFacts user={user} />
      </div>
      {linking.data !== undefined ? (
        <Secret label={t("account.users.link")} value={linking.data} help={t("account.users.linkHelp")} />
      ) : (
        isBelow && (
          <>
            {/* With a button: who walks through the roles with the keyboard has not chosen one yet. */}
            <div className="flex items-center gap-2">
              <RoleSelect className="min-w-0 grow" value={role} onChange={setRole} testId="user-role" />
              <button
                type="button"
                className="button shrink-0"
                disabled={role === user.role}
                onClick={() => changing.mutate({ role })}
                data-testid="save-role"
              >
                {t("account.save")}
              </button>
            </div>
            <h3 className="mt-6 mb-1 font-medium">{t("account.page.keys")}</h3>
            <KeyList userId={user.id} />
            <Failure error={changing.error ?? removing.error ?? linking.error} />
            {isLastOwner && <p className="mt-6 text-muted-foreground">{t("account.users.last")}</p>}
            {question === undefined ? (
              <div className="mt-6 flex flex-wrap gap-2">
                {!isSuspended && (
                  <button
                    type="button"
                    className="button button-small"
                    aria-busy={linking.isPending}
                    onClick={() => linking.mutate()}
                    data-testid="user-link"
                  >
                    {t("account.users.newLink")}
                  </button>
                )}
                {isSuspended ? (
                  <button
                    type="button"
                    className="button button-small"
                    onClick={() => changing.mutate({ status: "active" })}
                    data-testid="resume"
                  >
                    {t("account.users.resume")}
                  </button>
                ) : (
                  !isLastOwner && (
                    <button
                      type="button"
                      className="button button-small button-danger"
                      onClick={() => setQuestion("suspend")}
                      data-testid="suspend"
                    >
                      {t("account.users.suspend")}
                    </button>
                  )
                )}
                {!isLastOwner && (
                  <button
                    type="button"
                    className="button button-small button-danger"
                    onClick={() => setQuestion("remove")}
                    data-testid="remove"
                  >
                    {t("account.users.remove")}
                  </button>
                )}
              </div>
            ) : (
              <div role="alertdialog" aria-label={t(`account.users.${question}`)} className="notice notice-error mt-6 block">
                <p>{t(`account.users.ask.${question}`, { name: user.name })}</p>
                <div className="mt-3 flex gap-2">
                  <button
                    type="button"
                    autoFocus
                    className="button button-small"
                    onClick={() => setQuestion(undefined)}
                    data-testid="no"
                  >
                    {t("message.cancel")}
                  </button>
                  <button
                    type="button"
                    className="button button-small button-danger"
                    onClick={() => (question === "suspend" ? changing.mutate({ status: "suspended" }) : removing.mutate())}
                    data-testid="yes"
                  >
                    {t(`account.users.${question}`)}
                  </button>
                </div>
              </div>
            )}
          </>
        )
      )}
      {!isBelow && (
        <>
          <p className="text-muted-foreground">{t("account.users.above")}</p>
          <h3 className="mt-6 mb-1 font-medium">{t("account.page.keys")}</h3>
          <KeyList userId={user.id} canRevoke={false} />
        </>
      )}
      <div className="mt-6 flex justify-end">
        <button type="button" className="button button-primary" onClick={onClose} data-testid="user-done">
          {t("settings.done")}
        </button>
      </div>
    </>
  );
}
