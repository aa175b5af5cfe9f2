// A file to train on: one that was uploaded before, or one from this machine, which is uploaded at once.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Upload, X } from "lucide-react";
import { useId, useRef, useState } from "react";
import { useTranslation } from "react-i18next";

import { Failure } from "../account/Failure";
import { day } from "../account/time";
import { IconButton } from "../ui/IconButton";
import { type FileInfo, FILES, upload } from "./api";
import { shownSize } from "./size";

interface Props {
  label: string;
  help: string;
  files: readonly FileInfo[];
  /** The id; none is empty. */
  value: string;
  onChange: (id: string) => void;
  /** What no file at all is called, where there may be none. */
  none?: string;
  testId: string;
}

export function FilePicker({ label, help, files, value, onChange, none, testId }: Props) {
  const { t, i18n } = useTranslation();
  const id = useId();
  const queries = useQueryClient();
  const input = useRef<HTMLInputElement>(null);
  const stop = useRef<AbortController | undefined>(undefined);
  const [share, setShare] = useState(0);
  const sending = useMutation({
    mutationFn: (file: File) => {
      stop.current = new AbortController();
      setShare(0);
      return upload(file, setShare, stop.current.signal);
    },
    onSuccess: (file) => {
      queries.setQueryData<FileInfo[]>(FILES, (known = []) => [file, ...known]);
      onChange(file.id);
    },
  });
  const wasStopped = sending.error instanceof DOMException;

  return (
    <div>
      <label className="mb-1 block font-medium" htmlFor={id}>
        {label}
      </label>
      <div className="flex flex-wrap items-center gap-2">
        <select
          id={id}
          value={value}
          onChange={({ target }) => onChange(target.value)}
          className="field w-auto min-w-0 grow basis-60"
          aria-describedby={`${id}-help`}
          data-testid={`${testId}-file`}
        >
          <option value="">{none ?? t("jobs.chooseFile")}</option>
          {files.map(({ id, filename, bytes, created_at }) => (
            <option key={id} value={id}>
              {`${filename} · ${shownSize(bytes, i18n.language)} · ${day(created_at, i18n.language)}`}
            </option>
          ))}
        </select>
        <button
          type="button"
          className="button inline-flex shrink-0 items-center gap-2"
          disabled={sending.isPending}
          aria-describedby={id}
          onClick={() => input.current?.click()}
          data-testid={`${testId}-upload`}
        >
          <Upload aria-hidden className="size-4" />
          {t("jobs.upload")}
        </button>
        <input
          ref={input}
          type="file"
          hidden
          accept=".jsonl,.ndjson,.json,application/jsonl,application/x-ndjson"
          aria-label={t("jobs.upload")}
          onChange={({ target }) => {
            const [file] = target.files ?? [];
            target.value = ""; // the same file, mended, can be chosen again
            if (file) sending.mutate(file);
          }}
          data-testid={`${testId}-input`}
        />
      </div>
      {sending.isPending && (
        <div className="mt-2 flex items-center gap-3" data-testid="uploading">
          <progress aria-label={t("jobs.uploading")} value={share} className="meter grow" />
          <IconButton small label={t("jobs.stopUpload")} onClick={() => stop.current?.abort()}>
            <X aria-hidden className="size-4" />
          </IconButton>
        </div>
      )}
      {!wasStopped && <Failure error={sending.error} />}
      <p id={`${id}-help`} className="mt-1 text-sm text-muted-foreground">
        {help}
      </p>
    </div>
  );
}
