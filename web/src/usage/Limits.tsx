// Limits, with what counts against them now: one's own to look at, all of them for administrators to change.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Pencil, Plus, Trash2 } from "lucide-react";
import { useId, useState } from "react";
import { useTranslation } from "react-i18next";

import { Failure } from "../account/Failure";
import { Section } from "../account/Section";
import { Dialog } from "../ui/Dialog";
import { IconButton } from "../ui/IconButton";
import { type CountedLimit, type Figure, FIGURES, removeLimit, USAGE } from "./api";
import { LimitForm } from "./LimitForm";
import { type Names, nameOf } from "./names";

const COUNTS: Record<Figure, keyof CountedLimit> = {
  tokens_per_month: "tokens_of_month",
  tokens_per_minute: "tokens_of_minute",
  requests_per_minute: "requests_of_minute",
  concurrent_requests: "running",
};

/** From here on it is shown as something to look after. */
const ALMOST = 0.9;

interface Props {
  limits: readonly CountedLimit[];
  names: Names;
  canChange: boolean;
  /** One's own: a limit of a user is "all that you do". */
  isOfOne: boolean;
}

export function Limits({ limits, names, canChange, isOfOne }: Props) {
  const { t } = useTranslation();
  const queries = useQueryClient();
  const [open, setOpen] = useState<CountedLimit | "new" | undefined>();
  const removing = useMutation({
    mutationFn: removeLimit,
    onSettled: () => queries.invalidateQueries({ queryKey: USAGE }),
  });

  function title({ key_id, user_id, model }: CountedLimit): string {
    if (key_id !== null) return t("usage.limits.key", { name: nameOf(key_id, names) });
    if (user_id !== null) return isOfOne ? t("usage.limits.own") : t("usage.limits.user", { name: nameOf(user_id, names) });
    return t("usage.limits.model", { name: model });
  }

  return (
    <Section title={t("usage.limits.title")} text={t(isOfOne ? "usage.limits.ownText" : "usage.limits.text")}>
      {canChange && (
        <button
          type="button"
          className="button mb-4 inline-flex items-center gap-2"
          onClick={() => setOpen("new")}
          data-testid="new-limit"
        >
          <Plus aria-hidden className="size-4" />
          {t("usage.limits.new")}
        </button>
      )}
      {limits.length === 0 && (
        <p className="text-muted-foreground" data-testid="no-limits">
          {t(isOfOne ? "usage.limits.noneOwn" : "usage.limits.none")}
        </p>
      )}
      <ul className="grid gap-3 lg:grid-cols-2" data-testid="limits">
        {limits.map((limit) => (
          <li key={limit.id} className="card" data-testid="limit">
            <div className="mb-2 flex items-center gap-1">
              <h3 className="min-w-0 grow font-medium">{title(limit)}</h3>
              {canChange && (
                <>
                  <IconButton
                    small
                    label={t("usage.limits.change", { name: title(limit) })}
                    onClick={() => setOpen(limit)}
                    data-testid="change-limit"
                  >
                    <Pencil aria-hidden className="size-4" />
                  </IconButton>
                  <IconButton
                    small
                    label={t("usage.limits.remove", { name: title(limit) })}
                    onClick={() => removing.mutate(limit.id)}
                    data-testid="remove-limit"
                  >
                    <Trash2 aria-hidden className="size-4" />
                  </IconButton>
                </>
              )}
            </div>
            {FIGURES.map((figure) => {
              const most = limit[figure];
              return most !== null && <Meter key={figure} figure={figure} used={Number(limit[COUNTS[figure]])} most={most} />;
            })}
          </li>
        ))}
      </ul>
      <Failure error={removing.error} />
      <Dialog
        open={open !== undefined}
        title={open === undefined || open === "new" ? t("usage.limits.new") : title(open)}
        onClose={() => setOpen(undefined)}
        testId="limit-dialog"
      >
        <LimitForm limit={open === "new" ? undefined : open} onClose={() => setOpen(undefined)} />
      </Dialog>
    </Section>
  );
}

function Meter({ figure, used, most }: { figure: Figure; used: number; most: number }) {
  const { t, i18n } = useTranslation();
  const id = useId();
  const number = new Intl.NumberFormat(i18n.language);
  const share = most === 0 ? 1 : Math.min(1, used / most);
  return (
    <div className="py-1.5" data-testid={`meter-${figure}`}>
      <div className="flex flex-wrap justify-between gap-x-3 text-sm">
        <span id={id}>{t(`usage.figure.${figure}`)}</span>
        <span className="text-muted-foreground tabular-nums">
          {t("usage.limits.of", { used: number.format(used), most: number.format(most) })}
        </span>
      </div>
      {/* Of 1, as also a limit of 0 can be reached. */}
      <meter aria-labelledby={id} value={share} className={`meter mt-1 ${share >= ALMOST ? "meter-full" : ""}`} />
    </div>
  );
}
