// The typed calls of training jobs, their files and their results.
import { answer, client } from "../api/client";
import { asApiError, errorFrom, errorFromResponse } from "../api/errors";
import { authorization } from "../api/key";
import type { components } from "../api/schema";

type Schemas = components["schemas"];
export type Job = Schemas["JobInfo"];
export type JobPage = Schemas["JobList"];
export type JobEvent = Schemas["FineTuningJobEvent"];
export type Checkpoint = Schemas["FineTuningJobCheckpoint"];
export type FileInfo = Schemas["FileInfo"];
export type NewJob = Schemas["CreateJobBody"];
export type Status = Job["status"];

/** Queries of the list, and of one job. */
export const JOBS = ["jobs"];
export const jobQuery = (id: string): string[] => ["job", id];
export const checkpointsQuery = (id: string): string[] => ["checkpoints", id];
export const FILES = ["files"];

const ENDED: readonly Status[] = ["succeeded", "failed", "cancelled"];
export const hasEnded = (job: Job): boolean => ENDED.includes(job.status);

const at = (job_id: string) => ({ params: { path: { job_id } } });

export const listJobs = (after: string | undefined, signal?: AbortSignal): Promise<JobPage> =>
  answer(client().GET("/v1/fine_tuning/jobs", { params: { query: after === undefined ? {} : { after } }, signal }));

export const loadJob = (id: string, signal?: AbortSignal): Promise<Job> =>
  answer(client().GET("/v1/fine_tuning/jobs/{job_id}", { ...at(id), signal }));

export const makeJob = (body: NewJob): Promise<Job> => answer(client().POST("/v1/fine_tuning/jobs", { body }));

export const cancelJob = (id: string): Promise<Job> => answer(client().POST("/v1/fine_tuning/jobs/{job_id}/cancel", at(id)));

export const pauseJob = (id: string): Promise<Job> => answer(client().POST("/v1/fine_tuning/jobs/{job_id}/pause", at(id)));

export const resumeJob = (id: string): Promise<Job> => answer(client().POST("/v1/fine_tuning/jobs/{job_id}/resume", at(id)));

export const listCheckpoints = async (id: string, signal?: AbortSignal): Promise<Checkpoint[]> =>
  (await answer(client().GET("/v1/fine_tuning/jobs/{job_id}/checkpoints", { ...at(id), signal }))).data;

export const deleteModel = (name: string): Promise<unknown> =>
  answer(client().DELETE("/v1/models/{name}", { params: { path: { name } } }));

/** Those that jobs can be trained on, the newest first. */
export const listFiles = async (signal?: AbortSignal): Promise<FileInfo[]> =>
  (await answer(client().GET("/v1/files", { params: { query: { purpose: "fine-tune", limit: 100 } }, signal }))).data;

export const loadFile = (file_id: string, signal?: AbortSignal): Promise<FileInfo> =>
  answer(client().GET("/v1/files/{file_id}", { params: { path: { file_id } }, signal }));

export const deleteFile = (file_id: string): Promise<unknown> =>
  answer(client().DELETE("/v1/files/{file_id}", { params: { path: { file_id } } }));

export async function loadContent(id: string, signal: AbortSignal | null = null): Promise<Blob> {
  const response = await fetch(`/v1/files/${encodeURIComponent(id)}/content`, { headers: authorization(), signal }).catch(
    (reason: unknown) => {
      throw asApiError(reason);
    },
  );
  if (!response.ok) throw await errorFromResponse(response);
  return response.blob();
}

/** Saves a file where the browser saves files. It may want a key, so that a link alone would not do. */
export async function saveFile(id: string, name: string): Promise<void> {
  const url = URL.createObjectURL(await loadContent(id));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

/** By XMLHttpRequest, which tells how much has gone, as `fetch` does not. `onProgress`: from 0 to 1. */
export function upload(file: File, onProgress: (share: number) => void, signal: AbortSignal): Promise<FileInfo> {
  const form = new FormData();
  form.append("purpose", "fine-tune");
  form.append("file", file);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/files");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total > 0 ? loaded / total : 0));
    request.addEventListener("load", () => {
      if (request.status === 200) resolve(request.response as FileInfo);
      else reject(errorFrom(request.status, request.response, request.getResponseHeader("Retry-After")));
    });
    request.addEventListener("error", () => reject(asApiError(undefined)));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
