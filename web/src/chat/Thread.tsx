// The conversation from top to bottom: greeting or messages, then the message box.
import { ThreadPrimitive, useAuiState } from "@assistant-ui/react";
import { ArrowDown } from "lucide-react";
import { useTranslation } from "react-i18next";

import { IconButton } from "../ui/IconButton";
import { useChat } from "./Chat";
import { Composer } from "./Composer";
import { AssistantMessage, UserEditComposer, UserMessage } from "./Message";

const EXAMPLES = ["example.1", "example.2", "example.3", "example.4"] as const;

function Greeting() {
  const { t } = useTranslation();
  const { exampleLanguage, notice } = useChat();
  return (
    <div className="mx-auto flex w-full max-w-3xl grow flex-col items-center justify-center gap-8 px-4 py-8">
      <div className="flex flex-col items-center gap-4">
        <h2 className="text-center text-2xl font-semibold text-balance sm:text-3xl">{t("empty.title")}</h2>
        {notice}
      </div>
      <ul aria-label={t("empty.examples")} className="grid w-full gap-2 sm:grid-cols-2" data-testid="examples">
        {EXAMPLES.map((key) => {
          const prompt = t(key, exampleLanguage ? { lng: exampleLanguage } : {});
          return (
            <li key={key}>
              <ThreadPrimitive.Suggestion prompt={prompt} send lang={exampleLanguage} className="example">
                {prompt}
              </ThreadPrimitive.Suggestion>
            </li>
          );
        })}
      </ul>
    </div>
  );
}

/** Tells that an answer is on its way; the answer itself is a live region that speaks once it is whole. */
function Announcer() {
  const { t } = useTranslation();
  const running = useAuiState((state) => state.thread.isRunning);
  return <output className="sr-only">{running ? t("message.answering") : ""}</output>;
}

export function Thread() {
  const { t } = useTranslation();
  const { notice } = useChat();
  const empty = useAuiState((state) => state.thread.messages.length === 0);
  return (
    <ThreadPrimitive.Root className="flex min-h-0 grow flex-col">
      <ThreadPrimitive.Viewport asChild>
        <section aria-label={t("thread.label")} className="viewport" data-testid="thread">
          {empty ? (
            <Greeting />
          ) : (
            <div className="mx-auto w-full max-w-3xl grow px-4 pt-2 pb-8">
              {notice}
              <ThreadPrimitive.Messages components={{ UserMessage, AssistantMessage, UserEditComposer }} />
            </div>
          )}
        </section>
      </ThreadPrimitive.Viewport>
      <Announcer />
      <div className="relative mx-auto w-full max-w-3xl shrink-0 px-3 pb-2 sm:px-4">
        <ThreadPrimitive.ScrollToBottom asChild>
          <IconButton
            label={t("thread.toBottom")}
            small
            className="absolute -top-11 left-1/2 -translate-x-1/2 rounded-full border border-border bg-background shadow-sm disabled:invisible"
          >
            <ArrowDown aria-hidden className="size-4" />
          </IconButton>
        </ThreadPrimitive.ScrollToBottom>
        <Composer />
        <p className="mt-2 text-center text-xs text-muted-foreground" data-testid="disclaimer">
          {t("app.disclaimer")}
        </p>
      </div>
    </ThreadPrimitive.Root>
  );
}
