// The highlighter's languages and themes: what people ask a chat about, a fifth of everything that Shiki has (11 MB).
// Takes the place of the package "shiki" (see vite.config.ts), so each grammar is still fetched only when it is needed.
import type { DynamicImportLanguageRegistration, LanguageInput } from "shiki/core";
import { createBundledHighlighter } from "shiki/core";
import { createJavaScriptRegexEngine } from "shiki/engine/javascript";

interface LanguageInfo {
  id: string;
  name: string;
  aliases?: string[];
  import: DynamicImportLanguageRegistration;
}

export const bundledLanguagesInfo: LanguageInfo[] = [
  { id: "bash", name: "Bash", aliases: ["sh", "shell", "shellscript", "zsh", "console"], import: () => import("shiki/langs/bash.mjs") },
  { id: "c", name: "C", aliases: ["h"], import: () => import("shiki/langs/c.mjs") },
  { id: "cpp", name: "C++", aliases: ["c++", "hpp"], import: () => import("shiki/langs/cpp.mjs") },
  { id: "csharp", name: "C#", aliases: ["c#", "cs"], import: () => import("shiki/langs/csharp.mjs") },
  { id: "css", name: "CSS", import: () => import("shiki/langs/css.mjs") },
  { id: "dart", name: "Dart", import: () => import("shiki/langs/dart.mjs") },
  { id: "diff", name: "Diff", aliases: ["patch"], import: () => import("shiki/langs/diff.mjs") },
  { id: "docker", name: "Dockerfile", aliases: ["dockerfile"], import: () => import("shiki/langs/docker.mjs") },
  { id: "elixir", name: "Elixir", import: () => import("shiki/langs/elixir.mjs") },
  { id: "erlang", name: "Erlang", import: () => import("shiki/langs/erlang.mjs") },
  { id: "go", name: "Go", aliases: ["golang"], import: () => import("shiki/langs/go.mjs") },
  { id: "graphql", name: "GraphQL", aliases: ["gql"], import: () => import("shiki/langs/graphql.mjs") },
  { id: "haskell", name: "Haskell", aliases: ["hs"], import: () => import("shiki/langs/haskell.mjs") },
  { id: "html", name: "HTML", aliases: ["htm"], import: () => import("shiki/langs/html.mjs") },
  { id: "ini", name: "INI", aliases: ["properties"], import: () => import("shiki/langs/ini.mjs") },
  { id: "java", name: "Java", import: () => import("shiki/langs/java.mjs") },
  { id: "javascript", name: "JavaScript", aliases: ["js", "mjs", "cjs"], import: () => import("shiki/langs/javascript.mjs") },
  { id: "json", name: "JSON", aliases: ["jsonc", "json5"], import: () => import("shiki/langs/json.mjs") },
  { id: "jsx", name: "JSX", import: () => import("shiki/langs/jsx.mjs") },
  { id: "julia", name: "Julia", aliases: ["jl"], import: () => import("shiki/langs/julia.mjs") },
  { id: "kotlin", name: "Kotlin", aliases: ["kt"], import: () => import("shiki/langs/kotlin.mjs") },
  { id: "latex", name: "LaTeX", aliases: ["tex"], import: () => import("shiki/langs/latex.mjs") },
  { id: "lua", name: "Lua", import: () => import("shiki/langs/lua.mjs") },
  { id: "makefile", name: "Makefile", aliases: ["make"], import: () => import("shiki/langs/makefile.mjs") },
  { id: "markdown", name: "Markdown", aliases: ["md"], import: () => import("shiki/langs/markdown.mjs") },
  { id: "matlab", name: "MATLAB", import: () => import("shiki/langs/matlab.mjs") },
  { id: "nginx", name: "nginx", import: () => import("shiki/langs/nginx.mjs") },
  { id: "perl", name: "Perl", import: () => import("shiki/langs/perl.mjs") },
  { id: "php", name: "PHP", import: () => import("shiki/langs/php.mjs") },
  { id: "powershell", name: "PowerShell", aliases: ["ps1"], import: () => import("shiki/langs/powershell.mjs") },
  { id: "python", name: "Python", aliases: ["py", "python3"], import: () => import("shiki/langs/python.mjs") },
  { id: "r", name: "R", import: () => import("shiki/langs/r.mjs") },
  { id: "ruby", name: "Ruby", aliases: ["rb"], import: () => import("shiki/langs/ruby.mjs") },
  { id: "rust", name: "Rust", aliases: ["rs"], import: () => import("shiki/langs/rust.mjs") },
  { id: "scala", name: "Scala", import: () => import("shiki/langs/scala.mjs") },
  { id: "scss", name: "SCSS", aliases: ["sass"], import: () => import("shiki/langs/scss.mjs") },
  { id: "sql", name: "SQL", aliases: ["mysql", "postgresql", "sqlite"], import: () => import("shiki/langs/sql.mjs") },
  { id: "swift", name: "Swift", import: () => import("shiki/langs/swift.mjs") },
  { id: "toml", name: "TOML", import: () => import("shiki/langs/toml.mjs") },
  { id: "tsx", name: "TSX", import: () => import("shiki/langs/tsx.mjs") },
  { id: "typescript", name: "TypeScript", aliases: ["ts"], import: () => import("shiki/langs/typescript.mjs") },
  { id: "vue", name: "Vue", import: () => import("shiki/langs/vue.mjs") },
  { id: "xml", name: "XML", aliases: ["svg"], import: () => import("shiki/langs/xml.mjs") },
  { id: "yaml", name: "YAML", aliases: ["yml"], import: () => import("shiki/langs/yaml.mjs") },
  { id: "zig", name: "Zig", import: () => import("shiki/langs/zig.mjs") },
];

export const bundledLanguages: Record<string, LanguageInput> = Object.fromEntries(
  bundledLanguagesInfo.flatMap(({ id, aliases = [], import: load }) => [id, ...aliases].map((name) => [name, load])),
);

export const createHighlighter = createBundledHighlighter({
  langs: bundledLanguages,
  themes: {
    "github-light-default": () => import("shiki/themes/github-light-default.mjs"),
    "github-dark-default": () => import("shiki/themes/github-dark-default.mjs"),
  },
  engine: createJavaScriptRegexEngine,
});
