// The chat page.
import "./styles.css";

import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { App } from "./App";
import { setUpClipboard } from "./clipboard";
import { setUpLanguage } from "./i18n";
import { setUpTheme } from "./theme";

setUpTheme();
setUpLanguage();
setUpClipboard();

const queries = new QueryClient({ defaultOptions: { queries: { retry: false, networkMode: "always" } } });
const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
