// The bar at the top: which model, a new conversation, settings, language, theme, documentation.
import { BookOpen, ChevronDown, CircleUserRound, GraduationCap, Languages, Monitor, Moon, Settings, SquarePen, Sun } from "lucide-react";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";

import { useSession } from "../account/session";
import type { Model } from "../api/client";
import { type Language, LANGUAGES, setLanguage } from "../i18n";
import { setTheme, THEMES, useTheme } from "../theme";
import { IconButton } from "./IconButton";

const THEME_ICONS = { system: Monitor, light: Sun, dark: Moon };

export function ThemeButton() {
  const { t } = useTranslation();
  const theme = useTheme();
  const Icon = THEME_ICONS[theme];
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system";
  return (
    <IconButton
      label={t("header.theme", { theme: t(`theme.${theme}`) })}
      onClick={() => setTheme(next)}
      data-testid="theme"
      data-theme={theme}
    >
      <Icon aria-hidden className="size-5" />
    </IconButton>
  );
}

export function LanguageSelect() {
  const { t, i18n } = useTranslation();
  return (
    <span className="icon-button relative size-9 rounded-xl sm:size-10" title={t("header.language")}>
      <Languages aria-hidden className="size-5" />
      <select
        aria-label={t("header.language")}
        value={i18n.language}
        onChange={(event) => setLanguage(event.target.value as Language)}
        className="absolute inset-0 cursor-pointer opacity-0"
        data-testid="language"
      >
        {Object.entries(LANGUAGES).map(([code, name]) => (
          <option key={code} value={code}>
            {name}
          </option>
        ))}
      </select>
    </span>
  );
}

function AccountLink() {
  const { t } = useTranslation();
  const { user } = useSession().session;
  if (!user) return null;
  const label = t("account.open", { name: user.name });
  return (
    <a
      href="#/account"
      aria-label={label}
      title={label}
      className="icon-button size-9 rounded-xl sm:size-10"
      data-testid="account"
    >
      <CircleUserRound aria-hidden className="size-5" />
    </a>
  );
}

interface Props {
  /** What comes first. */
  before?: ReactNode;
  models: readonly Model[] | undefined;
  loading: boolean;
  model: string;
  onModel: (id: string) => void;
  onNew: () => void;
  onSettings: () => void;
}

export function Header({ before, models, loading, model, onModel, onNew, onSettings }: Props) {
  const { t } = useTranslation();
  const { user } = useSession().session;
  return (
    <header className="flex h-14 shrink-0 items-center gap-0.5 px-2 sm:gap-1 sm:px-3">
      {before}
      <img src="/favicon.svg" alt="" width={28} height={28} className="mr-1 hidden sm:block" />
      <h1 className="sr-only">Chatwright</h1>
      <span className="relative flex min-w-0 items-center">
        <select
          aria-label={t("model.label")}
          value={model}
          disabled={!models?.length}
          onChange={(event) => onModel(event.target.value)}
          className="model-select"
          data-testid="model"
        >
          {models?.length ? (
            models.map(({ id }) => (
              <option key={id} value={id}>
                {id}
              </option>
            ))
          ) : (
            <option value="">{loading ? t("model.loading") : t("model.none")}</option>
          )}
        </select>
        <ChevronDown aria-hidden className="pointer-events-none absolute right-2.5 size-4 text-muted-foreground" />
      </span>
      <span className="grow" />
      <IconButton label={t("header.newChat")} onClick={onNew} data-testid="new-chat">
        <SquarePen aria-hidden className="size-5" />
      </IconButton>
      <IconButton label={t("header.settings")} onClick={onSettings} data-testid="settings">
        <Settings aria-hidden className="size-5" />
      </IconButton>
      <LanguageSelect />
      <ThemeButton />
      {/* Who is signed in finds it among the pages of their account too, where there is no room for it here. */}
      <a
        href="#/jobs"
        aria-label={t("header.jobs")}
        title={t("header.jobs")}
        className={`icon-button size-9 rounded-xl sm:size-10 ${user ? "hidden sm:inline-flex" : ""}`}
        data-testid="jobs-link"
      >
        <GraduationCap aria-hidden className="size-5" />
      </a>
      <a
        href="/docs"
        aria-label={t("header.docs")}
        title={t("header.docs")}
        className="icon-button hidden size-9 rounded-xl sm:size-10 sm:inline-flex"
      >
        <BookOpen aria-hidden className="size-5" />
      </a>
      <AccountLink />
    </header>
  );
}
