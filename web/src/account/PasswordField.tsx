// A new password: it can be looked at while it is chosen, which is better than to type it twice.
import { Eye, EyeOff } from "lucide-react";
import { useId, useState } from "react";
import { useTranslation } from "react-i18next";

import { IconButton } from "../ui/IconButton";

const MIN_LENGTH = 10;

interface Props {
  label: string;
  value: string;
  onChange: (value: string) => void;
  autoFocus?: boolean;
  className?: string;
}

export function PasswordField({ label, value, onChange, autoFocus = false, className = "" }: Props) {
  const { t } = useTranslation();
  const id = useId();
  const [shown, setShown] = useState(false);
  return (
    <div className={className}>
      <label className="mb-1 block font-medium" htmlFor={id}>
        {label}
      </label>
      <div className="relative">
        <input
          id={id}
          type={shown ? "text" : "password"}
          name="new-password"
          autoComplete="new-password"
          autoCapitalize="none"
          spellCheck={false}
          required
          minLength={MIN_LENGTH}
          autoFocus={autoFocus}
          value={value}
          onChange={(event) => onChange(event.target.value)}
          aria-describedby={`${id}-help`}
          className="field pr-11"
          data-testid="new-password"
        />
        <IconButton
          small
          label={shown ? t("account.hidePassword") : t("account.showPassword")}
          onClick={() => setShown(!shown)}
          className="absolute top-1/2 right-1.5 -translate-y-1/2"
          data-testid="show-password"
        >
          {shown ? <EyeOff aria-hidden className="size-4" /> : <Eye aria-hidden className="size-4" />}
        </IconButton>
      </div>
      <p id={`${id}-help`} className="mt-1 text-sm text-muted-foreground">
        {t("account.passwordHelp", { count: MIN_LENGTH })}
      </p>
    </div>
  );
}
