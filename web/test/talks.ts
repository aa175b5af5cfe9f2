// A server that keeps conversations, in the test's hand: it writes each answer piece by piece, whoever reads along.
import { vi } from "vitest";

import type { Conversation, StoredMessage } from "../src/conversations/api";
import { refusal } from "./server";

const NOW = 1_790_000_000;
const ANN = { id: "user-ann", email: "ann@example.org", name: "ann", role: "member", status: "active", created_at: NOW };

interface Talk extends Conversation {
  messages: StoredMessage[];
}

export interface Said {
  method: string;
  path: string;
  body: Record<string, unknown>;
  csrf: string | null;
}

interface Reader {
  message: string;
  send(event: string, position: number, data: unknown): void;
  close(): void;
  breakOff(): void;
}

export class TalkServer {
  talks: Talk[] = [];
  readonly said: Said[] = [];
  readers: Reader[] = [];
  down = false;
  /** Whoever begins a conversation waits for this. */
  gate: Promise<void> = Promise.resolve();
  /** When set, the next request for an answer is refused like this. */
  refusal: Response | undefined;
  pageSize = 30;
  #count = 0;

  constructor() {
    vi.stubGlobal("fetch", this.#fetch);
  }

  /** A conversation as if it had been led before: texts in turns, each answering the one before. */
  keep(title: string, ...texts: string[]): Talk {
    const talk = this.#begin(title);
    let parent: string | null = null;
    for (const [index, text] of texts.entries()) {
      parent = this.add(talk, index % 2 ? "assistant" : "user", text, parent, index % 2 ? "stop" : null).id;
    }
    return talk;
  }

  add(
    talk: Talk,
    role: "user" | "assistant",
    content: string,
    parent_id: string | null,
    finish_reason: StoredMessage["finish_reason"],
  ): StoredMessage {
    const message: StoredMessage = {
      object: "message",
      id: `msg-${(this.#count += 1)}`,
      parent_id,
      role,
      content,
      model: role === "assistant" ? "tiny" : null,
      finish_reason,
      error: null,
      usage: null,
      position: [...content].length,
      created_at: NOW,
    };
    talk.messages.push(message);
    talk.active_message_id = message.id;
    talk.generating = role === "assistant" && finish_reason === null;
    return message;
  }

  talk(id: string): Talk {
    const found = this.talks.find((talk) => talk.id === id);
    if (!found) throw new Error(`no conversation ${id}`);
    return found;
  }

  get writing(): StoredMessage {
    const found = this.talks.flatMap(({ messages }) => messages).find((m) => m.role === "assistant" && m.finish_reason === null);
    if (!found) throw new Error("nothing is being written");
    return found;
  }

  /** The answer under way goes on, also for who reads later. */
  say(text: string): void {
    const message = this.writing;
    message.content += text;
    message.position = [...message.content].length;
    for (const reader of this.#readersOf(message)) reader.send("delta", message.position, { text });
  }

  finish(reason: NonNullable<StoredMessage["finish_reason"]> = "stop", error: StoredMessage["error"] = null): void {
    const message = this.writing;
    Object.assign(message, { finish_reason: reason, error });
    for (const talk of this.talks) if (talk.messages.includes(message)) talk.generating = false;
    for (const reader of this.#readersOf(message)) {
      reader.send("finished", message.position, { message });
      reader.close();
    }
  }

  last(method: string, path: RegExp): Said {
    const found = this.said.findLast((one) => one.method === method && path.test(one.path));
    if (!found) throw new Error(`nobody asked ${method} ${String(path)}`);
    return found;
  }

  #readersOf({ id }: StoredMessage): Reader[] {
    return this.readers.filter(({ message }) => message === id);
  }

  #begin(title: string): Talk {
    const id = `conv-${(this.#count += 1)}`;
    const dates = { created_at: NOW, updated_at: NOW };
    const talk: Talk = { object: "conversation", id, title, active_message_id: null, generating: false, messages: [], ...dates };
    this.talks.unshift(talk);
    return talk;
  }

