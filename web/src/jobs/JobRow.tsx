// A job in the list: what it makes of what, how it stands, and while it runs its progress and curve.
import { useTranslation } from "react-i18next";

import { moment } from "../account/time";
import type { Job } from "./api";
import { JobCurve } from "./JobCurve";
import { JobProgress } from "./JobProgress";
import { JobState } from "./JobState";
import { nameOfJob } from "./names";
import { useJobFeed } from "./useJobFeed";

export function JobRow({ job }: { job: Job }) {
  const { t, i18n } = useTranslation();
  return (
    <li data-testid="job" data-id={job.id} data-status={job.status} className="py-1">
      <a href={`#/jobs/${job.id}`} className="list-row list-button" data-testid="open-job">
        <span className="min-w-0 grow">
          <span className="block font-medium">{nameOfJob(job)}</span>
          <span className="block text-sm text-muted-foreground">
            {[job.model, t(`jobs.method.${job.method?.type ?? "supervised"}`), moment(job.created_at, i18n.language)].join(" · ")}
          </span>
        </span>
        <JobState job={job} />
      </a>
      {job.status === "running" && <Running job={job} />}
    </li>
  );
}

function Running({ job }: { job: Job }) {
  const feed = useJobFeed(job);
  return (
    <div className="px-3 pb-2">
      <JobProgress job={job} feed={feed} />
      <JobCurve feed={feed} height={150} />
    </div>
  );
}
