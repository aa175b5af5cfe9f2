// Training jobs: the list with what runs, one of them, or a new one, as the address says.
import { useInfiniteQuery } from "@tanstack/react-query";
import { Plus } from "lucide-react";
import { useTranslation } from "react-i18next";

import { usePart } from "../account/page";
import { Loading } from "../ui/Loading";
import { Trouble } from "../ui/Trouble";
import { hasEnded, JOBS, listJobs } from "./api";
import { JobForm } from "./JobForm";
import { JobPage } from "./JobPage";
import { JobRow } from "./JobRow";

/** While something is at work. */
const LOOK_AGAIN_MS = 5000;

export function JobsPage() {
  const part = usePart();
  if (part === undefined) return <JobList />;
  return part === "new" ? <JobForm /> : <JobPage key={part} id={part} />;
}

function JobList() {
  const { t } = useTranslation();
  const listed = useInfiniteQuery({
    queryKey: JOBS,
    queryFn: ({ pageParam, signal }) => listJobs(pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: ({ has_more, data }) => (has_more ? data.at(-1)?.id : undefined),
    refetchInterval: ({ state }) =>
      state.data?.pages.some(({ data }) => data.some((job) => !hasEnded(job) && job.status !== "paused"))
        ? LOOK_AGAIN_MS
        : false,
  });
  const jobs = listed.data?.pages.flatMap(({ data }) => data);
  return (
    <>
      <p className="mb-4 text-muted-foreground">{t("jobs.text")}</p>
      <Trouble error={listed.error} onRetry={() => void listed.refetch()} />
      {listed.isPending && <Loading />}
      {jobs && (
        <>
          <a href="#/jobs/new" className="button button-primary mb-6 inline-flex items-center gap-2" data-testid="new-job">
            <Plus aria-hidden className="size-4" />
            {t("jobs.new")}
          </a>
          {jobs.length === 0 && (
            <p className="text-muted-foreground" data-testid="no-jobs">
              {t("jobs.none")}
            </p>
          )}
          <ul className="list" data-testid="jobs">
            {jobs.map((job) => (
              <JobRow key={job.id} job={job} />
            ))}
          </ul>
          {listed.hasNextPage && (
            <button
              type="button"
              className="button mt-4"
              aria-busy={listed.isFetchingNextPage}
              onClick={() => void listed.fetchNextPage()}
              data-testid="more-jobs"
            >
              {t("jobs.more")}
            </button>
          )}
        </>
      )}
    </>
  );
}
