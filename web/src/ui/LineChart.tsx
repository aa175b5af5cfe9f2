// Curves over steps. Pointer or arrow keys move along them; what stands there is written beneath, and read aloud.
import { type PointerEvent, useState } from "react";
import { useTranslation } from "react-i18next";

import { niceTicks, useWidth } from "./chart";

export interface Curve {
  name: string;
  /** By x. */
  points: readonly (readonly [number, number])[];
  /** Number of its colour; the second is broken and has dots, so that no colour has to be told from another. */
  kind: 1 | 2;
}

interface Props {
  label: string;
  curves: readonly Curve[];
  xName: string;
  /** Where the axis ends, which the curves may not have reached yet. */
  end: number;
  height?: number;
  testId: string;
}

const LEFT = 44;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 26;
const DOTS_UP_TO = 60;

export function LineChart({ label, curves, xName, end, height = 260, testId }: Props) {
  const { t, i18n } = useTranslation();
  const [ref, width] = useWidth<HTMLDivElement>();
  const [at, setAt] = useState<number | undefined>();
  const drawn = curves.filter(({ points }) => points.length > 0);
  const places = [...new Set(drawn.flatMap(({ points }) => points.map(([x]) => x)))].toSorted((a, b) => a - b);
  const values = drawn.flatMap(({ points }) => points.map(([, y]) => y));
  const last = places.at(-1);
  const number = new Intl.NumberFormat(i18n.language, { maximumSignificantDigits: 4 });
  if (last === undefined) return null;

  const margin = Math.max((Math.max(...values) - Math.min(...values)) * 0.06, 1e-3);
  const [low, high] = [Math.max(0, Math.min(...values) - margin), Math.max(...values) + margin];
  const [first, right] = [Math.min(places[0] ?? 0, 1), Math.max(end, last, 2)];
  const x = (value: number): number => LEFT + ((value - first) / (right - first)) * (width - LEFT - RIGHT);
  const y = (value: number): number => TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM);
  const cursor = at === undefined ? undefined : nearest(places, at);
  const shown = cursor ?? last;

  function said(place: number): string {
    const facts = drawn.flatMap(({ name, points }) => {
      const found = points.findLast(([x]) => x <= place);
      return found ? [`${name} ${number.format(found[1])}`] : [];
    });
    return [`${xName} ${new Intl.NumberFormat(i18n.language).format(place)}`, ...facts].join(" · ");
  }

  function onPointerMove(event: PointerEvent<SVGSVGElement>): void {
    const { left } = event.currentTarget.getBoundingClientRect();
    setAt(first + ((event.clientX - left - LEFT) / (width - LEFT - RIGHT)) * (right - first));
  }

  return (
    <figure className="m-0" data-testid={testId} data-points={values.length}>
      <figcaption className="mb-1 flex flex-wrap items-center gap-x-5 gap-y-1 text-sm">
        <span className="sr-only">{label}</span>
        {curves.map(({ name, kind, points }) => (
          <span key={name} className={`inline-flex items-center gap-2 ${points.length ? "" : "text-muted-foreground"}`}>
            <svg aria-hidden width="24" height="10" className={`curve curve-${kind}`}>
              <path d="M0 5 H24" />
              {kind === 2 && <circle cx="12" cy="5" r="3" />}
            </svg>
            {name}
          </span>
        ))}
      </figcaption>
      <div ref={ref} className="chart relative">
        {/* Unseen, it lends the curve its keys: arrows, page up and down, home, end. */}
        <input
          type="range"
          min={0}
          max={places.length - 1}
          step={1}
          value={places.indexOf(shown)}
          onChange={({ target }) => setAt(places[Number(target.value)])}
          aria-label={label}
          aria-valuetext={said(shown)}
          className="pointer-events-none absolute inset-0 opacity-0"
        />
        <svg
          aria-hidden
          width={width}
          height={height}
          onPointerMove={onPointerMove}
          onPointerLeave={() => setAt(undefined)}
        >
          {niceTicks(low, high, 4).map((tick) => (
            <g key={tick}>
              <path className="grid-line" d={`M${LEFT} ${y(tick)} H${width - RIGHT}`} />
              <text x={LEFT - 8} y={y(tick)} dy="0.35em" textAnchor="end">
                {number.format(tick)}
              </text>
            </g>
          ))}
          {niceTicks(first, right, Math.max(2, Math.floor(width / 90)), true).map((tick) => (
            <text key={tick} x={x(tick)} y={height - 6} textAnchor={tick === right ? "end" : "middle"}>
              {new Intl.NumberFormat(i18n.language).format(tick)}
            </text>
          ))}
          {drawn.map(({ name, kind, points }) => (
            <g key={name} className={`curve curve-${kind}`}>
              <path d={points.map(([px, py], index) => `${index ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("")} />
              {((kind === 2 && points.length <= DOTS_UP_TO) || points.length === 1) &&
                points.map(([px, py]) => <circle key={px} cx={x(px)} cy={y(py)} r="3" />)}
            </g>
          ))}
          {cursor !== undefined && <path className="cursor-line" d={`M${x(cursor)} ${TOP} V${height - BOTTOM}`} />}
        </svg>
      </div>
      <p aria-hidden className="min-h-6 text-sm text-muted-foreground tabular-nums" data-testid={`${testId}-at`}>
        {cursor === undefined ? t("chart.last", { facts: said(shown) }) : said(shown)}
      </p>
    </figure>
  );
}

function nearest(places: readonly number[], value: number): number | undefined {
  return places.reduce<number | undefined>(
    (best, place) => (best === undefined || Math.abs(place - value) < Math.abs(best - value) ? place : best),
    undefined,
  );
}
