// The page: header, notices, conversation, dialogs; which model, which settings, which key.
import { useQuery } from "@tanstack/react-query";
import { Info, PanelLeft } from "lucide-react";
import { useCallback, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";

import { useSession } from "./account/session";
import { findModel, listModels, type Model } from "./api/client";
import { asApiError } from "./api/errors";
import { Chat } from "./chat/Chat";
import { chooseModel, useChosenModel } from "./chat/chosen";
import { Sidebar } from "./conversations/Sidebar";
import { useStoredChat } from "./conversations/useStoredChat";
import { ErrorNotice } from "./ui/ErrorNotice";
import { Header } from "./ui/Header";
import { IconButton } from "./ui/IconButton";
import { KeyDialog } from "./ui/KeyDialog";
import { DEFAULT_PREFERENCES, SettingsDialog } from "./ui/SettingsDialog";

/** Answers by its name, and stands in no list. */
const CHECKPOINT = /^ft:.*:ckpt-step-\d+$/;

function LanguageNotice({ model }: { model: Model }) {
  const { t, i18n } = useTranslation();
  const names = new Intl.DisplayNames(i18n.language, { type: "language" });
  const list = new Intl.ListFormat(i18n.language).format(model.languages.map((code) => names.of(code) ?? code));
  return (
    <p className="notice mx-auto text-sm" data-testid="language-notice">
      <Info aria-hidden className="mt-0.5 size-4 shrink-0" />
      {t("model.speaksOnly", { model: model.id, languages: list, count: 1 })}
    </p>
  );
}

export function App() {
  const { t, i18n } = useTranslation();
  const models = useQuery({ queryKey: ["models"], queryFn: ({ signal }) => listModels(signal) });
  const chosen = useChosenModel();
  const checkpoint = useQuery({
    queryKey: ["models", chosen],
    queryFn: ({ signal }) => findModel(chosen, signal),
    enabled: CHECKPOINT.test(chosen),
  });
  const [preferences, setPreferences] = useState(DEFAULT_PREFERENCES);
  const [conversation, setConversation] = useState(0);
  const [dialog, setDialog] = useState<"key" | "settings" | undefined>();
  const [keyVersion, setKeyVersion] = useState(0);

  const [sidebar, setSidebar] = useState(false);
  const hideSidebar = useCallback(() => setSidebar(false), []);

  const { session, refresh } = useSession();
  const { accounts, csrf_token } = session;
  // An open server can not tell people apart: there, conversations stay on the page.
  const isKept = session.user !== null;
  const stored = useStoredChat();
  const { refetch } = models;
  const comeIn = useCallback(() => {
    setKeyVersion((version) => version + 1);
    void refetch();
  }, [refetch]);
  const openKey = useCallback(() => {
    if (!accounts) setDialog("key");
    else {
      // A session that is over shows the door. One that was renewed in another window goes on; asked once, as the same one would
      // be refused again.
      void refresh().then((now) => {
        if (now?.csrf_token !== csrf_token) comeIn();
      });
    }
  }, [accounts, csrf_token, refresh, comeIn]);
  const close = useCallback(() => setDialog(undefined), []);

  const offered = models.data && checkpoint.data ? [...models.data, checkpoint.data] : models.data;
  const model = offered?.find(({ id }) => id === chosen) ?? offered?.[0];
  const failure = models.error ? asApiError(models.error) : undefined;

  // A page opened without a key asks for it at once rather than at the first message.
  const [askedAt, setAskedAt] = useState(0);
  if (failure?.kind === "key" && models.errorUpdatedAt !== askedAt) {
    setAskedAt(models.errorUpdatedAt);
    if (!accounts) setDialog("key");
  }

  const modelId = model?.id ?? "";
  const settings = useMemo(() => ({ model: modelId, ...preferences }), [modelId, preferences]);
  const speaksPage = !model?.languages?.length || model.languages.includes(i18n.language);
  const exampleLanguage = speaksPage ? undefined : "en";

  function keySaved(): void {
    close();
    comeIn();
  }

  return (
    <div className="flex h-dvh flex-col">
      <a href="#message" className="skip-link">
        {t("app.skip")}
      </a>
      <Header
        before={
          isKept && (
            <IconButton
              label={t("conversations.show")}
              className="md:hidden"
              aria-expanded={sidebar}
              onClick={() => setSidebar(true)}
              data-testid="show-conversations"
            >
              <PanelLeft aria-hidden className="size-5" />
            </IconButton>
          )
        }
        models={offered}
        loading={models.isPending}
        model={modelId}
        onModel={chooseModel}
        onNew={() => (isKept ? stored.open(undefined) : setConversation((number) => number + 1))}
        onSettings={() => setDialog("settings")}
      />
      <div className="flex min-h-0 grow">
        {isKept && <Sidebar current={stored.id} onOpen={stored.open} shown={sidebar} onHide={hideSidebar} />}
        <main className="flex min-h-0 min-w-0 grow flex-col">
          {(failure || models.data?.length === 0) && (
            <div className="mx-auto w-full max-w-3xl px-4">
              {failure ? (
                <ErrorNotice error={failure} onRetry={() => void models.refetch()} onEnterKey={openKey} />
              ) : (
                <p className="notice">{t("model.noneHelp")}</p>
              )}
            </div>
          )}
          <Chat
            key={isKept ? stored.key : conversation}
            settings={settings}
            makeStore={isKept ? stored.makeStore : undefined}
            keyVersion={keyVersion}
            onEnterKey={openKey}
            exampleLanguage={exampleLanguage}
            notice={model?.languages?.length ? <LanguageNotice model={model} /> : null}
          />
        </main>
      </div>
      <KeyDialog open={dialog === "key"} onClose={close} onSaved={keySaved} />
      <SettingsDialog
        open={dialog === "settings"}
        preferences={preferences}
        onChange={setPreferences}
        onClose={close}
      />
    </div>
  );
}
