// The losses of a job over its steps, as they come.
import { useTranslation } from "react-i18next";

import { LineChart } from "../ui/LineChart";
import type { Feed } from "./feed";

export function JobCurve({ feed, height }: { feed: Feed; height?: number }) {
  const { t } = useTranslation();
  const curves = [
    { name: t("jobs.training"), kind: 1, points: feed.training },
    ...(feed.validation.length > 0 ? [{ name: t("jobs.validation"), kind: 2 as const, points: feed.validation }] : []),
  ] as const;
  return (
    <LineChart
      label={t("jobs.curve")}
      curves={curves}
      xName={t("jobs.step")}
      end={feed.totalSteps}
      height={height}
      testId="job-curve"
    />
  );
}
