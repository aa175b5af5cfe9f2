// Calls that come many times a frame, done once a frame: a fast model writes more tokens than a screen can show.
export interface FrameBuffer {
  add(text: string): void;
  /** Hands over what is waiting, now. */
  flush(): void;
}

/** A hidden tab gets no animation frames; the text must go on there, so a timer stands in. */
const HIDDEN_INTERVAL_MS = 200;

export function frameBuffer(deliver: (text: string) => void): FrameBuffer {
  let waiting = "";
  let cancel: (() => void) | undefined;

  function flush(): void {
    cancel?.();
    cancel = undefined;
    if (waiting === "") return;
    const text = waiting;
    waiting = "";
    deliver(text);
  }

  function schedule(): () => void {
    if (document.hidden) {
      const timer = setTimeout(flush, HIDDEN_INTERVAL_MS);
      return () => clearTimeout(timer);
    }
    const frame = requestAnimationFrame(flush);
    // A tab hidden between the request and the frame would wait until it is shown again.
    const timer = setTimeout(flush, HIDDEN_INTERVAL_MS);
    return () => {
      cancelAnimationFrame(frame);
      clearTimeout(timer);
    };
  }

  return {
    add(text) {
      waiting += text;
      cancel ??= schedule();
    },
    flush,
  };
}
