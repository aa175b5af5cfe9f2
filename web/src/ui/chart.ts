// What charts have in common: round numbers along an axis, and how wide there is room to draw.
import { type RefCallback, useCallback, useState } from "react";

/** About `count` round numbers from `low` to `high`, both within. */
export function niceTicks(low: number, high: number, count: number, whole = false): number[] {
  if (!(high > low) || count < 1) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10;
  const step = whole ? Math.max(1, Math.round(factor * power)) : factor * power;
  const ticks: number[] = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) ticks.push(Number((n * step).toPrecision(12)));
  return ticks;
}

/** The smallest round number from `value` on, for the end of an axis that begins at 0. */
export function niceEnd(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((factor) => factor * power >= value * (1 - 1e-9)) ?? 10) * power;
}

const USUAL_WIDTH = 640;

/** The width of an element in pixels, also when it changes: text in a drawing shall stay as large as it is elsewhere. */
export function useWidth<T extends Element>(): [RefCallback<T>, number] {
  const [width, setWidth] = useState(USUAL_WIDTH);
  // A callback, as the element may come later than the component.
  const ref = useCallback((element: T | null) => {
    if (!element) return undefined;
    const measure = (): void => {
      const now = Math.round(element.getBoundingClientRect().width);
      if (now > 0) setWidth(now);
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return [ref, width];
}
