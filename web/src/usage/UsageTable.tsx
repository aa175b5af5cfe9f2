// The same in numbers, by days, users, keys or models.
import { useTranslation } from "react-i18next";

import { Wide } from "../ui/Wide";
import { type Names, nameOf } from "./names";
import type { By, Used } from "./sums";

const COLUMNS = ["requests", "input", "cached", "output"] as const;

interface Props {
  by: By;
  groups: readonly [string, Used][];
  names: Names;
}

export function UsageTable({ by, groups, names }: Props) {
  const { t, i18n } = useTranslation();
  const number = new Intl.NumberFormat(i18n.language);
  const date = new Intl.DateTimeFormat(i18n.language, { dateStyle: "medium", timeZone: "UTC" });

  function title(name: string): string {
    if (by === "day") return date.format(Number(name) * 1000);
    if (!name) return t(by === "user" ? "usage.nobody" : by === "key" ? "usage.noKey" : "usage.noModel");
    return by === "model" ? name : nameOf(name, names);
  }

  return (
    <Wide label={t("usage.table")}>
      <table className="figures" data-testid="usage-table" data-by={by}>
        <thead>
          <tr>
            <th scope="col">{t(`usage.by.${by}`)}</th>
            {COLUMNS.map((name) => (
              <th key={name} scope="col">
                {t(`usage.${name}`)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {groups.map(([name, { requests, input_tokens, cached_tokens, output_tokens }]) => (
            <tr key={name} data-testid="usage-row" data-name={name}>
              <th scope="row">{title(name)}</th>
              {[requests, input_tokens, cached_tokens, output_tokens].map((value, index) => (
                <td key={COLUMNS[index]} data-column={COLUMNS[index]}>
                  {number.format(value)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Wide>
  );
}
