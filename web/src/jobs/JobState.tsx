// How a job stands, in a word.
import { useTranslation } from "react-i18next";

import type { Job } from "./api";

export function JobState({ job: { status } }: { job: Job }) {
  const { t } = useTranslation();
  const look = status === "failed" ? "badge-danger" : status === "running" || status === "succeeded" ? "badge-good" : "";
  return (
    <span className={`badge ${look}`} data-testid="job-status" data-status={status}>
      {t(`jobs.status.${status}`)}
    </span>
  );
}
