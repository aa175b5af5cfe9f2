// The typed calls of accounts. They never carry an API key: on /api the session counts.
import i18next from "i18next";
import createClient from "openapi-fetch";

import { answer } from "../api/client";
import { ApiError } from "../api/errors";
import { authorization, setCsrfToken } from "../api/key";
import type { components, paths } from "../api/schema";

type Schemas = components["schemas"];
export type Session = Schemas["SessionObject"];
export type User = Schemas["UserObject"];
export type Role = User["role"];
export type ApiKey = Schemas["KeyObject"];
export type Scope = ApiKey["scopes"][number];
export type BrowserSession = Schemas["BrowserSession"];
export type WelcomeLink = Schemas["LinkObject"];

export const NO_ACCOUNTS: Session = {
  object: "session",
  accounts: false,
  setup_needed: false,
  provider: null,
  user: null,
  scopes: [],
  csrf_token: null,
};

export function client() {
  const { Authorization: _, ...token } = authorization();
  return createClient<paths>({
    baseUrl: window.location.origin,
    fetch: (request) => fetch(request), // looked up at call time, so that tests can replace it
    headers: { ...token, "Accept-Language": i18next.language }, // the server's sentences are shown to people
  });
}

/** The session with its token kept for the requests to come, those of the chat too. */
function keep(session: Session): Session {
  setCsrfToken(session.csrf_token);
  return session;
}

/** Who is signed in. A server that does not tell has no accounts, as everybody may ask one that has. */
export async function loadSession(signal?: AbortSignal): Promise<Session> {
  try {
    return keep(await answer(client().GET("/api/session", { signal })));
  } catch (error) {
    if (error instanceof ApiError && ["key", "forbidden", "notFound"].includes(error.kind)) return keep(NO_ACCOUNTS);
    throw error;
  }
}

export const signIn = async (email: string, password: string): Promise<Session> =>
  keep(await answer(client().POST("/api/session", { body: { email, password } })));

export const signOut = async (): Promise<Session> => keep(await answer(client().DELETE("/api/session")));

export const lookAtLink = (token: string): Promise<WelcomeLink> =>
  answer(client().POST("/api/welcome/look", { body: { token } }));

export const spendLink = async (body: Schemas["WelcomeBody"]): Promise<Session> =>
  keep(await answer(client().POST("/api/welcome", { body })));

export const rename = (name: string): Promise<User> => answer(client().PATCH("/api/account", { body: { name } }));

export const changePassword = async (old_password: string, new_password: string): Promise<Session> =>
  keep(await answer(client().POST("/api/account/password", { body: { old_password, new_password } })));

export const listSessions = async (signal?: AbortSignal): Promise<BrowserSession[]> =>
  (await answer(client().GET("/api/account/sessions", { signal }))).data;

export const endSession = (session_id: string): Promise<unknown> =>
  answer(client().DELETE("/api/account/sessions/{session_id}", { params: { path: { session_id } } }));

export const endOtherSessions = (): Promise<unknown> => answer(client().DELETE("/api/account/sessions"));

/** One's own keys, or those of a user. */
export const listKeys = async (user_id?: string, signal?: AbortSignal): Promise<ApiKey[]> =>
  (
    await answer(
      user_id === undefined
        ? client().GET("/api/keys", { signal })
        : client().GET("/api/users/{user_id}/keys", { params: { path: { user_id } }, signal }),
    )
  ).data;

export const makeKey = (body: Schemas["MakeKeyBody"]): Promise<Schemas["NewKey"]> =>
  answer(client().POST("/api/keys", { body }));

export const revokeKey = (key_id: string, user_id?: string): Promise<ApiKey> =>
  answer(
    user_id === undefined
      ? client().DELETE("/api/keys/{key_id}", { params: { path: { key_id } } })
      : client().DELETE("/api/users/{user_id}/keys/{key_id}", { params: { path: { user_id, key_id } } }),
  );

export const listUsers = async (signal?: AbortSignal): Promise<User[]> =>
  (await answer(client().GET("/api/users", { signal }))).data;

export const invite = async (body: Schemas["AddUserBody"]): Promise<string> =>
  reachable((await answer(client().POST("/api/users", { body }))).url);

export const makeLink = async (user_id: string): Promise<string> =>
  reachable((await answer(client().POST("/api/users/{user_id}/link", { params: { path: { user_id } }, body: {} }))).url);

export const changeUser = (user_id: string, body: Schemas["ChangeUserBody"]): Promise<User> =>
  answer(client().PATCH("/api/users/{user_id}", { params: { path: { user_id } }, body }));

export const removeUser = (user_id: string): Promise<unknown> =>
  answer(client().DELETE("/api/users/{user_id}", { params: { path: { user_id } } }));

/** A server that listens everywhere makes links to "everywhere", which opens nowhere: then this page's own address. */
function reachable(url: string): string {
  return url.replace(/^https?:\/\/(0\.0\.0\.0|\[::\])(:\d+)?(?=\/)/, window.location.origin);
}
