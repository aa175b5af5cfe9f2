// Keys in a list: what each may, until when, whether it was used; and the button that ends it.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useId, useState } from "react";
import { useTranslation } from "react-i18next";

import { type ApiKey, listKeys, revokeKey } from "./api";
import { Failure } from "./Failure";
import { day } from "./time";

export function keysQuery(userId?: string): string[] {
  return ["keys", userId ?? "own"];
}

type State = "active" | "expired" | "revoked";

function stateOf({ expires_at, revoked_at }: ApiKey): State {
  // One whose time was up is closed with that time.
  if (revoked_at !== null) return revoked_at === expires_at ? "expired" : "revoked";
  return expires_at !== null && expires_at * 1000 <= Date.now() ? "expired" : "active";
}

interface Props {
  /** Whose; one's own without it. */
  userId?: string;
  canRevoke?: boolean;
}

export function KeyList({ userId, canRevoke = true }: Props) {
  const { t } = useTranslation();
  const queries = useQueryClient();
  const keys = useQuery({ queryKey: keysQuery(userId), queryFn: ({ signal }) => listKeys(userId, signal) });
  const revoking = useMutation({
    mutationFn: (id: string) => revokeKey(id, userId),
    onSettled: () => queries.invalidateQueries({ queryKey: keysQuery(userId) }),
  });
  const good = keys.data?.filter((key) => stateOf(key) === "active") ?? [];
  const over = keys.data?.filter((key) => stateOf(key) !== "active") ?? [];
  return (
    <>
      {keys.data && good.length === 0 && <p className="text-muted-foreground">{t("account.keys.none")}</p>}
      <ul className="list" data-testid="keys">
        {good.toReversed().map((key) => (
          <Row key={key.id} apiKey={key} onRevoke={canRevoke ? () => revoking.mutate(key.id) : undefined} />
        ))}
      </ul>
      <Failure error={keys.error ?? revoking.error} />
      {over.length > 0 && (
        <details className="mt-4">
          <summary className="cursor-pointer text-muted-foreground">{t("account.keys.over", { count: over.length })}</summary>
          <ul className="list mt-2" data-testid="keys-over">
            {over.toReversed().map((key) => (
              <Row key={key.id} apiKey={key} />
            ))}
          </ul>
        </details>
      )}
    </>
  );
}

function Row({ apiKey: key, onRevoke }: { apiKey: ApiKey; onRevoke?: () => void }) {
  const { t, i18n } = useTranslation();
  const id = useId();
  const [isAsking, setIsAsking] = useState(false);
  const state = stateOf(key);
  const facts = [
    new Intl.ListFormat(i18n.language).format(key.scopes.map((scope) => `${t(`account.scope.${scope}`)} (${scope})`)),
    state === "active" &&
      (key.expires_at === null
        ? t("account.keys.noEnd")
        : t("account.keys.until", { day: day(key.expires_at, i18n.language) })),
    state === "expired" && t("account.keys.expired", { day: day(key.expires_at ?? 0, i18n.language) }),
    state === "revoked" && t("account.keys.revoked", { day: day(key.revoked_at ?? 0, i18n.language) }),
    key.used_at === null ? t("account.keys.unused") : t("account.keys.used", { day: day(key.used_at, i18n.language) }),
  ];
  return (
    <li className="list-row" data-testid="key" data-state={state}>
      <span className="min-w-0 grow">
        <span id={id} className="block font-medium">
          {key.name}
        </span>
        <span className="block font-mono text-sm break-all text-muted-foreground">
          {key.prefix}… · {key.id}
        </span>
        <span className="block text-sm text-muted-foreground">{facts.filter(Boolean).join(" · ")}</span>
        {isAsking && (
          <span role="alertdialog" aria-label={t("account.keys.revoke")} className="notice notice-error mt-2 block">
            {t("account.keys.ask", { name: key.name })}
            <span className="mt-3 flex gap-2">
              <button
                type="button"
                autoFocus
                className="button button-small"
                onClick={() => setIsAsking(false)}
                data-testid="keep"
              >
                {t("message.cancel")}
              </button>
              <button
                type="button"
                className="button button-small button-danger"
                onClick={() => {
                  setIsAsking(false);
                  onRevoke?.();
                }}
                data-testid="yes-revoke"
              >
                {t("account.keys.revoke")}
              </button>
            </span>
          </span>
        )}
      </span>
      {onRevoke && !isAsking && (
        <button
          type="button"
          className="button button-small button-danger"
          aria-describedby={id}
          onClick={() => setIsAsking(true)}
          data-testid="revoke"
        >
          {t("account.keys.revoke")}
        </button>
      )}
    </li>
  );
}
