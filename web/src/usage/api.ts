// The typed calls of usage and limits.
import { answer, client } from "../api/client";
import type { components } from "../api/schema";

type Schemas = components["schemas"];
export type OwnUsage = Schemas["OwnUsage"];
export type UsageOfAll = Schemas["UsageOfAll"];
export type CountedLimit = Schemas["CountedLimit"];
export type SetLimit = Schemas["SetLimitBody"];

export const FIGURES = ["tokens_per_month", "tokens_per_minute", "requests_per_minute", "concurrent_requests"] as const;
export type Figure = (typeof FIGURES)[number];

/** The query of usage, whoever's it is. */
export const USAGE = ["usage"];

export const loadOwnUsage = (days: number, signal?: AbortSignal): Promise<OwnUsage> =>
  answer(client().GET("/api/usage", { params: { query: { days } }, signal }));

export const loadUsageOfAll = (days: number, by: "user" | "key" | "model", signal?: AbortSignal): Promise<UsageOfAll> =>
  answer(client().GET("/api/usage/all", { params: { query: { days, by } }, signal }));

export const setLimit = (body: SetLimit): Promise<unknown> => answer(client().PUT("/api/limits", { body }));

export const removeLimit = (limit_id: string): Promise<unknown> =>
  answer(client().DELETE("/api/limits/{limit_id}", { params: { path: { limit_id } } }));
