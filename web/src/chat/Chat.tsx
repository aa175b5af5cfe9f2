// The chat surface on assistant-ui's external store: our messages and callbacks, its behaviour. The only door to this folder.
import {
  type AppendMessage,
  AssistantRuntimeProvider,
  type ThreadMessageLike,
  useExternalStoreRuntime,
} from "@assistant-ui/react";
import { createContext, type ReactNode, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";

import { type ChatMessage, type ChatSettings, ChatStore } from "./store";
import { Thread } from "./Thread";

function convertMessage(message: ChatMessage): ThreadMessageLike {
  const { id, role, text, state, createdAt } = message;
  const base = { id, role, createdAt, content: [{ type: "text" as const, text }] };
  if (role === "user") return base;
  const custom = { message };
  if (state === "streaming") return { ...base, status: { type: "running" }, metadata: { custom } };
  if (state === "failed") return { ...base, status: { type: "incomplete", reason: "error" }, metadata: { custom } };
  if (state === "stopped") return { ...base, status: { type: "incomplete", reason: "cancelled" }, metadata: { custom } };
  if (state === "length") return { ...base, status: { type: "incomplete", reason: "length" }, metadata: { custom } };
  return { ...base, status: { type: "complete", reason: "stop" }, metadata: { custom } };
}

function textOf({ content }: AppendMessage): string {
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}

export interface ChatContext {
  store: ChatStore;
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
  /** Changes when a key was entered: an answer that failed for want of one is asked for again. */
  keyVersion: number;
  onEnterKey: () => void;
  exampleLanguage: string | undefined;
  notice: ReactNode;
}

export function Chat({ settings, keyVersion, onEnterKey, exampleLanguage, notice }: Props) {
  const [store] = useState(() => new ChatStore(settings));
  const { messages, running } = useSyncExternalStore(store.subscribe, store.getSnapshot);

  useEffect(() => store.configure(settings), [store, settings]);
  useEffect(() => () => store.stop(), [store]);

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

  const runtime = useExternalStoreRuntime<ChatMessage>({
    messages,
    isRunning: running,
    isSendDisabled: settings.model === "",
    convertMessage,
    setMessages: (shown) => store.show(shown),
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
