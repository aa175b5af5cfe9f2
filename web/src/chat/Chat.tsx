// The chat surface on assistant-ui's external store: our messages and callbacks, its behaviour. The only door to this folder.
import {
  type AppendMessage,
  AssistantRuntimeProvider,
  type ExportedMessageRepository,
  fromThreadMessageLike,
  type ThreadMessage,
  type ThreadMessageLike,
  useExternalStoreRuntime,
} from "@assistant-ui/react";
import { createContext, type ReactNode, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";

import { type ChatMessage, type ChatSettings, type ChatSnapshot, ChatStore, type ConversationStore } from "./store";
import { Thread } from "./Thread";

function convertMessage(message: ChatMessage): ThreadMessageLike {
  const { id, role, text, state, createdAt } = message;
  const base = { id, role, createdAt, content: [{ type: "text" as const, text }] };
  const custom = { message };
  if (role === "user") return { ...base, metadata: { custom } };
  if (state === "streaming") return { ...base, status: { type: "running" }, metadata: { custom } };
  if (state === "failed") return { ...base, status: { type: "incomplete", reason: "error" }, metadata: { custom } };
  if (state === "stopped") return { ...base, status: { type: "incomplete", reason: "cancelled" }, metadata: { custom } };
  if (state === "length") return { ...base, status: { type: "incomplete", reason: "length" }, metadata: { custom } };
  return { ...base, status: { type: "complete", reason: "stop" }, metadata: { custom } };
}

function textOf({ content }: AppendMessage): string {
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}

function messageOf({ metadata }: ThreadMessage): ChatMessage {
  return metadata.custom["message"] as ChatMessage;
}

/** A message that did not change stays the same object, and so is not rendered again. */
const converted = new WeakMap<ChatMessage, ThreadMessage>();

function threadMessage(message: ChatMessage): ThreadMessage {
  const known = converted.get(message);
  if (known) return known;
  const made = fromThreadMessageLike(convertMessage(message), message.id, { type: "complete", reason: "stop" });
  converted.set(message, made);
  return made;
}

function repositoryOf({ tree, messages }: ChatSnapshot): ExportedMessageRepository | undefined {
  return (
    tree && {
      headId: messages.at(-1)?.id ?? null,
      messages: tree.map(({ message, parentId }) => ({ message: threadMessage(message), parentId })),
    }
  );
}

export interface ChatContext {
  store: ConversationStore;
  onEnterKey: () => void;
  /** i18next language of the example questions: one that the model speaks. */
  exampleLanguage: string | undefined;
  /** What to know about the model, above the conversation. */
  notice: ReactNode;
}

const Context = createContext<ChatContext | undefined>(undefined);

export function useChat(): ChatContext {
  const context = useContext(Context);
  if (!context) throw new Error("useChat outside of Chat");
  return context;
}

interface Props {
  settings: ChatSettings;
  /** Where the conversation is kept; on this page alone, unless told. */
  makeStore?: ((settings: ChatSettings) => ConversationStore) | undefined;
  /** Changes when a key was entered: an answer that failed for want of one is asked for again. */
  keyVersion: number;
  onEnterKey: () => void;
  exampleLanguage: string | undefined;
  notice: ReactNode;
}

export function Chat({ settings, makeStore, keyVersion, onEnterKey, exampleLanguage, notice }: Props) {
  const [store] = useState(() => makeStore?.(settings) ?? new ChatStore(settings));
  const snapshot = useSyncExternalStore(store.subscribe, store.getSnapshot);
  const { messages, running } = snapshot;

  useEffect(() => store.configure(settings), [store, settings]);
  useEffect(() => {
    store.enter();
    return () => store.leave();
  }, [store]);

  const last = messages.at(-1);
  const needsKey = last?.error?.kind === "key";
  useEffect(() => {
    if (needsKey) onEnterKey();
  }, [needsKey, onEnterKey]);

  const seenKeyVersion = useRef(keyVersion);
  useEffect(() => {
    if (seenKeyVersion.current === keyVersion) return;
    seenKeyVersion.current = keyVersion;
    if (needsKey) void store.regenerate(messages.at(-2)?.id ?? null);
  }, [keyVersion, needsKey, store, messages]);

  const said = useMemo(() => {
    const messageRepository = repositoryOf(snapshot);
    return messageRepository ? { messageRepository } : { messages: snapshot.messages.map(threadMessage) };
  }, [snapshot]);
  const runtime = useExternalStoreRuntime<ThreadMessage>({
    ...said,
    setMessages: (shown) => store.show(shown.map(messageOf)),
    isRunning: running,
    isSendDisabled: settings.model === "",
    onNew: (message) => store.send(textOf(message), message.parentId),
    onEdit: (message) => store.send(textOf(message), message.parentId),
    onReload: (parentId) => store.regenerate(parentId),
    onCancel: async () => store.stop(),
  });

  const context = useMemo(
    () => ({ store, onEnterKey, exampleLanguage, notice }),
    [store, onEnterKey, exampleLanguage, notice],
  );
  return (
    <Context.Provider value={context}>
      <AssistantRuntimeProvider runtime={runtime}>
        <Thread />
      </AssistantRuntimeProvider>
    </Context.Provider>
  );
}
