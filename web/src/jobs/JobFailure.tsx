// Why a job failed. Where a line of a file is wrong, the line itself: it is what has to be mended.
import { useQuery } from "@tanstack/react-query";
import { CircleAlert } from "lucide-react";
import { useTranslation } from "react-i18next";

import { type Job, loadContent, loadFile } from "./api";

/** Larger files are not loaded to show a line of them; nor longer lines whole. */
const MOST_BYTES = 20 * 2 ** 20;
const MOST_CHARACTERS = 600;
const LINE = /\bLine (\d+)\b/;

export function JobFailure({ job }: { job: Job }) {
  const { t } = useTranslation();
  const { error } = job;
  const line = Number(LINE.exec(error?.message ?? "")?.[1] ?? 0);
  const fileId = error?.param === "validation_file" ? job.validation_file : job.training_file;
  const shown = useQuery({
    queryKey: ["line", fileId, line],
    queryFn: ({ signal }) => lineOf(fileId ?? "", line, signal),
    enabled: line > 0 && Boolean(fileId),
  });
  if (!error?.code) return null;
  return (
    <div role="alert" className="notice notice-error mb-6" data-testid="job-failure">
      <CircleAlert aria-hidden className="mt-0.5 size-5 shrink-0 text-destructive" />
      <div className="min-w-0 grow">
        <p className="font-medium">
          {line > 0
            ? t(error.param === "validation_file" ? "jobs.wrongValidationLine" : "jobs.wrongLine", { line })
            : t("jobs.failed")}
        </p>
        <p lang="en" className="text-muted-foreground">
          {error.message}
        </p>
        {shown.data !== undefined && (
          <pre className="line" data-testid="wrong-line">
            {shown.data || t("jobs.emptyLine")}
          </pre>
        )}
      </div>
    </div>
  );
}

async function lineOf(id: string, line: number, signal: AbortSignal): Promise<string> {
  const { bytes } = await loadFile(id, signal);
  if (bytes > MOST_BYTES) throw new Error("too large to show a line of it");
  const text = (await (await loadContent(id, signal)).text()).split("\n")[line - 1] ?? "";
  return text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}…` : text;
}
