// Which model shall answer: chosen in the header, or on a page that has just trained it; remembered in this browser.
import { useSyncExternalStore } from "react";

const STORAGE_KEY = "chatwright.model";
const listeners = new Set<() => void>();

export function chooseModel(id: string): void {
  localStorage.setItem(STORAGE_KEY, id);
  for (const listener of listeners) listener();
}

export function useChosenModel(): string {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => localStorage.getItem(STORAGE_KEY) ?? "",
  );
}
