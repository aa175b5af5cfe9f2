// TeX's own delimiters \( \) and \[ \], which models like to write, turned into the $$ that the Markdown parser reads.
const CODE_OR_MATH = /(```[\s\S]*?(?:```|$)|~~~[\s\S]*?(?:~~~|$)|`[^`\n]*`)|\\\[([\s\S]+?)\\\]|\\\(([^\n]+?)\\\)/g;
const FENCE = "$$";

/** A single dollar sign stays what it mostly is: money. Code is left alone. */
export function normalizeMath(markdown: string): string {
  return markdown.replace(CODE_OR_MATH, (all, code?: string, display?: string, inline?: string) => {
    if (code !== undefined) return all;
    if (display !== undefined) return ["", FENCE, display.trim(), FENCE, ""].join("\n");
    return FENCE + (inline ?? "") + FENCE;
  });
}

export function hasMath(markdown: string): boolean {
  return markdown.includes(FENCE);
}
