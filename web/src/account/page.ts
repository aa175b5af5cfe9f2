// Which page of the account is open: it stands in the address (#/keys), so that it can be linked to and "back" leaves it.
import { useSyncExternalStore } from "react";

export const PAGES = ["account", "keys", "users"] as const;
export type Page = (typeof PAGES)[number];

function read(): Page | undefined {
  return PAGES.find((page) => window.location.hash === `#/${page}`);
}

export function usePage(): Page | undefined {
  return useSyncExternalStore((listener) => {
    window.addEventListener("hashchange", listener);
    return () => window.removeEventListener("hashchange", listener);
  }, read);
}
