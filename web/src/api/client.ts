// The typed client for everything that is not a stream.
import createClient from "openapi-fetch";

import { errorFrom } from "./errors";
import { authorization } from "./key";
import type { paths } from "./schema";

export interface Model {
  id: string;
  owned_by: string;
  /** ISO 639-1 codes of the languages the model speaks; absent when unknown. */
  languages?: string[] | null;
  /** In tokens. */
  context_length?: number | null;
}

export async function listModels(signal?: AbortSignal): Promise<Model[]> {
  // `fetch` is looked up at call time, so that tests can replace it.
  const client = createClient<paths>({ baseUrl: window.location.origin, fetch: (request) => fetch(request) });
  const { data, error, response } = await client.GET("/v1/models", { headers: authorization(), signal });
  if (!data) throw errorFrom(response.status, error, response.headers.get("Retry-After"));
  return data.data;
}
