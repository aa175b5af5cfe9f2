// What was used, against what may be: one's own, and everybody's for administrators.
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { listKeys } from "../account/api";
import { keysQuery } from "../account/KeyList";
import { Section } from "../account/Section";
import { useSession } from "../account/session";
import { Choice } from "../ui/Choice";
import { Loading } from "../ui/Loading";
import { Trouble } from "../ui/Trouble";
import { loadOwnUsage, loadUsageOfAll, USAGE } from "./api";
import { Limits } from "./Limits";
import type { Names } from "./names";
import { type By, grouped, spans, sum } from "./sums";
import { UsageChart } from "./UsageChart";
import { UsageTable } from "./UsageTable";

const RANGES = [7, 31, 92, 366] as const;
type Whose = "own" | "all";

export function UsagePage() {
  const { t } = useTranslation();
  const { session } = useSession();
  // Without accounts nobody is told from others: there is everybody's, for the holder of the admin token.
  const isAdmin = !session.accounts || session.scopes.includes("admin");
  const [whose, setWhose] = useState<Whose>(session.user ? "own" : "all");
  const [days, setDays] = useState<number>(31);
  const [by, setBy] = useState<By>("day");
  const isAll = whose === "all" && isAdmin;
  const groups: By[] = !isAll ? ["day", "model", "key"] : session.accounts ? ["day", "user", "key", "model"] : ["day", "model"];
  const asked = isAll && by !== "day" ? by : "model";

  const own = useQuery({
    queryKey: [...USAGE, "own", days],
    queryFn: ({ signal }) => loadOwnUsage(days, signal),
    enabled: !isAll,
    placeholderData: keepPreviousData,
  });
  const all = useQuery({
    queryKey: [...USAGE, "all", days, asked],
    queryFn: ({ signal }) => loadUsageOfAll(days, asked, signal),
    enabled: isAll,
    placeholderData: keepPreviousData,
  });
  const keys = useQuery({
    queryKey: keysQuery(),
    queryFn: ({ signal }) => listKeys(undefined, signal),
    enabled: !isAll && session.user !== null,
  });
  const { data, error, refetch, isPlaceholderData } = isAll ? all : own;
  const names: Names = new Map(
    isAll
      ? all.data?.names.map(({ id, name, owner }) => [id, { name, owner }])
      : keys.data?.map(({ id, name }) => [id, { name, owner: null }]),
  );
  // Kept while another question is asked: rows that tell nothing of what they are grouped by are not shown as if they did.
  const isStale = isPlaceholderData && isAll && by !== "day";

  return (
    <>
      <div className="mb-6 flex flex-wrap items-center gap-x-5 gap-y-2">
        {session.user && isAdmin && (
          <Choice
            label={t("usage.whose")}
            value={whose}
            options={[
              ["own", t("usage.own")],
              ["all", t("usage.all")],
            ]}
            onChange={(value) => {
              setWhose(value);
              setBy("day");
            }}
            testId="usage-whose"
          />
        )}
        <Choice
          label={t("usage.range")}
          value={days}
          options={RANGES.map((days) => [days, t("usage.days", { count: days })])}
          onChange={setDays}
          testId="usage-range"
        />
      </div>
      <Trouble error={error} onRetry={() => void refetch()} />
      {!data && !error && <Loading />}
      {data && (
        <div aria-busy={isPlaceholderData}>
          <Section title={t("usage.title")}>
            <Totals rows={data.data} />
            {data.data.length === 0 ? (
              <p className="mt-4 text-muted-foreground" data-testid="usage-none">
                {t("usage.none")}
              </p>
            ) : (
              <UsageChart spans={spans(data.data, data.start_time, data.end_time)} />
            )}
          </Section>
          <Limits limits={data.limits} names={names} canChange={isAll} isOfOne={!isAll} />
          {data.data.length > 0 && (
            <Section title={t("usage.table")}>
              <div className="mb-2">
                <Choice
                  label={t("usage.by")}
                  value={by}
                  options={groups.map((by) => [by, t(`usage.by.${by}`)])}
                  onChange={setBy}
                  testId="usage-by"
                />
              </div>
              {isStale ? <Loading rows={1} /> : <UsageTable by={by} groups={grouped(data.data, by)} names={names} />}
            </Section>
          )}
        </div>
      )}
    </>
  );
}

function Totals({ rows }: { rows: Parameters<typeof sum>[0] }) {
  const { t, i18n } = useTranslation();
  const number = new Intl.NumberFormat(i18n.language);
  const { requests, input_tokens, cached_tokens, output_tokens } = sum(rows);
  const facts = [
    ["requests", requests],
    ["input", input_tokens],
    ["cached", cached_tokens],
    ["output", output_tokens],
  ] as const;
  return (
    <dl className="grid grid-cols-2 gap-3 md:grid-cols-4">
      {facts.map(([name, value]) => (
        <div key={name} className="card">
          <dt className="text-sm text-muted-foreground">{t(`usage.${name}`)}</dt>
          <dd className="text-xl font-semibold tabular-nums" data-testid={`total-${name}`}>
            {number.format(value)}
          </dd>
        </div>
      ))}
    </dl>
  );
}
