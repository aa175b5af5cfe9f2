// What happens to a job, as it happens: its events from the first on, and the curves that they draw.
import { EventSourceParserStream } from "eventsource-parser/stream";

import { type ApiError, asApiError, errorFromResponse } from "../api/errors";
import { authorization } from "../api/key";
import type { JobEvent } from "./api";

export interface Feed {
  /** What is no measurement, the newest first. */
  messages: readonly JobEvent[];
  training: readonly (readonly [number, number])[];
  validation: readonly (readonly [number, number])[];
  step: number;
  totalSteps: number;
  error?: ApiError;
}

export const EMPTY: Feed = { messages: [], training: [], validation: [], step: 0, totalSteps: 0 };
/** Until a line that broke is taken up again. */
const AGAIN_MS = 2000;
/** Some events come at once: they are shown together. */
const TOGETHER_MS = 50;

interface Figures {
  step?: unknown;
  total_steps?: unknown;
  train_loss?: unknown;
  valid_loss?: unknown;
}

/** Follows one job. It begins with the first listener, rests while the tab is hidden (a browser has few connections), and ends with
 * the last listener. */
export class JobFeed {
  #feed = EMPTY;
  /** The job has ended; and all was read that it left. */
  #isOver = false;
  #isWhole = false;
  #seen = new Set<string>();
  #waiting: JobEvent[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stop: AbortController | undefined;
  readonly #listeners = new Set<() => void>();

  /** `onChange`: the job itself is another one than before. */
  constructor(
    readonly id: string,
    readonly onChange: () => void = () => undefined,
  ) {}

  readonly read = (): Feed => this.#feed;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    if (this.#listeners.size === 1) {
      document.addEventListener("visibilitychange", this.#look);
      this.#look();
    }
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      document.removeEventListener("visibilitychange", this.#look);
      this.#rest();
    };
  };

  readonly #look = (): void => {
    if (document.visibilityState === "hidden") this.#rest();
    else if (!this.#stop && !this.#isWhole) void this.#follow((this.#stop = new AbortController()).signal);
  };

  #rest(): void {
    this.#stop?.abort();
    this.#stop = undefined;
  }

  async #follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const wasOver = this.#isOver;
      try {
        await this.#listen(signal);
        if (signal.aborted) return;
        this.#take();
        this.#isWhole = wasOver;
        if (this.#feed.error) this.#set({ error: undefined });
      } catch (error) {
        if (signal.aborted) return;
        this.#set({ error: asApiError(error) });
        if (["key", "forbidden", "notFound"].includes(this.#feed.error?.kind ?? "")) return this.#rest();
      }
      if (this.#isWhole) return;
      this.onChange();
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  /** The server begins with the first event each time, and hangs up when the job has ended or the server leaves. */
  async #listen(signal: AbortSignal): Promise<void> {
    const response = await fetch(`/v1/fine_tuning/jobs/${encodeURIComponent(this.id)}/events?stream=true`, {
      headers: { Accept: "text/event-stream", ...authorization() },
      signal,
    });
    if (!response.ok || !response.body) throw await errorFromResponse(response);
    const reader = response.body
      .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array<ArrayBuffer>>)
      .pipeThrough(new EventSourceParserStream())
      .getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        this.#waiting.push(JSON.parse(value.data) as JobEvent);
        this.#timer ??= setTimeout(this.#take, TOGETHER_MS);
      }
    } finally {
      await reader.cancel().catch(() => undefined);
    }
  }

  readonly #take = (): void => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const fresh = this.#waiting.filter(({ id }) => !this.#seen.has(id));
    this.#waiting = [];
    if (fresh.length === 0) return;
    for (const { id } of fresh) this.#seen.add(id);
    const measured = fresh.filter(({ type }) => type === "metrics").map(({ data }) => (data ?? {}) as Figures);
    const messages = fresh.filter(({ type }) => type !== "metrics");
    const last = measured.findLast(({ step }) => typeof step === "number");
    this.#set({
      messages: [...messages.toReversed(), ...this.#feed.messages],
      training: [...this.#feed.training, ...measured.flatMap(({ step, train_loss }) => point(step, train_loss))],
      validation: [...this.#feed.validation, ...measured.flatMap(({ step, valid_loss }) => point(step, valid_loss))],
      step: Math.max(this.#feed.step, Number(last?.step ?? 0)),
      totalSteps: Number(last?.total_steps ?? this.#feed.totalSteps),
      error: undefined,
    });
    if (messages.length > 0) this.onChange();
  };

  /** The job has ended: what is there to be read is all there is. */
  end(): void {
    this.#isOver = true;
  }

  #set(change: Partial<{ [K in keyof Feed]: Feed[K] | undefined }>): void {
    this.#feed = { ...this.#feed, ...change } as Feed;
    for (const listener of this.#listeners) listener();
  }
}

function point(step: unknown, loss: unknown): [number, number][] {
  return typeof step === "number" && typeof loss === "number" ? [[step, loss]] : [];
}
