// The API's documentation: Swagger UI from this origin, with the chat page's session or key.
import "swagger-ui-dist/swagger-ui.css";
import "./styles.css";

import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";

import { loadSession } from "./account/api";
import { authorization } from "./api/key";
import { setUpLanguage } from "./i18n";
import { KeyDialog } from "./ui/KeyDialog";

const keyNeeded = new EventTarget();

interface Exchange {
  url: string;
  status: number;
  headers: Record<string, string>;
}

function showDocs(): void {
  SwaggerUI({
    url: "/openapi.json",
    dom_id: "#docs",
    validatorUrl: null, // the default sends the address of every page to swagger.io
    queryConfigEnabled: false,
    defaultModelsExpandDepth: -1, // hundreds of types, which stand with their operations too: drawing them took the page many seconds
    persistAuthorization: false,
    requestInterceptor: (request: Exchange) => {
      request.headers = { ...request.headers, ...authorization() };
      return request;
    },
    responseInterceptor: (response: Exchange) => {
      if (response.status === 401) keyNeeded.dispatchEvent(new Event("ask"));
      return response;
    },
  });
}

function KeyPrompt() {
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const ask = (): void => setOpen(true);
    keyNeeded.addEventListener("ask", ask);
    return () => keyNeeded.removeEventListener("ask", ask);
  }, []);
  return (
    <KeyDialog
      open={open}
      onClose={() => setOpen(false)}
      onSaved={() => {
        setOpen(false);
        showDocs();
      }}
    />
  );
}

setUpLanguage();
document.documentElement.style.colorScheme = "light"; // Swagger UI is light only
const root = document.getElementById("root");
if (!root) throw new Error("docs.html has no #root");
createRoot(root).render(
  <StrictMode>
    <KeyPrompt />
  </StrictMode>,
);
// Whoever is signed in needs no key; where that can not be told, a request says what is wrong.
void loadSession()
  .catch(() => undefined)
  .then(showDocs);
