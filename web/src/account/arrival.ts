// What stands behind # when somebody arrives from elsewhere: the token of a printed link (#welcome=TOKEN), or why an identity provider
// let nobody in (#sign-in=REASON). It is taken out of the address bar before anything else happens, and kept in memory only.
import { useSyncExternalStore } from "react";

export interface Arrival {
  welcome?: string;
  problem?: string;
}

const NOTHING: Arrival = {};
const NAMES = { welcome: "welcome", "sign-in": "problem" } as const;
const listeners = new Set<() => void>();
let arrival = NOTHING;

function set(value: Arrival): void {
  arrival = value;
  for (const listener of listeners) listener();
}

function take(): void {
  const { hash, pathname, search } = window.location;
  for (const [word, name] of Object.entries(NAMES)) {
    if (!hash.startsWith(`#${word}=`)) continue;
    window.history.replaceState(null, "", pathname + search);
    set({ [name]: hash.slice(word.length + 2) });
  }
}

/** Now, and when somebody pastes a link into a page that is open. */
export function watchArrivals(): void {
  take();
  window.addEventListener("hashchange", take);
}

export function forgetArrival(): void {
  set(NOTHING);
}

export function useArrival(): Arrival {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => arrival,
  );
}
