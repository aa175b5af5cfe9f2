// The server's sentences about jobs (the API's, so English) as keys of the page's languages.
import type { TFunction } from "i18next";

/** Named groups are the translation's values. tests/jobs/test_event_words.py holds the list against the server's sentences. */
const SENTENCES: readonly (readonly [RegExp, string])[] = [
  [/^Created fine-tuning job: (?<what>.+)$/, "created"],
  [/^Validating training file: (?<what>.+)$/, "validating"],
  [/^Files validated, moving job to queued state$/, "validated"],
  [/^Fine-tuning job started$/, "started"],
  [/^Fine-tuning goes on from step (?<step>\d+)$/, "goesOn"],
  [/^Checkpoint created at step (?<step>\d+)$/, "checkpoint"],
  [/^Training stopped early: it was best on the validation file at step (?<step>\d+)$/, "stoppedEarly"],
  [/^The machine or its software changed: (?<what>.+)$/s, "machineChanged"],
  [/^Examples of the training file that could not be used as they are: (?<what>.+)$/s, "badExamples"],
  [/^Examples of the validation file that could not be used as they are: (?<what>.+)$/s, "badValidation"],
  [/^Paused: the account can not sign in\.$/, "suspended"],
  [/^The process of the job ended early \((?<what>.+)\)\. It goes on from what it has saved\.$/s, "endedEarly"],
  [/^The job was interrupted\. It goes on from what it has saved\.$/, "interrupted"],
  [/^The server is shutting down\. The job goes on when it is back\.$/, "shuttingDown"],
  [/^The job has been cancelled\.$/, "cancelled"],
  [/^The job has been paused\.$/, "paused"],
  [/^The job has been resumed and is waiting for its turn\.$/, "resumed"],
  [/^The job has failed: (?<what>.+)$/s, "failed"],
  [/^New fine-tuned model created: (?<what>.+)$/, "newModel"],
  [/^The job has successfully completed\.$/, "completed"],
];

/** The sentence in the page's language; undefined for one that is not known here. */
export function translated(message: string, t: TFunction): string | undefined {
  for (const [pattern, name] of SENTENCES) {
    const match = pattern.exec(message);
    if (match) return t(`jobs.event.${name}`, { ...match.groups });
  }
  return undefined;
}
