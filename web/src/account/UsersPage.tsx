// All users, for administrators: invite somebody, or open one.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { UserPlus } from "lucide-react";
import { type FormEvent, useState } from "react";
import { useTranslation } from "react-i18next";

import { Dialog } from "../ui/Dialog";
import { invite, listUsers, type Role, type User } from "./api";
import { Failure } from "./Failure";
import { Field } from "./Field";
import { RoleSelect } from "./RoleSelect";
import { SecretMaker } from "./SecretMaker";
import { useSession } from "./session";
import { UserFacts, USERS } from "./UserFacts";
import { UserPanel } from "./UserPanel";

/** So many are read at a glance; beyond them one may search. */
const AT_A_GLANCE = 8;

/** Who can sign in and make owners: the server keeps one. */
function isOwner({ role, status }: User): boolean {
  return role === "owner" && status === "active";
}

export function UsersPage() {
  const { t } = useTranslation();
  const { session } = useSession();
  const users = useQuery({ queryKey: USERS, queryFn: ({ signal }) => listUsers(signal) });
  const [inviting, setInviting] = useState(false);
  const [openId, setOpenId] = useState<string | undefined>();
  const [hasSecret, setHasSecret] = useState(false);
  const [wanted, setWanted] = useState("");
  const found = users.data?.filter(({ name, email }) =>
    `${name} ${email}`.toLocaleLowerCase().includes(wanted.trim().toLocaleLowerCase()),
  );
  const open = users.data?.find(({ id }) => id === openId);
  const closeUser = (): void => {
    setOpenId(undefined);
    setHasSecret(false);
  };
  return (
    <>
      <button
        type="button"
        className="button button-primary mb-6 inline-flex items-center gap-2"
        onClick={() => setInviting(true)}
        data-testid="invite"
      >
        <UserPlus aria-hidden className="size-4" />
        {t("account.users.invite")}
      </button>
      {(users.data?.length ?? 0) > AT_A_GLANCE && (
        <Field
          className="mb-4 max-w-md"
          label={t("account.users.find")}
          type="search"
          autoComplete="off"
          value={wanted}
          onChange={(event) => setWanted(event.target.value)}
          testId="find-user"
        />
      )}
      <Failure error={users.error} />
      {found?.length === 0 && <p className="text-muted-foreground">{t("account.users.nobody")}</p>}
      <ul className="list" data-testid="users">
        {found?.map((user) => (
          <li key={user.id}>
            <button
              type="button"
              className="list-row list-button"
              onClick={() => setOpenId(user.id)}
              aria-haspopup="dialog"
              data-testid="user"
            >
              <span className="min-w-0 grow">
                <span className="block font-medium">
                  {user.name}
                  {user.id === session.user?.id && (
                    <span className="font-normal text-muted-foreground"> {t("account.users.you")}</span>
                  )}
                </span>
                <span className="block text-sm text-muted-foreground">{user.email}</span>
              </span>
              <UserFacts user={user} />
            </button>
          </li>
        ))}
      </ul>
      <SecretMaker
        open={inviting}
        titles={[t("account.users.invite"), t("account.users.invited")]}
        label={t("account.users.link")}
        help={t("account.users.linkHelp")}
        onClose={() => setInviting(false)}
        testId="invitation"
        doneTestId="invite-done"
      >
        {(onMade, onCancel) => <InviteForm onLink={onMade} onCancel={onCancel} />}
      </SecretMaker>
      <Dialog
        open={open !== undefined}
        title={open?.name ?? ""}
        onClose={closeUser}
        sticky={hasSecret}
        testId="user-dialog"
      >
        {open && (
          <UserPanel
            user={open}
            isLastOwner={isOwner(open) && users.data?.filter(isOwner).length === 1}
            onSecret={() => setHasSecret(true)}
            onClose={closeUser}
          />
        )}
      </Dialog>
    </>
  );
}

function InviteForm({ onLink, onCancel }: { onLink: (url: string) => void; onCancel: () => void }) {
  const { t } = useTranslation();
  const queries = useQueryClient();
  const [email, setEmail] = useState("");
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("member");
  const inviting = useMutation({
    mutationFn: () => invite({ email, role, ...(name.trim() ? { name: name.trim() } : {}) }),
    onSuccess: (url) => {
      onLink(url);
      return queries.invalidateQueries({ queryKey: USERS });
    },
    gcTime: 0, // the link stays nowhere
  });

  function submit(event: FormEvent): void {
    event.preventDefault();
    if (!inviting.isPending) inviting.mutate();
  }

  return (
    <form onSubmit={submit}>
      <p className="mb-4 text-muted-foreground">{t("account.users.inviteText")}</p>
      <Field
        label={t("account.email")}
        type="text"
        inputMode="email"
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        required
        autoFocus
        value={email}
        onChange={(event) => setEmail(event.target.value)}
        testId="invite-email"
      />
      <Field
        className="mt-4"
        label={t("account.nameOptional")}
        autoComplete="off"
        maxLength={100}
        value={name}
        onChange={(event) => setName(event.target.value)}
        testId="invite-name"
      />
      <RoleSelect className="mt-4" value={role} onChange={setRole} testId="invite-role" />
      <Failure error={inviting.error} />
      <div className="mt-6 flex justify-end gap-2">
        <button type="button" className="button" onClick={onCancel}>
          {t("message.cancel")}
        </button>
        <button
          type="submit"
          className="button button-primary"
          aria-busy={inviting.isPending}
          data-testid="invite-button"
        >
          {t("account.users.makeLink")}
        </button>
      </div>
    </form>
  );
}
