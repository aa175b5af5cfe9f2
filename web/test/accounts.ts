// A server with accounts in the test's hand: it keeps users, keys and sessions, and notes what each request carried.
import { vi } from "vitest";

import type { ApiKey, BrowserSession, Role, Session, User } from "../src/account/api";
import { refusal } from "./server";

export const PASSWORD = "correct horse battery";
const NOW = 1_790_000_000;

const list = (data: unknown) => Response.json({ object: "list", data });

export interface Asked {
  method: string;
  path: string;
  body: Record<string, unknown>;
  headers: Headers;
}

export function person(name: string, role: Role = "member", status: User["status"] = "active"): User {
  return { object: "user", id: `user-${name}`, email: `${name}@example.org`, name, role, status, created_at: NOW };
}

export class AccountServer {
  users: User[] = [person("ann", "owner"), person("li")];
  keys: ApiKey[] = [];
  browsers: BrowserSession[] = [this.browser("here", true), this.browser("there", false)];
  signedIn: User | undefined;
  csrf = "csrf-1";
  links: Record<string, { purpose: "setup" | "invitation" | "reset"; email: string | null }> = {};
  setupNeeded = false;
  provider: Session["provider"] = null;
  down = false;
  /** When set, the next request but those for the session is refused like this. */
  refusal: Response | undefined;
  readonly asked: Asked[] = [];
  /** What a test answers itself, by "METHOD path", before anything else that wants somebody signed in. */
  readonly answers: Record<string, (asked: Asked & { query: URLSearchParams }) => Response> = {};

  constructor() {
    vi.stubGlobal("fetch", this.#fetch);
  }

  browser(id: string, current: boolean): BrowserSession {
    return { object: "browser_session", id, created_at: NOW, seen_at: NOW + 60, expires_at: NOW + 3600, current };
  }

  key(name: string, more: Partial<ApiKey> = {}): ApiKey {
    return {
      object: "api_key",
      id: `key-${name}`,
      name,
      prefix: "sk-cw-AbC",
      scopes: ["inference"],
      created_at: NOW,
      expires_at: null,
      revoked_at: null,
      used_at: null,
      ...more,
    };
  }

  last(method: string, path: string): Asked {
    const found = this.asked.findLast((one) => one.method === method && one.path === path);
    if (!found) throw new Error(`nobody asked ${method} ${path}: ${this.asked.map((one) => one.path).join(" ")}`);
    return found;
  }

  get session(): Session {
    const admin = this.signedIn && this.signedIn.role !== "member";
    return {
      object: "session",
      accounts: true,
      setup_needed: this.setupNeeded,
      provider: this.provider,
      user: this.signedIn ?? null,
      scopes: this.signedIn ? ["files", "fine-tuning", "inference", ...(admin ? ["admin"] : [])] : [],
      csrf_token: this.signedIn ? this.csrf : null,
    };
  }

  readonly #fetch = async (input: Request | string, init?: RequestInit): Promise<Response> => {
    if (this.down) throw new TypeError("Failed to fetch");
    const request = typeof input === "string" ? new Request(new URL(input, "http://localhost"), { ...init, signal: null }) : input;
    const { pathname: path, searchParams: query } = new URL(request.url);
    const text = await request.clone().text();
    const body = (text ? JSON.parse(text) : {}) as Record<string, unknown>;
    const asked = { method: request.method, path, body, headers: request.headers };
    this.asked.push(asked);
    const own = this.answers[`${request.method} ${path}`];
    if (own && this.signedIn && !this.refusal) return own({ ...asked, query });
    return this.#answer(request.method, path, body, request.headers);
  };

