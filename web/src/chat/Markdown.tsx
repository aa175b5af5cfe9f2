// An answer as Markdown: sanitised, without images, highlighted, memoised block by block while it streams.
import { cjk } from "@streamdown/cjk";
import { ImageOff } from "lucide-react";
import { type ComponentProps, memo, useEffect, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import rehypeRaw from "rehype-raw";
import rehypeSanitize from "rehype-sanitize";
import { type Components, type PluginConfig, Streamdown } from "streamdown";

import { hasMath, normalizeMath } from "./math";
import { safeHref, SCHEMA } from "./sanitize";
import { useScrollFocus } from "./useScrollFocus";

type Plugins = Pick<PluginConfig, "code" | "math">;

/** Highlighter and KaTeX are half of the page's weight: they come with the first answer that needs them. */
function usePlugins(needsCode: boolean, needsMath: boolean): PluginConfig {
  const [plugins, setPlugins] = useState<Plugins>({});
  useEffect(() => {
    if (needsCode) void import("./highlighter").then(({ code }) => setPlugins((had) => ({ ...had, code })));
  }, [needsCode]);
  useEffect(() => {
    if (needsMath) void import("./katex").then(({ math }) => setPlugins((had) => ({ ...had, math })));
  }, [needsMath]);
  return useMemo(() => ({ ...plugins, cjk }), [plugins]);
}

function Link({ href, children, id }: ComponentProps<"a">) {
  const target = safeHref(href);
  if (!target) return <span>{children}</span>;
  if (target.startsWith("#")) {
    return (
      <a id={id} href={target} className="link">
        {children}
      </a>
    );
  }
  return (
    <a href={target} title={target} target="_blank" rel="noopener noreferrer nofollow" className="link">
      {children}
    </a>
  );
}

/** Never an <img>: the address alone can carry what was said to somebody else's server. */
function BlockedImage({ alt }: ComponentProps<"img">) {
  const { t } = useTranslation();
  return (
    <span className="inline-flex items-center gap-1.5 rounded-md bg-muted px-2 py-0.5 text-sm text-muted-foreground">
      <ImageOff aria-hidden className="size-4" />
      {t("markdown.imageBlocked")}
      {alt ? `: ${alt}` : ""}
    </span>
  );
}

/** The only input that the sanitiser lets through: the box of a task list. */
function Checkbox({ checked = false }: ComponentProps<"input">) {
  const { t } = useTranslation();
  return (
    <input type="checkbox" disabled checked={checked} aria-label={t(checked ? "markdown.done" : "markdown.toDo")} />
  );
}

const COMPONENTS = { a: Link, img: BlockedImage, input: Checkbox } as Components;
// Given here, these replace Streamdown's own list, which lets every image and link through.
const REHYPE_PLUGINS: ComponentProps<typeof Streamdown>["rehypePlugins"] = [rehypeRaw, [rehypeSanitize, SCHEMA]];
const CONTROLS = { code: { copy: true, download: false }, table: { copy: true, download: false, fullscreen: false } };

export const Markdown = memo(function Markdown({ text, streaming }: { text: string; streaming: boolean }) {
  const { t } = useTranslation();
  const ref = useRef<HTMLDivElement>(null);
  useScrollFocus(ref);
  const markdown = useMemo(() => normalizeMath(text), [text]);
  const plugins = usePlugins(/```|~~~/.test(text), hasMath(markdown));
  const translations = useMemo(
    () => ({ copyCode: t("markdown.copyCode"), copied: t("message.copied"), copyTable: t("markdown.copyTable") }),
    [t],
  );
  return (
    <div ref={ref}>
      <Streamdown
        mode="streaming"
        isAnimating={streaming}
        plugins={plugins}
        components={COMPONENTS}
        rehypePlugins={REHYPE_PLUGINS}
        controls={CONTROLS}
        lineNumbers={false}
        codeBlockMaxHeight={0}
        tableMaxHeight={0}
        translations={translations}
        className="markdown"
      >
        {markdown}
      </Streamdown>
    </div>
  );
});
