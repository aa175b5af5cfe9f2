// Pause, resume, cancel.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Pause, Play, X } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { Failure } from "../account/Failure";
import { AskDialog } from "../ui/AskDialog";
import { cancelJob, hasEnded, type Job, JOBS, jobQuery, pauseJob, resumeJob } from "./api";

export function JobActions({ job }: { job: Job }) {
  const { t } = useTranslation();
  const queries = useQueryClient();
  const [asking, setAsking] = useState(false);
  const told = {
    onSuccess: (changed: Job) => queries.setQueryData(jobQuery(job.id), changed),
    // Also when it was refused: the job is another one than the page thinks.
    onSettled: () =>
      Promise.all([JOBS, jobQuery(job.id)].map((queryKey) => queries.invalidateQueries({ queryKey }))),
  };
  const pausing = useMutation({ mutationFn: () => pauseJob(job.id), ...told });
  const resuming = useMutation({ mutationFn: () => resumeJob(job.id), ...told });
  const cancelling = useMutation({
    mutationFn: () => cancelJob(job.id),
    ...told,
    onSuccess: (changed) => {
      setAsking(false);
      told.onSuccess(changed);
    },
  });
  if (hasEnded(job)) return null;
  const isPaused = job.status === "paused";
  const other = isPaused ? resuming : pausing;
  const Icon = isPaused ? Play : Pause;
  return (
    <div className="mb-6">
      <div className="flex flex-wrap gap-2">
        <button
          type="button"
          className="button button-small inline-flex items-center gap-2"
          aria-busy={other.isPending}
          onClick={() => !other.isPending && other.mutate()}
          data-testid={isPaused ? "resume-job" : "pause-job"}
        >
          <Icon aria-hidden className="size-4" />
          {t(isPaused ? "jobs.resume" : "jobs.pause")}
        </button>
        <button
          type="button"
          className="button button-small button-danger inline-flex items-center gap-2"
          onClick={() => setAsking(true)}
          data-testid="cancel-job"
        >
          <X aria-hidden className="size-4" />
          {t("jobs.cancel")}
        </button>
      </div>
      <Failure error={pausing.error ?? resuming.error} />
      <AskDialog
        open={asking}
        title={t("jobs.cancelTitle")}
        text={t("jobs.cancelText")}
        no={t("jobs.goOn")}
        yes={t("jobs.cancel")}
        doing={cancelling}
        onYes={() => cancelling.mutate()}
        onClose={() => setAsking(false)}
        testId="ask-cancel"
      />
    </div>
  );
}
