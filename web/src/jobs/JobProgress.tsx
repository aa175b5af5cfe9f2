// How far a job is, and how long it will still take.
import { useId } from "react";
import { useTranslation } from "react-i18next";

import { useNow } from "../useNow";
import type { Job } from "./api";
import type { Feed } from "./feed";

export function JobProgress({ job, feed }: { job: Job; feed: Feed }) {
  const { t, i18n } = useTranslation();
  const id = useId();
  const now = useNow();
  const number = new Intl.NumberFormat(i18n.language);
  const { step, totalSteps } = feed;
  if (totalSteps === 0) return null;
  const left_s = job.status === "running" && job.estimated_finish ? job.estimated_finish - now : undefined;
  const said = t("jobs.steps", { step: number.format(step), total: number.format(totalSteps) });
  return (
    <div className="mb-3" data-testid="job-progress" data-step={step}>
      <div className="flex flex-wrap justify-between gap-x-3 text-sm">
        <span id={id}>{said}</span>
        {left_s !== undefined && <span className="text-muted-foreground">{timeLeft(left_s)}</span>}
      </div>
      <progress aria-labelledby={id} value={step} max={totalSteps} className="meter mt-1" />
    </div>
  );

  function timeLeft(seconds: number): string {
    if (seconds < 60) return t("jobs.left.soon");
    const minutes = Math.round(seconds / 60);
    if (minutes < 90) return t("jobs.left.minutes", { count: minutes });
    return t("jobs.left.hours", { count: Math.round(minutes / 60) });
  }
}
