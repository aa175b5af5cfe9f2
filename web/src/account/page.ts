// Which page beside the chat is open: it stands in the address (#/keys, #/jobs/ID), so that it can be linked to and "back" leaves it.
import { useSyncExternalStore } from "react";

import type { Session } from "./api";

export const PAGES = ["account", "keys", "jobs", "usage", "users"] as const;
export type Page = (typeof PAGES)[number];

const ADDRESS = /^#\/(\w+)(?:\/([\w-]+))?$/;

function subscribe(listener: () => void): () => void {
  window.addEventListener("hashchange", listener);
  return () => window.removeEventListener("hashchange", listener);
}

function readPage(): Page | undefined {
  const [, name] = ADDRESS.exec(window.location.hash) ?? [];
  return PAGES.find((page) => page === name);
}

const readPart = (): string | undefined => ADDRESS.exec(window.location.hash)?.[2];

export function usePage(): Page | undefined {
  return useSyncExternalStore(subscribe, readPage);
}

/** What of the page: the id of a job. */
export function usePart(): string | undefined {
  return useSyncExternalStore(subscribe, readPart);
}

export function goTo(page: Page, part?: string): void {
  window.location.hash = part === undefined ? `#/${page}` : `#/${page}/${part}`;
}

/** The pages that are there for somebody. A server without accounts has those that are for the holder of its admin token. */
export function pagesOf(session: Session): readonly Page[] {
  if (!session.user) return session.accounts ? [] : ["jobs", "usage"];
  return PAGES.filter((page) => page !== "users" || session.scopes.includes("admin"));
}
