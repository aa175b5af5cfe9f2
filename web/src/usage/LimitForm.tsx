// What a user, a key or a model may use. An empty field: as much as they like.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useTranslation } from "react-i18next";

import { listKeys, listUsers } from "../account/api";
import { Failure } from "../account/Failure";
import { Field } from "../account/Field";
import { keysQuery } from "../account/KeyList";
import { useSession } from "../account/session";
import { USERS } from "../account/UserFacts";
import { listModels } from "../api/client";
import { type CountedLimit, type Figure, FIGURES, removeLimit, setLimit, USAGE } from "./api";

type Kind = "user" | "key" | "model";

interface Props {
  /** The one to change; a new one without it. */
  limit: CountedLimit | undefined;
  onClose: () => void;
}

export function LimitForm({ limit, onClose }: Props) {
  const { t } = useTranslation();
  const queries = useQueryClient();
  const { accounts } = useSession().session;
  const [kind, setKind] = useState<Kind>(accounts ? "user" : "model");
  const [userId, setUserId] = useState("");
  const [subject, setSubject] = useState("");
  const [figures, setFigures] = useState<Record<Figure, string>>(
    () => Object.fromEntries(FIGURES.map((name) => [name, String(limit?.[name] ?? "")])) as Record<Figure, string>,
  );
  const isNew = limit === undefined;
  const users = useQuery({ queryKey: USERS, queryFn: ({ signal }) => listUsers(signal), enabled: isNew && accounts });
  const keys = useQuery({
    queryKey: keysQuery(userId),
    queryFn: ({ signal }) => listKeys(userId, signal),
    enabled: isNew && kind === "key" && userId !== "",
  });
  const models = useQuery({ queryKey: ["models"], queryFn: ({ signal }) => listModels(signal), enabled: isNew });
  const isEmpty = FIGURES.every((name) => figures[name] === "");

  const saving = useMutation({
    mutationFn: () => {
      if (limit && isEmpty) return removeLimit(limit.id);
      const whose = limit
        ? { key_id: limit.key_id, user_id: limit.user_id, model: limit.model }
        : { [kind === "model" ? "model" : `${kind}_id`]: subject };
      const numbers = FIGURES.map((name) => [name, figures[name] === "" ? null : Number(figures[name])] as const);
      return setLimit({ ...whose, ...Object.fromEntries(numbers) });
    },
    onSuccess: async () => {
      onClose();
      await queries.invalidateQueries({ queryKey: USAGE });
    },
  });

  function submit(event: FormEvent): void {
    event.preventDefault();
    if (!saving.isPending) saving.mutate();
  }

  const people = users.data ?? [];
  const choices: readonly (readonly [string, string])[] =
    kind === "user"
      ? people.map(({ id, name, email }) => [id, `${name} (${email})`])
      : kind === "key"
        ? (keys.data ?? []).filter(({ revoked_at }) => revoked_at === null).map(({ id, name }) => [id, name])
        : (models.data ?? []).map(({ id }) => [id, id]);

  return (
    <form onSubmit={submit}>
      {isNew && (
        <>
          {accounts && (
            <Select
              label={t("usage.limits.whose")}
              value={kind}
              options={(["user", "key", "model"] as const).map((kind) => [kind, t(`usage.by.${kind}`)])}
              onChange={(value) => {
                setKind(value as Kind);
                setSubject("");
              }}
              testId="limit-kind"
            />
          )}
          {kind === "key" && (
            <Select
              label={t("usage.limits.keyOf")}
              value={userId}
              options={[["", t("usage.limits.choose")], ...people.map(({ id, name, email }) => [id, `${name} (${email})`] as const)]}
              onChange={(value) => {
                setUserId(value);
                setSubject("");
              }}
              testId="limit-user"
            />
          )}
          <Select
            label={t(`usage.by.${kind}`)}
            value={subject}
            options={[["", t("usage.limits.choose")], ...choices]}
            onChange={setSubject}
            required
            testId="limit-subject"
          />
        </>
      )}
      {FIGURES.map((name) => (
        <Field
          key={name}
          className="mt-3"
          label={t(`usage.limit.${name}`)}
          type="number"
          min={0}
          max={1e15}
          step={1}
          inputMode="numeric"
          placeholder={t("usage.limits.free")}
          value={figures[name]}
          onChange={({ target }) => setFigures({ ...figures, [name]: target.value })}
          testId={`limit-${name}`}
        />
      ))}
      <Failure error={saving.error ?? users.error ?? keys.error ?? models.error} />
      <div className="mt-6 flex justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          {t("message.cancel")}
        </button>
        <button
          type="submit"
          className="button button-primary"
          disabled={isNew && isEmpty}
          aria-busy={saving.isPending}
          data-testid="save-limit"
        >
          {t("account.save")}
        </button>
      </div>
    </form>
  );
}

interface SelectProps {
  label: string;
  value: string;
  options: readonly (readonly [string, string])[];
  onChange: (value: string) => void;
  required?: boolean;
  testId: string;
}

function Select({ label, value, options, onChange, required = false, testId }: SelectProps) {
  return (
    <label className="mt-3 block font-medium first:mt-0">
      {label}
      <select
        value={value}
        required={required}
        onChange={({ target }) => onChange(target.value)}
        className="field mt-1 font-normal"
        data-testid={testId}
      >
        {options.map(([id, name]) => (
          <option key={id} value={id}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}