  #answer(method: string, path: string, body: Record<string, unknown>, headers: Headers): Response {
    if (path === "/api/session" && method === "GET") return Response.json(this.session);
    if (path === "/api/session" && method === "POST") {
      const user = this.users.find(({ email }) => email === body["email"]);
      if (!user || body["password"] !== PASSWORD) {
        return refusal(401, "not_signed_in", "The email address or the password is wrong.");
      }
      this.signedIn = user;
      return Response.json(this.session);
    }
    if (path === "/api/session") {
      this.signedIn = undefined;
      return Response.json(this.session);
    }
    if (path.startsWith("/api/welcome")) {
      const link = this.links[String(body["token"])];
      if (!link) return refusal(404, "not_found", "This link is not good any more: ask for a new one.");
      if (path.endsWith("/look")) return Response.json({ object: "link", ...link });
      if (String(body["password"]).startsWith("weak")) return refusal(400, "weak_password", "Choose another one.");
      const email = link.email ?? String(body["email"]);
      this.signedIn = this.users.find((user) => user.email === email) ?? {
        ...person(email.split("@")[0] ?? "", "owner"),
        email,
      };
      this.setupNeeded = false;
      return Response.json(this.session);
    }
    if (!this.signedIn) return refusal(401, "invalid_api_key", "Sign in, or send an API key.");
    if (method !== "GET" && headers.get("X-CSRF-Token") !== this.csrf) return refusal(403, "csrf", "A token is missing.");
    if (this.refusal) {
      const refused = this.refusal;
      this.refusal = undefined;
      return refused;
    }
    const id = path.split("/").at(-1);
    switch (`${method} ${path.replace(/(users|keys|sessions)\/[^/]+/g, "$1/ID")}`) {
      case "GET /api/conversations":
        return Response.json({ object: "list", data: [], first_id: null, last_id: null, has_more: false });
      case "GET /v1/models":
        return list([{ id: "tiny", object: "model", created: 1, owned_by: "test" }]);
      case "PATCH /api/account":
        this.signedIn = { ...this.signedIn, name: String(body["name"]).trim() };
        return Response.json(this.signedIn);
      case "POST /api/account/password":
        if (body["old_password"] !== PASSWORD) return refusal(400, "wrong_password", "The old password is wrong.");
        this.csrf = "csrf-2";
        this.browsers = this.browsers.filter(({ current }) => current);
        return Response.json(this.session);
      case "GET /api/account/sessions":
        return list(this.browsers);
      case "DELETE /api/account/sessions":
        this.browsers = this.browsers.filter(({ current }) => current);
        return list(this.browsers);
      case "DELETE /api/account/sessions/ID":
        this.browsers = this.browsers.filter((browser) => browser.id !== id);
        return Response.json({ id, deleted: true });
      case "GET /api/keys":
      case "GET /api/users/ID/keys":
        return list(this.keys);
      case "POST /api/keys": {
        const made = this.key(String(body["name"]), body as Partial<ApiKey>);
        this.keys.push(made);
        return Response.json({ ...made, key: "sk-cw-secret" });
      }
      case "DELETE /api/keys/ID":
      case "DELETE /api/users/ID/keys/ID":
        this.keys = this.keys.map((key) => (key.id === id ? { ...key, revoked_at: NOW } : key));
        return Response.json(this.keys.find((key) => key.id === id));
      case "GET /api/users":
        return list(this.users);
      case "POST /api/users": {
        const user = { ...person(String(body["email"]).split("@")[0] ?? ""), role: body["role"], status: "invited" };
        this.users.push(user as User);
        return Response.json({ ...user, url: "http://0.0.0.0:8000/#welcome=TOKEN" });
      }
      case "POST /api/users/ID/link":
        return Response.json({ object: "welcome_link", url: "https://chat.example.org/#welcome=TOKEN" });
      case "PATCH /api/users/ID":
        this.users = this.users.map((user) => (user.id === id ? { ...user, ...body } : user));
        return Response.json(this.users.find((user) => user.id === id));
      case "DELETE /api/users/ID":
        this.users = this.users.filter((user) => user.id !== id);
        return Response.json({ id, deleted: true });
      default:
        return refusal(404, "not_found", "There is nothing of that id.");
    }
  }
}
