// What happened to a job, the newest first. Measurements are the curve's.
import { useTranslation } from "react-i18next";

import { Section } from "../account/Section";
import type { Feed } from "./feed";

export function JobEvents({ feed }: { feed: Feed }) {
  const { t, i18n } = useTranslation();
  const time = new Intl.DateTimeFormat(i18n.language, { dateStyle: "short", timeStyle: "medium" });
  if (feed.messages.length === 0) return null;
  return (
    <Section title={t("jobs.events")}>
      {/* In the server's words, which are English. */}
      <ol className="text-sm" data-testid="job-events" aria-live="polite">
        {feed.messages.map(({ id, created_at, level, message }) => (
          <li key={id} className="flex flex-wrap gap-x-4 py-0.5" data-level={level}>
            <time dateTime={new Date(created_at * 1000).toISOString()} className="text-muted-foreground tabular-nums">
              {time.format(created_at * 1000)}
            </time>
            <span lang="en" className={`min-w-0 ${level === "error" ? "text-destructive" : level === "warn" ? "font-medium" : ""}`}>
              {message}
            </span>
          </li>
        ))}
      </ol>
    </Section>
  );
}
