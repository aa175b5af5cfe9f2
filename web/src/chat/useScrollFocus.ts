// Code and tables that scroll sideways, made reachable with the keyboard; Streamdown leaves them to the mouse.
import { type RefObject, useEffect } from "react";

const SCROLLERS = '[data-streamdown="code-block-body"], [data-streamdown="table-wrapper"] > :last-child';

/** Watches, since code blocks arrive later than the text around them and are replaced when their colours come. */
export function useScrollFocus(ref: RefObject<HTMLElement | null>): void {
  useEffect(() => {
    const answer = ref.current;
    if (!answer) return undefined;
    const mark = (): void => {
      for (const scroller of answer.querySelectorAll<HTMLElement>(SCROLLERS)) scroller.tabIndex = 0;
    };
    const observer = new MutationObserver(mark);
    observer.observe(answer, { childList: true, subtree: true });
    mark();
    return () => observer.disconnect();
  }, [ref]);
}
