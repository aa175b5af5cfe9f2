// How jobs are called: by the word that their user chose, else by their id.
import type { Job } from "./api";

export function nameOfJob({ id, user_provided_suffix }: Job): string {
  return user_provided_suffix?.trim() ? user_provided_suffix : id;
}
