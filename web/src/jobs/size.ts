// Bytes as people write them.
const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte"] as const;

export function shownSize(bytes: number, language: string): string {
  const power = Math.min(UNITS.length - 1, bytes < 1000 ? 0 : Math.floor(Math.log10(bytes) / 3));
  const format = { style: "unit", unit: UNITS[power] ?? "byte", unitDisplay: "short", maximumFractionDigits: 1 } as const;
  return new Intl.NumberFormat(language, format).format(bytes / 1000 ** power);
}
