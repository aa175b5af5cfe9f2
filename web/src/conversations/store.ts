// A conversation that the server keeps: its tree, and the answer that is being written there, read along. No React here.
import { ApiError, asApiError } from "../api/errors";
import { frameBuffer } from "../chat/frames";
import {
  ANSWER_AGAIN_TEMPERATURE,
  type ChatMessage,
  type ChatSettings,
  type ChatSnapshot,
  type ConversationStore,
  type MessageState,
  REPETITION_PENALTY,
  type TreeNode,
} from "../chat/store";
import {
  beginConversation,
  failureOf,
  followMessage,
  generate,
  openConversation,
  showBranch,
  stopMessage,
  type StoredMessage,
} from "./api";

/** Between the tries to read on when the line broke: the server may be starting again. */
export const RETRY_MS = [500, 1000, 2000, 4000, 8000, 15_000];

interface Node extends TreeNode {
  /** The server has it. What it has not goes when something else is said. */
  readonly saved: boolean;
}

/** An answer under way, read along here. */
interface Reading {
  readonly abort: AbortController;
  /** Its id, once the server told it. */
  message?: string;
  stopAsked?: boolean;
  /** When it is known whether the server took the question. */
  begun?: Promise<void>;
}

export interface StoreEvents {
  /** A new conversation has an id. */
  onBegun: (id: string) => void;
  /** Something changed that a list of conversations shows. */
  onChange: () => void;
  /** There is no such conversation. */
  onGone: () => void;
}

function stateOf(message: StoredMessage): MessageState {
  if (message.role === "user") return "complete";
  switch (message.finish_reason) {
    case null:
      return "streaming";
    case "stop":
      return "complete";
    case "length":
      return "length";
    case "cancelled":
      return "stopped";
    default:
      return "failed";
  }
}

function chatMessage(message: StoredMessage): ChatMessage {
  const { id, role, content: text } = message;
  const error = failureOf(message);
  const createdAt = new Date(message.created_at * 1000);
  return { id, role, text, state: stateOf(message), createdAt, ...(error ? { error } : {}) };
}

const node = (message: StoredMessage): Node => ({ message: chatMessage(message), parentId: message.parent_id, saved: true });

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

export class StoredChat implements ConversationStore {
  #snapshot: ChatSnapshot = { messages: [], running: false, tree: [] };
  #nodes: readonly Node[] = [];
  #head: string | null = null;
  #reading: Reading | undefined;
  #left = false;
  /** Answers that the server has, and that could not be read to their end. */
  readonly #lostSight = new Set<string>();
  /** Message → the version after it that was shown last. */
  readonly #shown = new Map<string, string>();
  #lastId = 0;
  readonly #listeners = new Set<() => void>();

  constructor(
    private settings: ChatSettings,
    private id: string | undefined,
    private readonly events: StoreEvents,
  ) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly getSnapshot = (): ChatSnapshot => this.#snapshot;

  configure(settings: ChatSettings): void {
    this.settings = settings;
  }

