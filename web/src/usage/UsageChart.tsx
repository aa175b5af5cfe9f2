// Tokens or requests, day by day.
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { BarChart } from "../ui/BarChart";
import { Choice } from "../ui/Choice";
import type { Span } from "./sums";

const MEASURES = ["tokens", "requests"] as const;

export function UsageChart({ spans }: { spans: readonly Span[] }) {
  const { t, i18n } = useTranslation();
  const [measure, setMeasure] = useState<(typeof MEASURES)[number]>("tokens");
  const format = new Intl.DateTimeFormat(i18n.language, { month: "short", day: "numeric", timeZone: "UTC" });
  const isTokens = measure === "tokens";
  return (
    <div className="mt-6">
      <div className="mb-3">
        <Choice
          label={t("usage.chart")}
          value={measure}
          options={MEASURES.map((name) => [name, t(`usage.chart.${name}`)])}
          onChange={setMeasure}
          testId="usage-measure"
        />
      </div>
      <BarChart
        label={t(isTokens ? "usage.chart.tokensLabel" : "usage.chart.requestsLabel")}
        parts={isTokens ? [t("usage.fresh"), t("usage.cachedIn"), t("usage.output")] : [t("usage.requests")]}
        bars={spans.map(({ start, end, requests, input_tokens, cached_tokens, output_tokens }) => ({
          name: end - start > 86_400 ? format.formatRange(start * 1000, (end - 1) * 1000) : format.format(start * 1000),
          values: isTokens ? [input_tokens - cached_tokens, cached_tokens, output_tokens] : [requests],
        }))}
        testId="usage-chart"
      />
    </div>
  );
}
