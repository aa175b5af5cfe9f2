// The typed client for everything that is not a stream.
import createClient from "openapi-fetch";

import { errorFrom } from "./errors";
import { authorization } from "./key";
import type { components, paths } from "./schema";

export type Model = components["schemas"]["ServedModel"];

export async function listModels(signal?: AbortSignal): Promise<Model[]> {
  // `fetch` is looked up at call time, so that tests can replace it.
  const client = createClient<paths>({ baseUrl: window.location.origin, fetch: (request) => fetch(request) });
  const { data, error, response } = await client.GET("/v1/models", { headers: authorization(), signal });
  if (!data) throw errorFrom(response.status, error, response.headers.get("Retry-After"));
  return data.data;
}
