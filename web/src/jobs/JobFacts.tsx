// What a job was asked for, and the numbers that were chosen.
import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";

import { Section } from "../account/Section";
import { moment } from "../account/time";
import { type Job, loadFile } from "./api";

const NUMBERS = ["n_epochs", "batch_size", "learning_rate_multiplier", "beta"] as const;

export function JobFacts({ job }: { job: Job }) {
  const { t, i18n } = useTranslation();
  const number = new Intl.NumberFormat(i18n.language, { maximumSignificantDigits: 6 });
  const chosen = (job.method?.dpo?.hyperparameters ?? job.method?.supervised?.hyperparameters ?? job.hyperparameters) as Record<
    string,
    unknown
  >;
  const facts: [string, ReactNode][] = [
    ["model", job.model],
    ["method", t(`jobs.method.${job.method?.type ?? "supervised"}`)],
    ["trainingFile", <FileName key="training" id={job.training_file} />],
  ];
  if (job.validation_file) facts.push(["validationFile", <FileName key="validation" id={job.validation_file} />]);
  for (const name of NUMBERS) {
    const value = chosen[name];
    if (value === undefined || value === null) continue;
    facts.push([name, typeof value === "number" ? number.format(value) : t("jobs.auto")]);
  }
  facts.push(["seed", String(job.seed)]);
  if (job.trained_tokens) facts.push(["trainedTokens", number.format(job.trained_tokens)]);
  facts.push(["created", moment(job.created_at, i18n.language)]);
  if (job.finished_at) facts.push(["finished", moment(job.finished_at, i18n.language)]);
  facts.push(["id", <span key="id" className="font-mono text-sm">{job.id}</span>]);
  return (
    <Section title={t("jobs.facts")}>
      <dl className="facts" data-testid="job-facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{t(`jobs.fact.${name}`)}</dt>
            <dd data-fact={name}>{value}</dd>
          </div>
        ))}
      </dl>
    </Section>
  );
}

/** Its name, as long as it is there and may be seen. */
function FileName({ id }: { id: string }) {
  const file = useQuery({ queryKey: ["file", id], queryFn: ({ signal }) => loadFile(id, signal) });
  return file.data?.filename ?? <span className="font-mono text-sm">{id}</span>;
}
