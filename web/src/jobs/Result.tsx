// What came of a job: the model, which can be talked with and deleted, and the table of its losses.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Check, Copy, Download, MessageSquare, Trash2 } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { Failure } from "../account/Failure";
import { listModels } from "../api/client";
import { AskDialog } from "../ui/AskDialog";
import { IconButton } from "../ui/IconButton";
import { checkpointsQuery, deleteModel, type Job, saveFile } from "./api";
import { ChatLink } from "./ChatLink";

const MODELS = ["models"];

export function Result({ job }: { job: Job }) {
  const { t } = useTranslation();
  const queries = useQueryClient();
  const [asking, setAsking] = useState(false);
  const [copied, setCopied] = useState(false);
  const name = job.fine_tuned_model ?? "";
  const [table] = job.result_files;
  const isDone = job.status === "succeeded" && name !== "";
  // The chat's own list may be from before the job ended.
  const models = useQuery({
    queryKey: [...MODELS, "with", name],
    queryFn: ({ signal }) => listModels(signal),
    enabled: isDone,
  });
  const saving = useMutation({ mutationFn: (id: string) => saveFile(id, `${job.id}.csv`) });
  const deleting = useMutation({
    mutationFn: () => deleteModel(name),
    onSuccess: async () => {
      setAsking(false);
      await Promise.all([MODELS, checkpointsQuery(job.id)].map((queryKey) => queries.invalidateQueries({ queryKey })));
    },
  });
  if (!isDone || models.isPending) return null;
  const isThere = models.data?.some(({ id }) => id === name);
  const Icon = copied ? Check : Copy;
  return (
    <div className="card mb-8" data-testid="result" data-there={isThere}>
      <h3 className="font-medium">{t("jobs.result")}</h3>
      <p className="flex items-center gap-1">
        <span className="min-w-0 font-mono text-sm" data-testid="result-name">
          {name}
        </span>
        <IconButton
          small
          label={t(copied ? "message.copied" : "jobs.copyName")}
          onClick={() => void navigator.clipboard.writeText(name).then(() => setCopied(true))}
        >
          <Icon aria-hidden className="size-4" />
        </IconButton>
      </p>
      {models.data && !isThere && <p className="mt-2 text-muted-foreground">{t("jobs.resultGone")}</p>}
      <div className="mt-3 flex flex-wrap gap-2">
        {isThere && (
          <ChatLink model={name} className="button button-primary inline-flex items-center gap-2">
            <MessageSquare aria-hidden className="size-4" />
            {t("jobs.chat")}
          </ChatLink>
        )}
        {table !== undefined && (
          <button
            type="button"
            className="button inline-flex items-center gap-2"
            aria-busy={saving.isPending}
            onClick={() => !saving.isPending && saving.mutate(table)}
            data-testid="save-table"
          >
            <Download aria-hidden className="size-4" />
            {t("jobs.table")}
          </button>
        )}
        {isThere && (
          <button
            type="button"
            className="button button-danger inline-flex items-center gap-2"
            onClick={() => setAsking(true)}
            data-testid="delete-result"
          >
            <Trash2 aria-hidden className="size-4" />
            {t("jobs.delete")}
          </button>
        )}
      </div>
      <Failure error={models.error ?? saving.error} />
      <AskDialog
        open={asking}
        title={t("jobs.deleteTitle")}
        text={t("jobs.deleteText")}
        yes={t("jobs.delete")}
        doing={deleting}
        onYes={() => deleting.mutate()}
        onClose={() => setAsking(false)}
        testId="ask-delete"
      />
    </div>
  );
}
