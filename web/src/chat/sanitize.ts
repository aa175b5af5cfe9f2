// What a model's answer may become on the page. It is hostile input: a model repeats whatever it was fed.
import type { Options } from "rehype-sanitize";
import { defaultSchema } from "rehype-sanitize";

const attributes = defaultSchema.attributes ?? {};

/** An id would let an answer shadow the page's own elements; footnotes need theirs, under a prefix of their own. */
const FOOTNOTE_ID = ["id", /^user-content-fn/] as [string, RegExp];

export const SCHEMA: Options = {
  ...defaultSchema,
  clobberPrefix: "", // remark-rehype has put "user-content-" before footnote ids already; no other id survives
  tagNames: (defaultSchema.tagNames ?? []).filter((name) => !["picture", "source"].includes(name)),
  protocols: { ...defaultSchema.protocols, href: ["http", "https", "mailto"], src: [], cite: [], longDesc: [] },
  attributes: {
    ...attributes,
    "*": (attributes["*"] ?? []).filter((name) => !["id", "name", "itemId", "longDesc"].includes(String(name))),
    a: [...(attributes["a"] ?? []), FOOTNOTE_ID],
    li: [...(attributes["li"] ?? []), FOOTNOTE_ID],
    code: [...(attributes["code"] ?? []), "metastring"],
  },
};

/** The target of a link that may be followed, else undefined: http, https, mailto, or a footnote of the same answer. */
export function safeHref(href: string | undefined): string | undefined {
  if (!href) return undefined;
  if (href.startsWith("#user-content-fn")) return href;
  try {
    const url = new URL(href); // relative addresses throw: an answer has no business inside this application
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : undefined;
  } catch {
    return undefined;
  }
}
