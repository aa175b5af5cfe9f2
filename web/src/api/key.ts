// What a request carries to say who asks: the session's token where somebody is signed in, else the API key.
// The key is in this tab's session storage only, shared by the chat page and /docs, never in a cookie or local storage.
const STORAGE_KEY = "chatwright.apiKey";

// Beside the session's cookie, which a page can not read and which comes along by itself.
let csrfToken: string | null = null;

export function apiKey(): string | null {
  return sessionStorage.getItem(STORAGE_KEY);
}

export function setApiKey(key: string | null): void {
  if (key) sessionStorage.setItem(STORAGE_KEY, key);
  else sessionStorage.removeItem(STORAGE_KEY);
}

export function setCsrfToken(token: string | null): void {
  csrfToken = token;
}

/** A key that lies in this tab counts for nothing while somebody is signed in: the server would take it before the session. */
export function authorization(): Record<string, string> {
  if (csrfToken) return { "X-CSRF-Token": csrfToken };
  const key = apiKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}
