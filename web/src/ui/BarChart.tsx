// Stacked bars over days. What it shows stands in a table beside it: a screen reader hears what it is, and of what parts.
import { type PointerEvent, useState } from "react";
import { useTranslation } from "react-i18next";

import { niceEnd, niceTicks, useWidth } from "./chart";

export interface Bar {
  /** Under the bar, where there is room for it. */
  name: string;
  /** From the ground up, one for each part. */
  values: readonly number[];
}

interface Props {
  label: string;
  parts: readonly string[];
  bars: readonly Bar[];
  testId: string;
}

const LEFT = 52;
const TOP = 12;
const BOTTOM = 26;
const HEIGHT = 240;
const NAME_WIDTH = 64;

export function BarChart({ label, parts, bars, testId }: Props) {
  const { i18n } = useTranslation();
  const [ref, width] = useWidth<HTMLDivElement>();
  const [at, setAt] = useState<number | undefined>();
  const full = new Intl.NumberFormat(i18n.language);
  const short = new Intl.NumberFormat(i18n.language, { notation: "compact", maximumFractionDigits: 1 });
  const sums = bars.map(({ values }) => values.reduce((sum, value) => sum + value, 0));
  const end = niceEnd(Math.max(...sums, 0));
  const slot = (width - LEFT) / Math.max(bars.length, 1);
  const bar = Math.max(1, Math.min(40, slot * (slot > 6 ? 0.72 : 0.9)));
  const y = (value: number): number => TOP + (1 - value / end) * (HEIGHT - TOP - BOTTOM);
  const everyName = Math.max(1, Math.ceil(NAME_WIDTH / slot));
  const pointed = at === undefined ? undefined : bars[at];

  function onPointerMove(event: PointerEvent<SVGSVGElement>): void {
    const index = Math.floor((event.clientX - event.currentTarget.getBoundingClientRect().left - LEFT) / slot);
    setAt(index >= 0 && index < bars.length ? index : undefined);
  }

  return (
    <figure className="m-0" data-testid={testId}>
      <figcaption className="mb-1 flex flex-wrap items-center gap-x-5 gap-y-1 text-sm">
        <span className="sr-only">{label}</span>
        {parts.map((part, index) => (
          <span key={part} className="inline-flex items-center gap-2">
            <svg aria-hidden width="12" height="12" className={`bar bar-${index + 1}`}>
              <rect width="12" height="12" rx="2" />
            </svg>
            {part}
          </span>
        ))}
      </figcaption>
      <div ref={ref} className="chart">
        <svg
          aria-hidden
          width={width}
          height={HEIGHT}
          onPointerMove={onPointerMove}
          onPointerLeave={() => setAt(undefined)}
        >
          {niceTicks(0, end, 4, end > 4).map((tick) => (
            <g key={tick}>
              <path className="grid-line" d={`M${LEFT} ${y(tick)} H${width}`} />
              <text x={LEFT - 8} y={y(tick)} dy="0.35em" textAnchor="end">
                {short.format(tick)}
              </text>
            </g>
          ))}
          {bars.map(({ name, values }, index) => {
            const left = LEFT + slot * index + (slot - bar) / 2;
            let top = 0;
            return (
              <g key={name} opacity={at === undefined || at === index ? 1 : 0.55}>
                {values.map((value, part) => {
                  const from = top;
                  top += value;
                  return (
                    value > 0 && (
                      <rect
                        key={parts[part]}
                        className={`bar bar-${part + 1}`}
                        x={left}
                        width={bar}
                        y={y(top)}
                        height={Math.max(y(from) - y(top), 1)}
                      />
                    )
                  );
                })}
                {index % everyName === Math.floor((everyName - 1) / 2) && (
                  <text x={left + bar / 2} y={HEIGHT - 6} textAnchor="middle">
                    {name}
                  </text>
                )}
              </g>
            );
          })}
        </svg>
      </div>
      <p aria-hidden className="min-h-6 text-sm text-muted-foreground tabular-nums">
        {pointed && [pointed.name, ...pointed.values.map((value, part) => `${parts[part]} ${full.format(value)}`)].join(" · ")}
      </p>
    </figure>
  );
}
