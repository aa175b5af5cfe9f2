// What is shown once, a key or a link, with a button that copies it.
import { Check, Copy } from "lucide-react";
import { useId, useState } from "react";
import { useTranslation } from "react-i18next";

interface Props {
  label: string;
  value: string;
  /** What to do with it. */
  help: string;
}

export function Secret({ label, value, help }: Props) {
  const { t } = useTranslation();
  const id = useId();
  const [state, setState] = useState<"copied" | "failed" | undefined>();
  const Icon = state === "copied" ? Check : Copy;
  return (
    <div>
      <label className="mb-1 block font-medium" htmlFor={id}>
        {label}
      </label>
      <div className="flex items-center gap-2">
        <input
          id={id}
          readOnly
          autoFocus
          value={value}
          onFocus={(event) => event.target.select()}
          aria-describedby={`${id}-help`}
          className="field font-mono text-sm"
          data-testid="secret"
        />
        <button
          type="button"
          className="button button-primary inline-flex shrink-0 items-center gap-2"
          onClick={() => {
            navigator.clipboard.writeText(value).then(
              () => setState("copied"),
              () => setState("failed"),
            );
          }}
          data-testid="copy-secret"
        >
          <Icon aria-hidden className="size-4" />
          {t("message.copy")}
        </button>
      </div>
      <output className="block min-h-6 text-sm" data-testid="copy-state">
        {state === "copied" && t("message.copied")}
        {state === "failed" && t("account.secret.copyFailed")}
      </output>
      <p id={`${id}-help`} className="text-sm text-muted-foreground">
        {help}
      </p>
    </div>
  );
}
