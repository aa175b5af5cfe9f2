// One's own API keys.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Plus } from "lucide-react";
import { type FormEvent, useState } from "react";
import { useTranslation } from "react-i18next";

import { makeKey, type Scope } from "./api";
import { Failure } from "./Failure";
import { Field } from "./Field";
import { KeyList, keysQuery } from "./KeyList";
import { SecretMaker } from "./SecretMaker";
import { useSession } from "./session";

const SCOPES: readonly Scope[] = ["inference", "files", "fine-tuning", "admin"];
/** Days; 0: for ever. */
const LIVES = [30, 90, 365, 0];
const USUAL_LIFE = 90;

export function KeysPage() {
  const { t } = useTranslation();
  const [open, setOpen] = useState(false);
  return (
    <>
      <p className="mb-4 text-muted-foreground">{t("account.keys.text")}</p>
      <button
        type="button"
        className="button button-primary mb-6 inline-flex items-center gap-2"
        onClick={() => setOpen(true)}
        data-testid="new-key"
      >
        <Plus aria-hidden className="size-4" />
        {t("account.keys.new")}
      </button>
      <KeyList />
      <SecretMaker
        open={open}
        titles={[t("account.keys.new"), t("account.keys.made")]}
        label={t("key.label")}
        help={t("account.keys.once")}
        onClose={() => setOpen(false)}
        testId="key-maker"
        doneTestId="key-done"
      >
        {(onMade, onCancel) => <KeyForm onMade={onMade} onCancel={onCancel} />}
      </SecretMaker>
    </>
  );
}

function KeyForm({ onMade, onCancel }: { onMade: (key: string) => void; onCancel: () => void }) {
  const { t } = useTranslation();
  const { session } = useSession();
  const queries = useQueryClient();
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<Scope[]>(["inference"]);
  const [days, setDays] = useState(USUAL_LIFE);
  const making = useMutation({
    mutationFn: () =>
      makeKey({ name, scopes, expires_at: days === 0 ? null : Math.floor(Date.now() / 1000) + days * 86_400 }),
    onSuccess: ({ key }) => {
      onMade(key);
      return queries.invalidateQueries({ queryKey: keysQuery() });
    },
    gcTime: 0, // the key stays nowhere
  });

  function submit(event: FormEvent): void {
    event.preventDefault();
    if (!making.isPending) making.mutate();
  }

  return (
    <form onSubmit={submit}>
      <Field
        label={t("account.keys.name")}
        help={t("account.keys.nameHelp")}
        required
        autoFocus
        maxLength={100}
        autoComplete="off"
        value={name}
        onChange={(event) => setName(event.target.value)}
        testId="key-name"
      />
      <fieldset className="mt-5">
        <legend className="mb-1 font-medium">{t("account.keys.scopes")}</legend>
        {SCOPES.filter((scope) => session.scopes.includes(scope)).map((scope) => (
          <label key={scope} className="flex items-baseline gap-2 py-0.5">
            <input
              type="checkbox"
              checked={scopes.includes(scope)}
              onChange={({ target }) =>
                setScopes(target.checked ? [...scopes, scope] : scopes.filter((other) => other !== scope))
              }
              className="accent-primary"
              data-testid={`scope-${scope}`}
            />
            <span>
              {t(`account.scope.${scope}`)} <code className="text-sm text-muted-foreground">{scope}</code>
              <span className="block text-sm text-muted-foreground">{t(`account.scope.help.${scope}`)}</span>
            </span>
          </label>
        ))}
      </fieldset>
      <label className="mt-5 block font-medium">
        {t("account.keys.life")}
        <select
          value={days}
          onChange={(event) => setDays(Number(event.target.value))}
          className="field mt-1 font-normal"
          data-testid="key-life"
        >
          {LIVES.map((days) => (
            <option key={days} value={days}>
              {days === 0 ? t("account.keys.noEnd") : t("account.keys.days", { count: days })}
            </option>
          ))}
        </select>
      </label>
      <Failure error={making.error} />
      <div className="mt-6 flex justify-end gap-2">
        <button type="button" className="button" onClick={onCancel}>
          {t("message.cancel")}
        </button>
        <button
          type="submit"
          className="button button-primary"
          disabled={scopes.length === 0}
          aria-busy={making.isPending}
          data-testid="make-key"
        >
          {t("account.keys.make")}
        </button>
      </div>
    </form>
  );
}
