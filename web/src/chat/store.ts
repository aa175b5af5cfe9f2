// The conversation: its messages, and the one answer that may be streaming. No React here.
import { ApiError, asApiError } from "../api/errors";
import { type ChatRequest, streamChat } from "../api/stream";
import { frameBuffer } from "./frames";

export type MessageState = "streaming" | "complete" | "length" | "stopped" | "failed";

export interface ChatMessage {
  readonly id: string;
  readonly role: "user" | "assistant";
  readonly text: string;
  readonly state: MessageState;
  readonly error?: ApiError;
  readonly createdAt: Date;
}

export interface ChatSettings {
  model: string;
  /** Goes before the conversation as a system message; empty for none. */
  system: string;
  temperature: number;
}

export interface TreeNode {
  readonly message: ChatMessage;
  readonly parentId: string | null;
}

export interface ChatSnapshot {
  /** The branch that is shown. */
  readonly messages: readonly ChatMessage[];
  readonly running: boolean;
  /** Of a conversation whose other branches are known too: all messages, parents before their children. */
  readonly tree?: readonly TreeNode[];
}

/** A conversation as the page sees it, wherever it is kept. */
export interface ConversationStore {
  readonly subscribe: (listener: () => void) => () => void;
  readonly getSnapshot: () => ChatSnapshot;
  /** For the answers from now on. */
  configure(settings: ChatSettings): void;
  /** Adds what the user said after `parentId` (the last message, where none is named) and answers it. */
  send(text: string, parentId?: string | null): Promise<void>;
  /** Answers the message `parentId` once more. */
  regenerate(parentId: string | null): Promise<void>;
  /** Stops the engine. */
  stop(): void;
  /** Shows another branch. */
  show(messages: readonly ChatMessage[]): void;
  /** The page turns to it. */
  enter(): void;
  /** The page turns to something else. */
  leave(): void;
}

/** Small models that always take the likeliest word fall into loops; this gets them out, and leaves code readable. */
export const REPETITION_PENALTY = 1.1;
/** At least this when an answer is asked for again: without chance it would be the same one. */
export const ANSWER_AGAIN_TEMPERATURE = 0.3;

const EMPTY: ChatSnapshot = { messages: [], running: false };

/** The messages as the model should see them: an answer that failed before its first word is no part of the talk. */
export function toRequest(messages: readonly ChatMessage[], settings: ChatSettings): ChatRequest {
  const turns = messages
    .filter((message) => message.text !== "")
    .map(({ role, text }) => ({ role, content: text }));
  const system = settings.system.trim();
  return {
    model: settings.model,
    messages: system ? [{ role: "system", content: system }, ...turns] : turns,
    temperature: settings.temperature,
    repetition_penalty: REPETITION_PENALTY,
  };
}

/** The messages up to and including `id`; none for null. */
function upTo(messages: readonly ChatMessage[], id: string | null): readonly ChatMessage[] {
  return messages.slice(0, messages.findIndex((message) => message.id === id) + 1);
}

/** Kept by this page only: what is not read here is written for nobody. */
export class ChatStore implements ConversationStore {
  #snapshot: ChatSnapshot = EMPTY;
  #abort: AbortController | undefined;
  #lastId = 0;
  readonly #listeners = new Set<() => void>();

  constructor(private settings: ChatSettings) {}

  configure(settings: ChatSettings): void {
    this.settings = settings;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly getSnapshot = (): ChatSnapshot => this.#snapshot;

  /** What came after `parentId` is dropped. */
  async send(text: string, parentId: string | null = this.#snapshot.messages.at(-1)?.id ?? null): Promise<void> {
    const question = { id: this.#nextId(), role: "user", text, state: "complete", createdAt: new Date() } as const;
    await this.#answer([...upTo(this.#snapshot.messages, parentId), question]);
  }

  async regenerate(parentId: string | null): Promise<void> {
    const history = upTo(this.#snapshot.messages, parentId);
    const failed = this.#snapshot.messages[history.length]?.state === "failed";
    const temperature = failed ? 0 : ANSWER_AGAIN_TEMPERATURE;
    await this.#answer(history, { ...this.settings, temperature: Math.max(this.settings.temperature, temperature) });
  }

  /** Closes the connection; the server takes that as the order to stop the engine. */
  stop(): void {
    this.#abort?.abort();
  }

  enter(): void {
    // There is nothing but what was said on this page.
  }

  leave(): void {
    this.stop();
  }

  show(messages: readonly ChatMessage[]): void {
    this.#set({ messages, running: this.#snapshot.running });
  }

  async #answer(history: readonly ChatMessage[], settings = this.settings): Promise<void> {
    this.stop();
    const abort = new AbortController();
    this.#abort = abort;
    const id = this.#nextId();
    const answer: ChatMessage = { id, role: "assistant", text: "", state: "streaming", createdAt: new Date() };
    this.#set({ messages: [...history, answer], running: true });

    const buffer = frameBuffer((text) => this.#update(id, (message) => ({ ...message, text: message.text + text })));
    let end: Pick<ChatMessage, "state" | "error"> = { state: "complete" };
    try {
      for await (const chunk of streamChat(toRequest(history, settings), abort.signal)) {
        if (chunk.text) buffer.add(chunk.text);
        if (chunk.finish === "length") end = { state: "length" };
      }
    } catch (error) {
      end = abort.signal.aborted ? { state: "stopped" } : { state: "failed", error: asApiError(error) };
    }
    buffer.flush();
    this.#update(id, (message) => ({ ...message, ...end }));
    if (this.#abort === abort) {
      this.#abort = undefined;
      this.#set({ ...this.#snapshot, running: false });
    }
  }

  /** Not `crypto.randomUUID`: browsers withhold it from plain http on any address but localhost. */
  #nextId(): string {
    this.#lastId += 1;
    return `m${this.#lastId}`;
  }

  #update(id: string, change: (message: ChatMessage) => ChatMessage): void {
    const messages = this.#snapshot.messages.map((message) => (message.id === id ? change(message) : message));
    this.#set({ ...this.#snapshot, messages });
  }

  #set(snapshot: ChatSnapshot): void {
    this.#snapshot = snapshot;
    for (const listener of this.#listeners) listener();
  }
}
