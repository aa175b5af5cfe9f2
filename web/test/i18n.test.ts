// Both languages say everything the page says.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { describe, expect, test } from "vitest";

import { detectLanguage } from "../src/i18n";
import en from "../src/i18n/en.json";
import zh from "../src/i18n/zh.json";

const PLURAL = /_(one|other)$/;
const stems = (catalogue: object) => [...new Set(Object.keys(catalogue).map((key) => key.replace(PLURAL, "")))].sort();
const parameters = (text: string) => [...text.matchAll(/{{(\w+)}}/g)].map(([, name]) => name).sort();

function sources(folder: string): string {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => /\.tsx?$/.test(name))
    .map((name) => readFileSync(join(folder, name), "utf8"))
    .join("\n");
}

describe("catalogues", () => {
  test("have the same keys", () => {
    expect(stems(zh)).toEqual(stems(en));
  });

  test("use the same parameters in every sentence", () => {
    const chinese: Record<string, string> = zh;
    for (const [key, text] of Object.entries(en)) {
      const translation = chinese[key] ?? chinese[key.replace(PLURAL, "_other")] ?? "";
      expect([key, parameters(translation)]).toEqual([key, parameters(text)]);
    }
  });

  test("contain every key that the sources ask for, and no other", () => {
    const code = sources("src");
    const asked = new Set([...code.matchAll(/"([a-z]+(?:\.[a-zA-Z0-9]+)+)"/g)].map(([, key]) => key));
    const prefixes = [...code.matchAll(/t\(`([a-z.]+)\$\{/gi)].map(([, prefix]) => prefix ?? "");
    const known = stems(en);
    const namespaces = new Set(known.map((key) => key.split(".")[0]));
    const missing = [...asked].filter((key) => key && namespaces.has(key.split(".")[0] ?? "") && !known.includes(key));
    const unused = known.filter((key) => !asked.has(key) && !prefixes.some((prefix) => key.startsWith(prefix)));
    expect({ missing, unused }).toEqual({ missing: [], unused: [] });
  });
});

describe("the page's language", () => {
  test.each([
    [null, ["zh-CN", "en"], "zh"],
    [null, ["zh-Hant-TW"], "zh"],
    [null, ["en-GB", "zh"], "en"],
    [null, ["fr-FR", "zh"], "zh"],
    [null, ["fr-FR"], "en"],
    ["en", ["zh-CN"], "en"],
    ["zh", ["en"], "zh"],
    ["klingon", ["en"], "en"],
  ] as const)("stored %s, browser %s: %s", (stored, preferred, expected) => {
    expect(detectLanguage(stored, preferred)).toBe(expected);
  });
});
