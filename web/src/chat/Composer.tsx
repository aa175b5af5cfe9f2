// The message box: grows with its text; one button that sends, or stops the answer.
import { ComposerPrimitive, useAuiState } from "@assistant-ui/react";
import { ArrowUp, Square } from "lucide-react";
import { useTranslation } from "react-i18next";

import { sendOnEnter } from "./sendKey";

const ROUND = "inline-flex size-9 shrink-0 items-center justify-center rounded-full bg-primary text-primary-foreground";

export function Composer() {
  const { t } = useTranslation();
  const running = useAuiState((state) => state.thread.isRunning);
  return (
    <ComposerPrimitive.Root className="composer">
      <ComposerPrimitive.Input
        id="message"
        autoFocus
        submitMode="none" // sendOnEnter decides
        onKeyDown={sendOnEnter}
        maxRows={10}
        enterKeyHint="send"
        aria-label={t("composer.label")}
        aria-describedby="composer-hint"
        placeholder={t("composer.placeholder")}
        className="max-h-60 min-h-9 grow resize-none bg-transparent py-1.5 leading-6 outline-none placeholder:text-muted-foreground"
        data-testid="composer"
      />
      <span id="composer-hint" className="sr-only">
        {t("composer.hint")}
      </span>
      {running ? (
        <ComposerPrimitive.Cancel
          aria-label={t("composer.stop")}
          title={t("composer.stop")}
          className={ROUND}
          data-testid="stop"
        >
          <Square aria-hidden className="size-3.5 fill-current" />
        </ComposerPrimitive.Cancel>
      ) : (
        <ComposerPrimitive.Send
          aria-label={t("composer.send")}
          title={t("composer.send")}
          className={`${ROUND} disabled:bg-muted disabled:text-muted-foreground`}
          data-testid="send"
        >
          <ArrowUp aria-hidden className="size-5" />
        </ComposerPrimitive.Send>
      )}
    </ComposerPrimitive.Root>
  );
}
