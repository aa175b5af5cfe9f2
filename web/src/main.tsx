// The chat page.
import "./styles.css";

import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { Gate, QUERY_OPTIONS } from "./account/Gate";
import { watchArrivals } from "./account/arrival";
import { App } from "./App";
import { setUpClipboard } from "./clipboard";
import { setUpLanguage } from "./i18n";
import { setUpTheme } from "./theme";

watchArrivals();
setUpTheme();
setUpLanguage();
setUpClipboard();

const queries = new QueryClient({ defaultOptions: QUERY_OPTIONS });
const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <Gate>
        <App />
      </Gate>
    </QueryClientProvider>
  </StrictMode>,
);
