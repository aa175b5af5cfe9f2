// Instructions and temperature for the conversation, and forgetting the key.
import { useTranslation } from "react-i18next";

import { apiKey, setApiKey } from "../api/key";
import { Dialog } from "./Dialog";

export interface Preferences {
  system: string;
  temperature: number | undefined;
}

const USUAL_TEMPERATURE = 0.7;

interface Props {
  open: boolean;
  preferences: Preferences;
  onChange: (preferences: Preferences) => void;
  onClose: () => void;
}

export function SettingsDialog({ open, preferences, onChange, onClose }: Props) {
  const { t } = useTranslation();
  const { system, temperature } = preferences;
  return (
    <Dialog open={open} title={t("settings.title")} onClose={onClose} testId="settings-dialog">
      <label className="mb-1 block font-medium" htmlFor="system-prompt">
        {t("settings.system")}
      </label>
      <textarea
        id="system-prompt"
        rows={4}
        value={system}
        onChange={(event) => onChange({ ...preferences, system: event.target.value })}
        aria-describedby="system-help"
        className="field"
        data-testid="system-prompt"
      />
      <p id="system-help" className="mt-1 text-sm text-muted-foreground">
        {t("settings.systemHelp")}
      </p>

      <fieldset className="mt-5">
        <legend className="mb-1 font-medium">{t("settings.temperature")}</legend>
        <label className="flex items-center gap-2">
          <input
            type="checkbox"
            className="size-4 accent-primary"
            checked={temperature !== undefined}
            onChange={(event) =>
              onChange({ ...preferences, temperature: event.target.checked ? USUAL_TEMPERATURE : undefined })
            }
          />
          {t("settings.temperatureOwn")}
        </label>
        <div className="mt-2 flex items-center gap-3">
          <input
            type="range"
            min={0}
            max={2}
            step={0.1}
            aria-label={t("settings.temperature")}
            disabled={temperature === undefined}
            value={temperature ?? USUAL_TEMPERATURE}
            onChange={(event) => onChange({ ...preferences, temperature: Number(event.target.value) })}
            className="grow accent-primary"
            data-testid="temperature"
          />
          <output className="w-32 text-right text-sm text-muted-foreground tabular-nums">
            {temperature === undefined ? t("settings.temperatureDefault") : temperature.toFixed(1)}
          </output>
        </div>
        <p className="mt-1 text-sm text-muted-foreground">{t("settings.temperatureHelp")}</p>
      </fieldset>

      <div className="mt-6 flex justify-end gap-2">
        {apiKey() !== null && (
          <button
            type="button"
            className="button mr-auto"
            onClick={() => {
              setApiKey(null);
              onClose();
            }}
          >
            {t("settings.forgetKey")}
          </button>
        )}
        <button type="button" className="button button-primary" onClick={onClose} data-testid="settings-done">
          {t("settings.done")}
        </button>
      </div>
    </Dialog>
  );
}
