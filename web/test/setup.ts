// What jsdom lacks of a browser.
import "@testing-library/jest-dom/vitest";

import { cleanup, configure } from "@testing-library/react";
import { afterAll, afterEach, beforeEach, vi } from "vitest";

import { setUpLanguage } from "../src/i18n";

// A page that is loaded when it is opened takes its time on a busy machine.
configure({ asyncUtilTimeout: 10_000 });

HTMLDialogElement.prototype.showModal = function (this: HTMLDialogElement) {
  this.open = true;
};
HTMLDialogElement.prototype.close = function (this: HTMLDialogElement) {
  if (!this.open) return;
  this.open = false;
  this.dispatchEvent(new Event("close"));
};
Element.prototype.scrollTo = () => undefined;
vi.stubGlobal(
  "ResizeObserver",
  class {
    observe = () => undefined;
    unobserve = () => undefined;
    disconnect = () => undefined;
  },
);
window.matchMedia = (query: string) =>
  ({
    matches: false,
    media: query,
    addEventListener: () => undefined,
    removeEventListener: () => undefined,
  }) as unknown as MediaQueryList;

beforeEach(() => {
  localStorage.clear();
  sessionStorage.clear();
  localStorage.setItem("chatwright.language", "en");
  setUpLanguage();
});
afterEach(cleanup);

// What a page loads when it needs it (a language's colours) may come after the last test; then there is no page to load it into.
afterAll(() => vi.dynamicImportSettled());
