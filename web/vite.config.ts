// How the two pages are built: everything from this origin, nothing inlined that the content security policy would refuse.
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** KaTeX lists every font as woff2, woff and ttf; each browser that runs this page reads woff2, so the others stay out. */
function woff2Only(): Plugin {
  return {
    name: "woff2-only",
    enforce: "pre",
    transform(code, id) {
      if (!/katex.*\.css/.test(id)) return null;
      return code.replace(/,\s*url\([^)]*\.(?:woff|ttf)\)\s*format\("(?:woff|truetype)"\)/g, "");
    },
  };
}

const LICENSES = "licenses.txt";

/** gzipped kB of JavaScript and CSS that a page loads before it shows anything; a build over it fails. */
const BUDGET_KB: Record<string, number> = { index: 400, docs: 640 };

function budget(): Plugin {
  return {
    name: "budget",
    apply: "build",
    generateBundle(_, bundle) {
      for (const entry of Object.values(bundle)) {
        if (entry.type !== "chunk" || !entry.isEntry) continue;
        const names = new Set<string>();
        const add = (name: string): void => {
          const file = bundle[name];
          if (!file || names.has(name)) return;
          names.add(name);
          if (file.type === "chunk") [...file.imports, ...(file.viteMetadata?.importedCss ?? [])].forEach(add);
        };
        add(entry.fileName);
        let bytes = 0;
        for (const name of names) {
          const file = bundle[name];
          if (file) bytes += gzipSync(file.type === "chunk" ? file.code : file.source).length;
        }
        const kB = Math.ceil(bytes / 1000);
        const limit = BUDGET_KB[entry.name] ?? 0;
        if (kB > limit) this.error(`the page ${entry.name} loads ${kB} kB, its budget is ${limit} kB (vite.config.ts)`);
        this.info(`the page ${entry.name} loads ${kB} of ${limit} kB`);
      }
    },
  };
}

/** Swagger UI comes bundled; what its bundle contains is licensed in files of its own. */
function nestedLicenses(): Plugin {
  return {
    name: "nested-licenses",
    apply: "build",
    enforce: "post",
    writeBundle({ dir }) {
      const folder = fileURLToPath(new URL("node_modules/swagger-ui-dist", import.meta.url));
      const texts = ["NOTICE", "swagger-ui-es-bundle.js.LICENSE.txt"].map((name) => readFileSync(join(folder, name), "utf8"));
      appendFileSync(join(dir ?? "", LICENSES), ["", "## Inside swagger-ui-dist", "", ...texts, ""].join("\n"));
    },
  };
}

const server = process.env["CHATWRIGHT_URL"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  plugins: [woff2Only(), react(), tailwindcss(), budget(), nestedLicenses()],
  resolve: {
    // A chosen set of grammars, and no WebAssembly engine: that would need 'wasm-unsafe-eval' and 600 kB.
    alias: [{ find: /^shiki$/, replacement: fileURLToPath(new URL("src/chat/shiki.ts", import.meta.url)) }],
  },
  build: {
    outDir: process.env["CHATWRIGHT_WEB_OUT"] ?? "../src/chatwright/web_dist",
    emptyOutDir: true,
    sourcemap: false,
    assetsInlineLimit: 0, // a font inlined as data: is refused by default-src 'self'
    modulePreload: { polyfill: false },
    license: { fileName: LICENSES },
    chunkSizeWarningLimit: 1600,
    rolldownOptions: { input: ["index.html", "docs.html"] },
  },
  server: { proxy: { "/v1": server, "/api": server, "/openapi.json": server, "/health": server } },
  test: {
    environment: "jsdom",
    setupFiles: ["test/setup.ts"],
    include: ["test/**/*.test.{ts,tsx}"],
    restoreMocks: true,
  },
});
