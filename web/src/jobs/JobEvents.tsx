// What happened to a job, the newest first. Measurements are the curve's.
import { useTranslation } from "react-i18next";

import { Section } from "../account/Section";
import type { JobEvent } from "./api";
import { translated } from "./eventWords";
import type { Feed } from "./feed";

const LOOKS: Record<string, string> = { error: "text-destructive", warn: "font-medium" };

export function JobEvents({ feed }: { feed: Feed }) {
  const { t } = useTranslation();
  if (feed.messages.length === 0) return null;
  return (
    <Section title={t("jobs.events")}>
      <ol className="text-sm" data-testid="job-events" aria-live="polite">
        {feed.messages.map((event) => (
          <Line key={event.id} event={event} />
        ))}
      </ol>
    </Section>
  );
}

function Line({ event: { created_at, level, message } }: { event: JobEvent }) {
  const { t, i18n } = useTranslation();
  const time = new Intl.DateTimeFormat(i18n.language, { dateStyle: "short", timeStyle: "medium" });
  const words = translated(message, t);
  return (
    <li className="flex flex-wrap gap-x-4 py-0.5" data-level={level}>
      <time dateTime={new Date(created_at * 1000).toISOString()} className="text-muted-foreground tabular-nums">
        {time.format(created_at * 1000)}
      </time>
      {/* What the page does not know stays in the server's words, which are English. */}
      <span lang={words === undefined ? "en" : undefined} className={`min-w-0 ${LOOKS[level] ?? ""}`}>
        {words ?? message}
      </span>
    </li>
  );
}