  readonly #fetch = async (input: Request | string, init?: RequestInit): Promise<Response> => {
    if (this.down) throw new TypeError("Failed to fetch");
    const request = typeof input === "string" ? new Request(new URL(input, "http://localhost"), { ...init, signal: null }) : input;
    const url = new URL(request.url);
    const text = await request.clone().text();
    const body = (text ? JSON.parse(text) : {}) as Record<string, unknown>;
    this.said.push({ method: request.method, path: url.pathname, body, csrf: request.headers.get("X-CSRF-Token") });
    if (url.pathname === "/api/conversations" && request.method === "POST") await this.gate;
    return this.#answer(request, url, body, init?.signal ?? undefined);
  };

  #answer(request: Request, url: URL, body: Record<string, unknown>, signal: AbortSignal | undefined): Response {
    const { method } = request;
    if (url.pathname === "/v1/models") {
      return Response.json({ object: "list", data: [{ id: "tiny", object: "model", created: 1, owned_by: "test" }] });
    }
    if (url.pathname === "/api/session") {
      const session = { object: "session", accounts: true, setup_needed: false, scopes: ["inference"] };
      return Response.json({ ...session, user: ANN, csrf_token: "csrf-1" });
    }
    if (!url.pathname.startsWith("/api/conversations")) return refusal(404, "not_found", "Nothing is served here.");
    const [, id, , messageId, verb] =
      /^\/api\/conversations(?:\/([\w-]+))?(\/messages\/([\w-]+))?(?:\/(\w+))?$/.exec(url.pathname) ?? [];
    if (!id) return method === "POST" ? Response.json(this.#begin("")) : this.#page(url.searchParams.get("after"));
    const talk = this.talks.find((one) => one.id === id);
    if (!talk) return refusal(404, "not_found", "There is nothing of that id.");
    if (verb === "generations") return this.#generate(talk, body);
    const message = talk.messages.find((one) => one.id === messageId);
    if (message && verb === "events") return this.#follow(message, Number(request.headers.get("Last-Event-ID")), signal);
    if (message && verb === "stop") {
      if (message.finish_reason === null && message.role === "assistant") this.finish("cancelled");
      return Response.json(message);
    }
    if (method === "DELETE") this.talks = this.talks.filter((one) => one !== talk);
    if (method === "DELETE") return Response.json({ id, deleted: true });
    if (method === "PATCH") Object.assign(talk, body);
    return Response.json(talk);
  }

  #page(after: string | null): Response {
    const start = after === null ? 0 : this.talks.findIndex(({ id }) => id === after) + 1;
    const data = this.talks.slice(start, start + this.pageSize);
    const has_more = this.talks.length > start + data.length;
    return Response.json({ object: "list", data, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null, has_more });
  }

  #generate(talk: Talk, body: Record<string, unknown>): Response {
    if (this.refusal) {
      const refused = this.refusal;
      this.refusal = undefined;
      return refused;
    }
    if (talk.generating) return refusal(409, "conflict", "An answer of this conversation is being written.");
    let parent = (body["parent_id"] as string | null | undefined) ?? null;
    let question: StoredMessage | null = null;
    if (typeof body["content"] === "string") {
      question = this.add(talk, "user", body["content"], parent, null);
      parent = question.id;
      talk.title ||= body["content"];
    }
    const made = this.add(talk, "assistant", "", parent, null);
    const generation = { object: "generation", id: "gen-1", conversation_id: talk.id, title: talk.title, question };
    return Response.json({ ...generation, answer: made });
  }

  #follow(message: StoredMessage, after: number, signal: AbortSignal | undefined): Response {
    const encoder = new TextEncoder();
    const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => {
        const reader: Reader = {
          message: message.id,
          send: (event, position, data) =>
            controller.enqueue(encoder.encode(`id: ${position}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`)),
          close: () => {
            this.readers = this.readers.filter((one) => one !== reader);
            controller.close();
          },
          breakOff: () => {
            this.readers = this.readers.filter((one) => one !== reader);
            controller.error(new TypeError("network error"));
          },
        };
        this.readers.push(reader);
        signal?.addEventListener("abort", () => {
          this.readers = this.readers.filter((one) => one !== reader);
          controller.error(signal.reason);
        });
        const rest = [...message.content].slice(after).join("");
        if (rest) reader.send("delta", message.position, { text: rest });
        if (message.finish_reason !== null) {
          reader.send("finished", message.position, { message });
          reader.close();
        }
      },
    });
    return new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
  }
}
