// Which conversation is open: it stands in the address (#/c/ID), so that a reload finds it again and "back" goes back to it.
import { useCallback, useEffect, useState } from "react";

export interface Place {
  /** None: one that nobody said anything in yet. */
  id: string | undefined;
  /** The id that it had when it was opened: none for a new one, though it got one since. */
  opened: string | undefined;
  /** Stays the same when a new conversation gets its id, and changes with every other. */
  key: string;
}

const ADDRESS = /^#\/c\/([\w-]+)$/;
let count = 0;

function place(id: string | undefined): Place {
  count += 1;
  return { id, opened: id, key: id ?? `new-${count}` };
}

const read = (): string | undefined => ADDRESS.exec(window.location.hash)?.[1];
/** At a page that is none of a conversation's. */
const isElsewhere = (): boolean => !["", "#", "#/"].includes(window.location.hash) && read() === undefined;
const write = (id: string | undefined, how: "pushState" | "replaceState"): void =>
  window.history[how](null, "", id === undefined ? "#/" : `#/c/${id}`);

export function usePlace(): {
  place: Place;
  open: (id: string | undefined) => void;
  /** The conversation that is open has this id now. */
  settle: (id: string) => void;
} {
  const [current, setCurrent] = useState(() => place(read()));

  useEffect(() => {
    let away = isElsewhere();
    const onChange = (): void => {
      const id = read();
      const cameBack = away && id === undefined;
      away = isElsewhere();
      if (away) return; // the chat waits behind that page
      setCurrent((now) => {
        if (cameBack) {
          if (now.id !== undefined) write(now.id, "replaceState");
          return now;
        }
        return id === now.id && id !== undefined ? now : place(id);
      });
    };
    window.addEventListener("hashchange", onChange);
    return () => window.removeEventListener("hashchange", onChange);
  }, []);

  const open = useCallback((id: string | undefined) => {
    if (id === undefined || id !== read()) write(id, "pushState");
    setCurrent((now) => (id !== undefined && id === now.id ? now : place(id)));
  }, []);
  const settle = useCallback((id: string) => {
    write(id, "replaceState");
    setCurrent((now) => ({ ...now, id }));
  }, []);
  return { place: current, open, settle };
}
