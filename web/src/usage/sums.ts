// From rows of days to what the page shows: sums, and bars along the calendar. Days are of UTC, as they are counted.
export interface Used {
  requests: number;
  input_tokens: number;
  cached_tokens: number;
  output_tokens: number;
}

/** One day of one user, key or model. */
export interface Row extends Used {
  day: number;
  user_id?: string | null;
  key_id?: string | null;
  model?: string | null;
}

export type By = "day" | "user" | "key" | "model";

const DAY_S = 86_400;
/** Of more days than these each bar is a week. */
const MOST_BARS = 100;
const NOTHING: Used = { requests: 0, input_tokens: 0, cached_tokens: 0, output_tokens: 0 };

const add = (one: Used, other: Used): Used => ({
  requests: one.requests + other.requests,
  input_tokens: one.input_tokens + other.input_tokens,
  cached_tokens: one.cached_tokens + other.cached_tokens,
  output_tokens: one.output_tokens + other.output_tokens,
});

export const sum = (rows: readonly Used[]): Used => rows.reduce(add, NOTHING);

const FIELDS = { user: "user_id", key: "key_id", model: "model" } as const;

/** Name → sum: by day the newest first, else the largest first. "" stands for nobody and no key. */
export function grouped(rows: readonly Row[], by: By): [string, Used][] {
  const groups = new Map<string, Used>();
  for (const row of rows) {
    const name = by === "day" ? String(row.day) : (row[FIELDS[by]] ?? "");
    groups.set(name, add(groups.get(name) ?? NOTHING, row));
  }
  const tokens = ([, used]: [string, Used]): number => used.input_tokens + used.output_tokens;
  return [...groups].toSorted(by === "day" ? ([a], [b]) => Number(b) - Number(a) : (a, b) => tokens(b) - tokens(a));
}

export interface Span extends Used {
  /** Unix time; until when, without the end itself. */
  start: number;
  end: number;
}

/** Every day between, or every seven where they are many, also those on which nothing was used. */
export function spans(rows: readonly Row[], start: number, end: number): Span[] {
  const width = (end - start > MOST_BARS * DAY_S ? 7 : 1) * DAY_S;
  // Whole weeks, the last one until today.
  const first = end - Math.ceil((end - start) / width) * width;
  const found = Array.from({ length: (end - first) / width }, (_, index) => ({
    ...NOTHING,
    start: first + index * width,
    end: first + (index + 1) * width,
  }));
  for (const row of rows) {
    const index = Math.floor((row.day - first) / width);
    const span = found[index];
    if (span) found[index] = { ...span, ...add(span, row) };
  }
  return found;
}
