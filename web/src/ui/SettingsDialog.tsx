// Instructions and temperature for the conversation, and forgetting the key.
import { useTranslation } from "react-i18next";

import { apiKey, setApiKey } from "../api/key";
import { Dialog } from "./Dialog";

export interface Preferences {
  system: string;
  temperature: number;
}

/** The likeliest words: the API's own default, 1, makes the small models that fit a laptop talk nonsense. */
export const DEFAULT_PREFERENCES: Preferences = { system: "", temperature: 0 };

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

      <label className="mt-5 mb-1 flex justify-between font-medium" htmlFor="temperature">
        {t("settings.temperature")}
        <output htmlFor="temperature" className="font-normal text-muted-foreground tabular-nums">
          {temperature.toFixed(1)}
        </output>
      </label>
      <input
        id="temperature"
        type="range"
        min={0}
        max={2}
        step={0.1}
        value={temperature}
        onChange={(event) => onChange({ ...preferences, temperature: Number(event.target.value) })}
        aria-describedby="temperature-help"
        className="w-full accent-primary"
        data-testid="temperature"
      />
      <p id="temperature-help" className="mt-1 text-sm text-muted-foreground">
        {t("settings.temperatureHelp")}
      </p>

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
