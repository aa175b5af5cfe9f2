// Joins a job's events with the queries that show the job: something happened, so they are asked again.
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useSyncExternalStore } from "react";

import { checkpointsQuery, hasEnded, type Job, JOBS, jobQuery } from "./api";
import { type Feed, JobFeed } from "./feed";

export function useJobFeed(job: Job): Feed {
  const queries = useQueryClient();
  const { id } = job;
  const feed = useMemo(
    () =>
      new JobFeed(id, () => {
        for (const queryKey of [JOBS, jobQuery(id), checkpointsQuery(id)]) void queries.invalidateQueries({ queryKey });
      }),
    [id, queries],
  );
  const now = useSyncExternalStore(feed.subscribe, feed.read);
  const isOver = hasEnded(job);
  useEffect(() => {
    if (isOver) feed.end();
  }, [feed, isOver]);
  return now;
}
