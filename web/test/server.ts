// A server in the test's hand: it sees the requests and writes each answer piece by piece.
import { vi } from "vitest";

import type { ChatRequest } from "../src/api/stream";

export interface Answer {
  request: ChatRequest;
  authorization: string | null;
  signal: AbortSignal;
  /** Sends text as one event. */
  say(text: string): void;
  /** Sends `data` as one event. */
  send(data: unknown): void;
  finish(reason?: "stop" | "length"): void;
  /** The connection ends, whether the answer did or not. */
  close(): void;
}

export class FakeServer {
  models: unknown[] = [{ id: "tiny", object: "model", created: 1, owned_by: "test" }];
  key: string | undefined;
  down = false;
  /** When set, the next chat request is refused like this. */
  refusal: Response | undefined;
  readonly answers: Answer[] = [];

  constructor() {
    vi.stubGlobal("fetch", this.#fetch);
  }

  get last(): Answer {
    const answer = this.answers.at(-1);
    if (!answer) throw new Error("no request for an answer came");
    return answer;
  }

  readonly #fetch = async (input: Request | string, init?: RequestInit): Promise<Response> => {
    if (this.down) throw new TypeError("Failed to fetch");
    const request = new Request(new URL(typeof input === "string" ? input : input.url, "http://localhost"), {
      ...(typeof input === "string" ? {} : { headers: input.headers }),
      ...init,
      signal: null,
    });
    if (this.key && request.headers.get("Authorization") !== `Bearer ${this.key}`) {
      return refusal(401, "invalid_api_key", "Incorrect API key provided.");
    }
    if (new URL(request.url).pathname === "/v1/models") return Response.json({ object: "list", data: this.models });
    if (this.refusal) {
      const refused = this.refusal;
      this.refusal = undefined;
      return refused;
    }
    return this.#answer((await request.json()) as ChatRequest, request, init?.signal ?? new AbortController().signal);
  };

  #answer(body: ChatRequest, request: Request, signal: AbortSignal): Response {
    const encoder = new TextEncoder();
    const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => {
        signal.addEventListener("abort", () => controller.error(signal.reason));
        const write = (data: string): void => controller.enqueue(encoder.encode(`data: ${data}\n\n`));
        const send = (data: unknown): void => write(JSON.stringify(data));
        this.answers.push({
          request: body,
          authorization: request.headers.get("Authorization"),
          signal,
          send,
          say: (text) => send({ choices: [{ index: 0, delta: { content: text }, finish_reason: null }] }),
          finish: (reason = "stop") => {
            send({ choices: [{ index: 0, delta: {}, finish_reason: reason }] });
            write("[DONE]");
            controller.close();
          },
          close: () => controller.close(),
        });
      },
    });
    return new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
  }
}

export function refusal(status: number, code: string | null, message: string, headers: HeadersInit = {}): Response {
  return Response.json({ error: { message, type: "invalid_request_error", param: null, code } }, { status, headers });
}
