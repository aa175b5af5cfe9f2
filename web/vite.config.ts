// How the two pages are built: everything from this origin, nothing inlined that the content security policy would refuse.
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { fileURLToPath } from "node:url";
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

const server = process.env["CHATWRIGHT_URL"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  plugins: [woff2Only(), react(), tailwindcss()],
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
    license: { fileName: "third-party-licenses.md" },
    chunkSizeWarningLimit: 1600,
    rolldownOptions: { input: ["index.html", "docs.html"] },
  },
  server: { proxy: { "/v1": server, "/openapi.json": server, "/health": server } },
  test: {
    environment: "jsdom",
    setupFiles: ["test/setup.ts"],
    include: ["test/**/*.test.{ts,tsx}"],
    restoreMocks: true,
  },
});
