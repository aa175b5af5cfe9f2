// The page's language: the one chosen before, else the browser's, else English.
import i18next from "i18next";
import { initReactI18next } from "react-i18next";

import en from "./en.json";
import zh from "./zh.json";

export const LANGUAGES = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof LANGUAGES;

const STORAGE_KEY = "chatwright.language";

export function detectLanguage(stored: string | null, preferred: readonly string[]): Language {
  if (stored === "en" || stored === "zh") return stored;
  for (const tag of preferred) {
    if (/^zh\b/i.test(tag)) return "zh";
    if (/^en\b/i.test(tag)) return "en";
  }
  return "en";
}

/** Lang attribute of the page: fonts and screen readers need to know that it is simplified Chinese. */
const HTML_LANG: Record<Language, string> = { en: "en", zh: "zh-CN" };

export function setLanguage(language: Language): void {
  localStorage.setItem(STORAGE_KEY, language);
  void i18next.changeLanguage(language);
}

export function setUpLanguage(): void {
  i18next.on("languageChanged", (language) => {
    document.documentElement.lang = HTML_LANG[language as Language];
  });
  void i18next.use(initReactI18next).init({
    lng: detectLanguage(localStorage.getItem(STORAGE_KEY), navigator.languages),
    fallbackLng: "en",
    resources: { en: { translation: en }, zh: { translation: zh } },
    keySeparator: false, // keys are flat: "header.newChat"
    interpolation: { escapeValue: false }, // React escapes
    initAsync: false,
  });
}