  enter(): void {
    this.#left = false;
    document.addEventListener("visibilitychange", this.#lookAgain);
    void this.load();
  }

  /** The answer goes on without this page. */
  leave(): void {
    this.#left = true;
    document.removeEventListener("visibilitychange", this.#lookAgain);
    this.#reading?.abort.abort();
    this.#reading = undefined;
  }

  /** Another tab may have gone on with the conversation. */
  readonly #lookAgain = (): void => {
    if (!document.hidden) void this.load();
  };

  /** Reads what the server has, and along where an answer is being written. What failed to be said here stays. */
  async load(): Promise<void> {
    if (this.id === undefined || this.#reading) return;
    let opened;
    try {
      opened = await openConversation(this.id);
    } catch (error) {
      const failure = asApiError(error);
      if (failure.kind === "notFound") this.events.onGone();
      else if (this.#nodes.length === 0) this.#fail(failure);
      return;
    }
    if (this.#reading) return; // something was said meanwhile
    const unsaved = this.#nodes.filter(({ saved, message }) => !saved && message.id !== LOADING);
    this.#nodes = [...opened.messages.map(node), ...unsaved];
    if (unsaved.length === 0) this.#head = opened.active_message_id;
    this.#publish();
    const written = opened.messages.find(({ role, finish_reason }) => role === "assistant" && finish_reason === null);
    if (written) {
      const reading = { abort: new AbortController(), message: written.id };
      this.#reading = reading;
      this.#publish();
      await this.#read(reading, written.id, String(written.position));
    }
  }

  async send(text: string, parentId: string | null = this.#head): Promise<void> {
    await this.#halt();
    const parent = this.#forgetUnsaved(parentId);
    const question = this.#add(parent, { role: "user", text, state: "complete" });
    await this.#answer(question, this.settings.temperature);
  }

  async regenerate(parentId: string | null): Promise<void> {
    await this.#halt();
    const question = this.#nodes.find(({ message }) => message.id === parentId);
    if (!question) return this.load();
    const answers = this.#nodes.filter((child) => child.parentId === parentId);
    // The server may have written it to its end, or still do so.
    if (answers.some(({ message }) => this.#lostSight.delete(message.id))) return this.load();
    const failed = answers.at(-1)?.message.state === "failed";
    if (question.saved) this.#forgetUnsaved(parentId);
    else this.#nodes = this.#nodes.filter((child) => child.parentId !== parentId);
    const least = failed ? 0 : ANSWER_AGAIN_TEMPERATURE;
    return this.#answer(question.message.id, Math.max(this.settings.temperature, least));
  }

  /** The engine ends, and the answer's last event says so. */
  stop(): void {
    const reading = this.#reading;
    if (!reading) return;
    reading.stopAsked = true;
    if (this.id !== undefined && reading.message !== undefined) {
      stopMessage(this.id, reading.message).catch((error: unknown) => {
        if (this.#reading === reading && reading.message) this.#end(reading, reading.message, asApiError(error));
      });
    }
  }

  show(messages: readonly ChatMessage[]): void {
    const before = this.#snapshot.messages;
    const other = messages.find((message, index) => message.id !== before[index]?.id);
    if (!other) return;
    const head = this.#leafBelow(other.id);
    if (head === this.#head) return;
    this.#head = head;
    this.#publish();
    if (this.id !== undefined && this.#nodes.some(({ message, saved }) => saved && message.id === head)) {
      // Which branch is shown is remembered where that is possible; nothing is lost where it is not.
      showBranch(this.id, head).catch(() => undefined);
    }
  }

  /** Ends the answer under way, so that another one can begin. */
  async #halt(): Promise<void> {
    const reading = this.#reading;
    if (!reading) return;
    await reading.begun;
    if (this.id !== undefined && reading.message !== undefined && this.#reading === reading) {
      const { message } = reading;
      await stopMessage(this.id, message).then(
        (stopped) => this.#finish(reading, stopped),
        (error: unknown) => this.#end(reading, message, asApiError(error)),
      );
    }
    reading.abort.abort();
  }

  async #answer(asked: string, temperature: number): Promise<void> {
    const placeholder = this.#add(asked, { role: "assistant", text: "", state: "streaming" });
    const reading: Reading = { abort: new AbortController() };
    this.#reading = reading;
    this.#publish();
    const beginning = this.#begin(reading, asked, placeholder, temperature);
    reading.begun = beginning.catch((error: unknown) => this.#end(reading, placeholder, asApiError(error)));
    await reading.begun;
    if (reading.message === undefined) return;
    if (reading.stopAsked) this.stop();
    await this.#read(reading, reading.message, "0");
  }

  /** Has the server say what the user did, where it did not yet, and begin an answer to it. */
  async #begin(reading: Reading, asked: string, placeholder: string, temperature: number): Promise<void> {
    const question = this.#nodes.find(({ message }) => message.id === asked);
    if (this.id === undefined) {
      this.id = (await beginConversation()).id;
      if (!this.#left) this.events.onBegun(this.id);
    }
    const { question: said, answer } = await generate(this.id, {
      model: this.settings.model,
      temperature,
      repetition_penalty: REPETITION_PENALTY,
      instructions: this.settings.system.trim() || null,
      ...(question && !question.saved
        ? { content: question.message.text, parent_id: question.parentId }
        : { parent_id: asked }),
    });
    if (said) this.#replace(asked, node(said));
    this.#replace(placeholder, node(answer));
    reading.message = answer.id;
    this.#publish();
    this.events.onChange();
  }

  /** Reads along to the end, over lines that break. */
  async #read(reading: Reading, message: string, position: string): Promise<void> {
    const { signal } = reading.abort;
    const buffer = frameBuffer((text) => this.#update(message, (old) => ({ ...old, text: old.text + text })));
    let tries = 0;
    while (!signal.aborted && this.id !== undefined) {
      try {
        for await (const event of followMessage(this.id, message, position, signal)) {
          tries = 0;
          position = event.position;
          if (event.text) buffer.add(event.text);
          if (event.message) {
            buffer.flush();
            this.#finish(reading, event.message);
            return;
          }
        }
        throw new ApiError("network"); // the server ended, and said nothing
      } catch (error) {
        if (signal.aborted) return;
        const failure = asApiError(error);
        const wait = RETRY_MS[tries];
        const passing = failure.kind === "network" || failure.kind === "busy" || failure.kind === "server";
        if (!passing || wait === undefined) {
          buffer.flush();
          this.#end(reading, message, failure);
          return;
        }
        tries += 1;
        await pause(wait, signal).catch(() => undefined);
      }
    }
  }

  #finish(reading: Reading, message: StoredMessage): void {
    this.#replace(message.id, node(message));
    if (this.#reading === reading) this.#reading = undefined;
    this.#publish();
    this.events.onChange();
  }

  #end(reading: Reading, message: string, error: ApiError): void {
    if (this.#nodes.some((one) => one.saved && one.message.id === message)) this.#lostSight.add(message);
    this.#update(message, (old) => ({ ...old, state: "failed", error }));
    if (this.#reading === reading) this.#reading = undefined;
    this.#publish();
  }

  /** A conversation that can not be read. */
  #fail(error: ApiError): void {
    const message: ChatMessage = { id: LOADING, role: "assistant", text: "", state: "failed", error, createdAt: new Date() };
    this.#nodes = [{ message, parentId: null, saved: false }];
    this.#head = LOADING;
    this.#publish();
  }

  /** The nearest message above that the server has; what it has not is gone. */
  #forgetUnsaved(id: string | null): string | null {
    const byId = new Map(this.#nodes.map((one) => [one.message.id, one]));
    let found = id === null ? undefined : byId.get(id);
    while (found && !found.saved) found = found.parentId === null ? undefined : byId.get(found.parentId);
    this.#nodes = this.#nodes.filter(({ saved }) => saved);
    return found?.message.id ?? null;
  }

  /** The end of the branch that goes through a message: as it was shown last, else by the newest versions. */
  #leafBelow(id: string): string {
    const versions = this.#nodes.filter(({ parentId }) => parentId === id).map(({ message }) => message.id);
    const next = versions.find((version) => version === this.#shown.get(id)) ?? versions.at(-1);
    return next === undefined ? id : this.#leafBelow(next);
  }

  #add(parentId: string | null, message: Omit<ChatMessage, "id" | "createdAt">): string {
    this.#lastId += 1;
    const id = `local-${this.#lastId}`;
    this.#nodes = [...this.#nodes, { message: { ...message, id, createdAt: new Date() }, parentId, saved: false }];
    this.#head = id;
    return id;
  }

  /** Puts what the server has in place of what was here; children follow. */
  #replace(id: string, by: Node): void {
    this.#nodes = this.#nodes.map((one) => {
      if (one.message.id === id) return by;
      return one.parentId === id ? { ...one, parentId: by.message.id } : one;
    });
    if (this.#head === id) this.#head = by.message.id;
  }

  #update(id: string, change: (message: ChatMessage) => ChatMessage): void {
    this.#nodes = this.#nodes.map((one) => (one.message.id === id ? { ...one, message: change(one.message) } : one));
    this.#publish();
  }

  #publish(): void {
    const byId = new Map(this.#nodes.map((one) => [one.message.id, one]));
    if (this.#head !== null && !byId.has(this.#head)) this.#head = this.#nodes.at(-1)?.message.id ?? null;
    const messages: ChatMessage[] = [];
    for (let one = byId.get(this.#head ?? ""); one; one = byId.get(one.parentId ?? "")) {
      messages.unshift(one.message);
      if (one.parentId !== null) this.#shown.set(one.parentId, one.message.id);
    }
    this.#snapshot = { messages, running: this.#reading !== undefined, tree: this.#nodes };
    for (const listener of this.#listeners) listener();
  }
}

/** The notice that stands for a conversation which could not be read. */
const LOADING = "loading";
