// Grey bars where a page's content will be, and a word for who can not see them.
import { useTranslation } from "react-i18next";

export function Loading({ rows = 3 }: { rows?: number }) {
  const { t } = useTranslation();
  return (
    <div data-testid="loading">
      <output className="sr-only">{t("account.loading")}</output>
      {Array.from({ length: rows }, (_, index) => (
        <div key={index} aria-hidden className="placeholder" />
      ))}
    </div>
  );
}
