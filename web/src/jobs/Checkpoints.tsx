// The checkpoints of a job that are kept; each answers as a model.
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";

import { Section } from "../account/Section";
import { moment } from "../account/time";
import { Wide } from "../ui/Wide";
import { checkpointsQuery, type Job, listCheckpoints } from "./api";
import { ChatLink } from "./ChatLink";

export function Checkpoints({ job }: { job: Job }) {
  const { t, i18n } = useTranslation();
  const number = new Intl.NumberFormat(i18n.language, { maximumSignificantDigits: 4 });
  const checkpoints = useQuery({
    queryKey: checkpointsQuery(job.id),
    queryFn: ({ signal }) => listCheckpoints(job.id, signal),
  });
  if (!checkpoints.data?.length) return null;
  return (
    <Section title={t("jobs.checkpoints")} text={t("jobs.checkpointsText")}>
      <Wide label={t("jobs.checkpoints")}>
        <table className="figures" data-testid="checkpoints">
          <thead>
            <tr>
              <th scope="col">{t("jobs.step")}</th>
              <th scope="col">{t("jobs.training")}</th>
              <th scope="col">{t("jobs.validation")}</th>
              <th scope="col">{t("jobs.fact.created")}</th>
              <th scope="col">
                <span className="sr-only">{t("jobs.chatShort")}</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {checkpoints.data.map(({ id, step_number, created_at, metrics, fine_tuned_model_checkpoint: name }) => (
              <tr key={id} data-testid="checkpoint">
                <th scope="row">{new Intl.NumberFormat(i18n.language).format(step_number)}</th>
                <td>{typeof metrics.train_loss === "number" ? number.format(metrics.train_loss) : "–"}</td>
                <td>{typeof metrics.valid_loss === "number" ? number.format(metrics.valid_loss) : "–"}</td>
                <td>{moment(created_at, i18n.language)}</td>
                <td>
                  <ChatLink model={name} className="button button-small inline-block" label={t("jobs.chatAt", { step: step_number })}>
                    {t("jobs.chatShort")}
                  </ChatLink>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </Section>
  );
}
