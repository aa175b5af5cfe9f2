// A new job: which model, on which files, and the numbers, which decide themselves unless somebody knows better.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { ArrowLeft } from "lucide-react";
import { type FormEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";

import { Failure } from "../account/Failure";
import { Field } from "../account/Field";
import { goTo } from "../account/page";
import { listModels } from "../api/client";
import { ApiError } from "../api/errors";
import { Loading } from "../ui/Loading";
import { Trouble } from "../ui/Trouble";
import { FILES, JOBS, listFiles, makeJob, type NewJob } from "./api";
import { FilePicker } from "./FilePicker";

const NUMBERS = [
  { name: "n_epochs", step: 1, min: 1, max: 100 },
  { name: "batch_size", step: 1, min: 1, max: 256 },
  { name: "learning_rate_multiplier", step: "any", min: 0.0001, max: 100 },
  { name: "beta", step: "any", min: 0.0001, max: 2 },
] as const;
type Numbers = Record<(typeof NUMBERS)[number]["name"], string>;
const NOTHING: Numbers = { n_epochs: "", batch_size: "", learning_rate_multiplier: "", beta: "" };
const METHODS = ["supervised", "dpo"] as const;

export function JobForm() {
  const { t } = useTranslation();
  const id = useId();
  const queries = useQueryClient();
  const models = useQuery({ queryKey: ["models"], queryFn: ({ signal }) => listModels(signal) });
  const files = useQuery({ queryKey: FILES, queryFn: ({ signal }) => listFiles(signal) });
  const [chosen, setChosen] = useState("");
  const [method, setMethod] = useState<(typeof METHODS)[number]>("supervised");
  const [training, setTraining] = useState("");
  const [validation, setValidation] = useState("");
  const [suffix, setSuffix] = useState("");
  const [numbers, setNumbers] = useState(NOTHING);
  const [seed, setSeed] = useState("");

  // Adapters that the server was given can not be trained, results of earlier jobs can; what only labels or embeds has no template.
  const bases = (models.data ?? []).filter(({ id, parent, chat }) => chat && (!parent || id.startsWith("ft:")));
  const model = chosen || (bases[0]?.id ?? "");
  const asked = NUMBERS.filter(({ name }) => name !== "beta" || method === "dpo");

  const making = useMutation({
    mutationFn: () => {
      const hyperparameters = Object.fromEntries(
        asked.flatMap(({ name }) => (numbers[name] === "" ? [] : [[name, Number(numbers[name])]])),
      );
      const body: NewJob = {
        model,
        training_file: training,
        method: { type: method, [method]: { hyperparameters } },
        ...(validation ? { validation_file: validation } : {}),
        ...(suffix.trim() ? { suffix: suffix.trim() } : {}),
        ...(seed === "" ? {} : { seed: Number(seed) }),
      };
      return makeJob(body);
    },
    onSuccess: async (job) => {
      goTo("jobs", job.id);
      await queries.invalidateQueries({ queryKey: JOBS });
    },
  });
  const wrong = making.error instanceof ApiError ? making.error.param : undefined;

  function submit(event: FormEvent): void {
    event.preventDefault();
    if (!making.isPending && training) making.mutate();
  }

  return (
    <>
      <a href="#/jobs" className="nav-link mb-4 -ml-3" data-testid="all-jobs">
        <ArrowLeft aria-hidden className="size-5" />
        {t("jobs.all")}
      </a>
      <h2 className="mb-4 text-lg font-semibold">{t("jobs.new")}</h2>
      <Trouble
        error={files.error ?? models.error}
        onRetry={() => void Promise.all([files.refetch(), models.refetch()])}
      />
      {(files.isPending || models.isPending) && <Loading />}
      {files.data && models.data && (
        <form onSubmit={submit} className="grid max-w-xl grid-cols-1 gap-5" data-testid="job-form">
          <div>
            <label className="mb-1 block font-medium" htmlFor={`${id}-model`}>
              {t("jobs.fact.model")}
            </label>
            <select
              id={`${id}-model`}
              value={model}
              onChange={({ target }) => setChosen(target.value)}
              className="field"
              aria-describedby={`${id}-model-help`}
              aria-invalid={wrong === "model"}
              data-testid="job-model"
            >
              {bases.map(({ id }) => (
                <option key={id} value={id}>
                  {id}
                </option>
              ))}
            </select>
            <p id={`${id}-model-help`} className="mt-1 text-sm text-muted-foreground">
              {t("jobs.help.model")}
            </p>
          </div>
          <fieldset>
            <legend className="mb-1 font-medium">{t("jobs.fact.method")}</legend>
            {METHODS.map((name) => (
              <label key={name} className="flex items-baseline gap-2 py-0.5">
                <input
                  type="radio"
                  name={`${id}-method`}
                  checked={method === name}
                  onChange={() => setMethod(name)}
                  className="accent-primary"
                  data-testid={`method-${name}`}
                />
                <span>
                  {t(`jobs.method.${name}`)}
                  <span className="block text-sm text-muted-foreground">{t(`jobs.help.${name}`)}</span>
                </span>
              </label>
            ))}
          </fieldset>
          <FilePicker
            label={t("jobs.fact.trainingFile")}
            help={t(`jobs.help.file.${method}`)}
            files={files.data}
            value={training}
            onChange={setTraining}
            testId="training"
          />
          <FilePicker
            label={t("jobs.validationOptional")}
            help={t("jobs.help.validation")}
            files={files.data}
            value={validation}
            onChange={setValidation}
            none={t("jobs.noValidation")}
            testId="validation"
          />
          <Field
            label={t("jobs.suffix")}
            help={t("jobs.help.suffix")}
            maxLength={64}
            autoComplete="off"
            value={suffix}
            onChange={({ target }) => setSuffix(target.value)}
            testId="job-suffix"
          />
          <details>
            <summary className="cursor-pointer font-medium" data-testid="more-settings">
              {t("jobs.numbers")}
            </summary>
            <p className="mt-1 mb-3 text-sm text-muted-foreground">{t("jobs.help.numbers")}</p>
            <div className="grid gap-4 sm:grid-cols-2">
              {asked.map(({ name, ...range }) => (
                <Field
                  key={name}
                  label={t(`jobs.fact.${name}`)}
                  type="number"
                  inputMode="decimal"
                  placeholder={t("jobs.auto")}
                  value={numbers[name]}
                  onChange={({ target }) => setNumbers({ ...numbers, [name]: target.value })}
                  testId={`job-${name}`}
                  {...range}
                />
              ))}
              <Field
                label={t("jobs.fact.seed")}
                type="number"
                inputMode="numeric"
                min={0}
                max={2 ** 31 - 1}
                step={1}
                placeholder={t("jobs.random")}
                value={seed}
                onChange={({ target }) => setSeed(target.value)}
                testId="job-seed"
              />
            </div>
          </details>
          <div>
            <Failure error={making.error} />
            <button
              type="submit"
              className="button button-primary mt-2"
              disabled={!training || !model}
              aria-busy={making.isPending}
              data-testid="start-job"
            >
              {t("jobs.start")}
            </button>
            {!training && <span className="ml-3 text-sm text-muted-foreground">{t("jobs.needsFile")}</span>}
          </div>
        </form>
      )}
    </>
  );
}
