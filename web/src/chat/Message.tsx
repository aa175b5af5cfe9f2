// One message and what can be done with it: copy, edit, answer again, step through its versions.
import {
  ActionBarPrimitive,
  BranchPickerPrimitive,
  ComposerPrimitive,
  MessagePrimitive,
  useAuiState,
} from "@assistant-ui/react";
import { Check, ChevronLeft, ChevronRight, Copy, Pencil, RefreshCw } from "lucide-react";
import { useTranslation } from "react-i18next";

import { ErrorNotice } from "../ui/ErrorNotice";
import { IconButton } from "../ui/IconButton";
import { useChat } from "./Chat";
import { Markdown } from "./Markdown";
import { sendOnEnter } from "./sendKey";
import type { ChatMessage } from "./store";

function CopyButton() {
  const { t } = useTranslation();
  const copied = useAuiState((state) => state.message.isCopied);
  return (
    <ActionBarPrimitive.Copy asChild>
      <IconButton small label={copied ? t("message.copied") : t("message.copy")} data-testid="copy">
        {copied ? <Check aria-hidden className="size-4" /> : <Copy aria-hidden className="size-4" />}
      </IconButton>
    </ActionBarPrimitive.Copy>
  );
}

function Versions() {
  const { t } = useTranslation();
  const number = useAuiState((state) => state.message.branchNumber);
  const count = useAuiState((state) => state.message.branchCount);
  return (
    <BranchPickerPrimitive.Root
      hideWhenSingleBranch
      className="inline-flex items-center text-sm text-muted-foreground tabular-nums"
      data-testid="versions"
    >
      <BranchPickerPrimitive.Previous asChild>
        <IconButton small label={t("message.previous")}>
          <ChevronLeft aria-hidden className="size-4" />
        </IconButton>
      </BranchPickerPrimitive.Previous>
      <span aria-hidden>
        {number}/{count}
      </span>
      <span className="sr-only">{t("message.version", { number, count })}</span>
      <BranchPickerPrimitive.Next asChild>
        <IconButton small label={t("message.next")}>
          <ChevronRight aria-hidden className="size-4" />
        </IconButton>
      </BranchPickerPrimitive.Next>
    </BranchPickerPrimitive.Root>
  );
}

export function UserMessage() {
  const { t } = useTranslation();
  return (
    <MessagePrimitive.Root className="group flex flex-col items-end pt-3" data-testid="user-message">
      <h2 className="sr-only">{t("message.you")}</h2>
      <div className="bubble">
        <MessagePrimitive.Parts components={{ Text: PlainText }} />
      </div>
      <ActionBarPrimitive.Root className="actions quiet">
        <Versions />
        <CopyButton />
        <ActionBarPrimitive.Edit asChild>
          <IconButton small label={t("message.edit")} data-testid="edit">
            <Pencil aria-hidden className="size-4" />
          </IconButton>
        </ActionBarPrimitive.Edit>
      </ActionBarPrimitive.Root>
    </MessagePrimitive.Root>
  );
}

function PlainText({ text }: { text: string }) {
  return <span className="break-words whitespace-pre-wrap">{text}</span>;
}

export function UserEditComposer() {
  const { t } = useTranslation();
  return (
    <MessagePrimitive.Root className="py-3">
      <ComposerPrimitive.Root className="rounded-3xl bg-muted p-4">
        <ComposerPrimitive.Input
          autoFocus
          submitMode="none"
          onKeyDown={sendOnEnter}
          aria-label={t("message.editLabel")}
          className="w-full resize-none bg-transparent leading-6 outline-none"
          data-testid="edit-composer"
        />
        <div className="mt-3 flex justify-end gap-2">
          <ComposerPrimitive.Cancel className="button">{t("message.cancel")}</ComposerPrimitive.Cancel>
          <ComposerPrimitive.Send className="button button-primary" data-testid="resend">
            {t("message.resend")}
          </ComposerPrimitive.Send>
        </div>
      </ComposerPrimitive.Root>
    </MessagePrimitive.Root>
  );
}

function Dots() {
  return (
    <span className="dots" data-testid="waiting" aria-hidden>
      <i />
      <i />
      <i />
    </span>
  );
}

export function AssistantMessage() {
  const { t } = useTranslation();
  const { store, onEnterKey } = useChat();
  const message = useAuiState((state) => state.message.metadata.custom["message"]) as ChatMessage | undefined;
  const parentId = useAuiState((state) => state.message.parentId);
  const running = useAuiState((state) => state.thread.isRunning);
  if (!message) return null;
  const { text, state, error } = message;
  const streaming = state === "streaming";
  return (
    <MessagePrimitive.Root
      className="py-3"
      data-testid="assistant-message"
      data-state={state}
    >
      <h2 className="sr-only">{t("message.assistant")}</h2>
      {/* Busy until it is whole: read out token by token, it would talk over itself. */}
      <div aria-live="polite" aria-busy={streaming} data-testid="answer">
        {text ? <Markdown text={text} streaming={streaming} /> : streaming && <Dots />}
      </div>
      {state === "stopped" && <p className="mt-2 text-sm text-muted-foreground">{t("message.stopped")}</p>}
      {state === "length" && <p className="mt-2 text-sm text-muted-foreground">{t("message.cut")}</p>}
      {error && (
        <ErrorNotice error={error} onRetry={() => void store.regenerate(parentId)} onEnterKey={onEnterKey} />
      )}
      {!streaming && (
        <div className="actions -ml-2">
          {text && <CopyButton />}
          {!error && (
            <IconButton
              small
              label={t("message.regenerate")}
              disabled={running}
              onClick={() => void store.regenerate(parentId)}
              data-testid="regenerate"
            >
              <RefreshCw aria-hidden className="size-4" />
            </IconButton>
          )}
          <Versions />
        </div>
      )}
    </MessagePrimitive.Root>
  );
}
