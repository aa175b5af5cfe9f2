// The typed client for everything that is not a stream.
import i18next from "i18next";
import createClient from "openapi-fetch";

import { asApiError, errorFrom } from "./errors";
import { authorization } from "./key";
import type { components, paths } from "./schema";

export type Model = components["schemas"]["ServedModel"];

/** Of whoever is at the page: a session, or the key of this tab. `fetch` is looked up at call time, so that tests can replace it. */
export function client() {
  return createClient<paths>({
    baseUrl: window.location.origin,
    fetch: (request) => fetch(request),
    headers: { ...authorization(), "Accept-Language": i18next.language }, // the server's sentences are shown to people
  });
}

/** The answer's body. Every failure is an ApiError. */
export async function answer<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await call.catch((reason: unknown) => {
    throw asApiError(reason);
  });
  if (!response.ok || data === undefined) throw errorFrom(response.status, error, response.headers.get("Retry-After"));
  return data;
}

export const listModels = async (signal?: AbortSignal): Promise<Model[]> =>
  (await answer(client().GET("/v1/models", { signal }))).data;

/** One that no list has: a checkpoint. */
export const findModel = (name: string, signal?: AbortSignal): Promise<Model> =>
  answer(client().GET("/v1/models/{name}", { params: { path: { name } }, signal }));
