// One job: its state and curve while it goes on, what may be done with it, and what came of it.
import { useQuery } from "@tanstack/react-query";
import { ArrowLeft } from "lucide-react";
import { useTranslation } from "react-i18next";

import { Section } from "../account/Section";
import { Loading } from "../ui/Loading";
import { Trouble } from "../ui/Trouble";
import { hasEnded, type Job, jobQuery, loadJob } from "./api";
import { Checkpoints } from "./Checkpoints";
import { JobActions } from "./JobActions";
import { JobCurve } from "./JobCurve";
import { JobEvents } from "./JobEvents";
import { JobFacts } from "./JobFacts";
import { JobFailure } from "./JobFailure";
import { JobProgress } from "./JobProgress";
import { JobState } from "./JobState";
import { nameOfJob } from "./names";
import { Result } from "./Result";
import { useJobFeed } from "./useJobFeed";

/** The time left changes without an event. */
const LOOK_AGAIN_MS = 3000;

export function JobPage({ id }: { id: string }) {
  const { t } = useTranslation();
  const job = useQuery({
    queryKey: jobQuery(id),
    queryFn: ({ signal }) => loadJob(id, signal),
    refetchInterval: ({ state }) => (state.data && !hasEnded(state.data) ? LOOK_AGAIN_MS : false),
  });
  return (
    <>
      <a href="#/jobs" className="nav-link mb-4 -ml-3" data-testid="all-jobs">
        <ArrowLeft aria-hidden className="size-5" />
        {t("jobs.all")}
      </a>
      <Trouble error={job.error} onRetry={() => void job.refetch()} />
      {job.isPending && <Loading />}
      {job.data && <OpenJob job={job.data} />}
    </>
  );
}

function OpenJob({ job }: { job: Job }) {
  const { t } = useTranslation();
  const feed = useJobFeed(job);
  return (
    <div data-testid="open-job-page" data-status={job.status}>
      <div className="mb-2 flex flex-wrap items-center gap-3">
        <h2 className="min-w-0 text-lg font-semibold">{nameOfJob(job)}</h2>
        <span aria-live="polite">
          <JobState job={job} />
        </span>
      </div>
      <JobFailure job={job} />
      <JobActions job={job} />
      <Result job={job} />
      {feed.error && !hasEnded(job) && (
        <output className="mb-3 block text-sm text-muted-foreground" data-testid="feed-broken">
          {t("jobs.feedBroken")}
        </output>
      )}
      {(feed.totalSteps > 0 || !hasEnded(job)) && (
        <Section title={t("jobs.curve")}>
          <JobProgress job={job} feed={feed} />
          {feed.training.length > 0 ? (
            <JobCurve feed={feed} />
          ) : (
            <p className="text-muted-foreground" data-testid="no-curve">
              {t(`jobs.waiting.${job.status}`)}
            </p>
          )}
        </Section>
      )}
      <JobFacts job={job} />
      <Checkpoints job={job} />
      <JobEvents feed={feed} />
    </div>
  );
}
