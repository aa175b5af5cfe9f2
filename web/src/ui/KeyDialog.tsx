// Asks for the API key when the server answers 401.
import { type FormEvent, useState } from "react";
import { useTranslation } from "react-i18next";

import { apiKey, setApiKey } from "../api/key";
import { Dialog } from "./Dialog";

interface Props {
  open: boolean;
  onClose: () => void;
  /** After the key was stored. */
  onSaved: () => void;
  /** Asks for the token that changes what a server without accounts keeps. */
  admin?: boolean;
}

function KeyForm({ onClose, onSaved, admin = false }: Omit<Props, "open">) {
  const { t } = useTranslation();
  const [key, setKey] = useState("");
  const refused = apiKey() !== null && !admin; // a good key may be no admin token

  function save(event: FormEvent): void {
    event.preventDefault();
    setApiKey(key.trim());
    onSaved();
  }

  return (
    <form onSubmit={save}>
      <p className="mb-4 text-muted-foreground">{t(admin ? "key.adminText" : "key.text")}</p>
      {refused && (
        <p role="alert" className="mb-4 text-destructive">
          {t("key.refused")}
        </p>
      )}
      <label className="mb-1 block font-medium" htmlFor="api-key">
        {t(admin ? "key.adminLabel" : "key.label")}
      </label>
      <input
        id="api-key"
        type="password"
        autoComplete="off"
        spellCheck={false}
        autoFocus
        required
        value={key}
        onChange={(event) => setKey(event.target.value)}
        aria-describedby="api-key-help"
        className="field"
        data-testid="key-input"
      />
      <p id="api-key-help" className="mt-2 text-sm text-muted-foreground">
        {t("key.help")}
      </p>
      <div className="mt-6 flex justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          {t("key.cancel")}
        </button>
        <button type="submit" className="button button-primary" data-testid="key-save">
          {t("key.save")}
        </button>
      </div>
    </form>
  );
}

export function KeyDialog({ open, ...rest }: Props) {
  const { t } = useTranslation();
  return (
    <Dialog open={open} title={t(rest.admin ? "key.adminTitle" : "key.title")} onClose={rest.onClose} testId="key-dialog">
      <KeyForm {...rest} />
    </Dialog>
  );
}
