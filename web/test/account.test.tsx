// Signing in, and the pages of an account, as a person uses them.
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, describe, expect, test, vi } from "vitest";

import { Gate, QUERY_OPTIONS } from "../src/account/Gate";
import { forgetArrival, watchArrivals } from "../src/account/arrival";
import { setApiKey, setCsrfToken } from "../src/api/key";
import { App } from "../src/App";
import { setLanguage } from "../src/i18n";
import { AccountServer, PASSWORD, person } from "./accounts";
import { FakeServer, refusal } from "./server";

let server: AccountServer;
let user: ReturnType<typeof userEvent.setup>;

beforeEach(() => {
  server = new AccountServer();
  user = userEvent.setup();
  window.location.hash = "";
  setCsrfToken(null);
  forgetArrival();
});

function open(hash = ""): void {
  window.location.hash = hash;
  watchArrivals();
  render(
    <QueryClientProvider client={new QueryClient({ defaultOptions: QUERY_OPTIONS })}>
      <Gate>
        <App />
      </Gate>
    </QueryClientProvider>,
  );
}

/** The page, with somebody signed in. */
async function openAs(name: string, hash = ""): Promise<void> {
  server.signedIn = server.users.find((user) => user.name === name);
  open(hash);
  await screen.findByTestId("account");
}

async function signIn(name: string, password = PASSWORD): Promise<void> {
  await user.type(await screen.findByTestId("email"), `${name}@example.org`);
  await user.type(screen.getByTestId("password"), `${password}{Enter}`);
}

async function lookAgain(): Promise<void> {
  await act(async () => {
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
  });
}

const row = (email: string) => within(screen.getByTestId("users")).getByText(email).closest("button") as HTMLElement;
const dialog = (testId: string) => within(screen.getByTestId(testId));

describe("the door", () => {
  test("shows sign in and not the chat, then the chat with the session's token", async () => {
    open();
    await signIn("ann");
    await screen.findByTestId("composer");
    await waitFor(() => expect(screen.getByTestId("model")).toHaveValue("tiny"));
    expect(screen.queryByTestId("sign-in")).not.toBeInTheDocument();
    expect(server.last("GET", "/v1/models").headers.get("X-CSRF-Token")).toBe("csrf-1");
    expect(server.asked.filter(({ path }) => path === "/v1/models")).toHaveLength(1);
    expect(JSON.stringify({ ...localStorage, ...sessionStorage })).not.toContain("csrf-1");
  });

  test("asks for nothing behind it before somebody is signed in", async () => {
    open("#/users");
    await screen.findByTestId("sign-in");
    expect(screen.queryByTestId("composer")).not.toBeInTheDocument();
    expect(server.asked.map(({ path }) => path)).toEqual(["/api/session"]);
  });

  test("says in the page's language what was wrong, and forgets the password only", async () => {
    act(() => setLanguage("zh"));
    open();
    await signIn("ann", "wrong");
    expect(await screen.findByRole("alert")).toHaveTextContent("The email address or the password is wrong.");
    expect(server.last("POST", "/api/session").headers.get("Accept-Language")).toBe("zh");
    expect(screen.getByTestId("email")).toHaveValue("ann@example.org");
    expect(screen.getByTestId("password")).toHaveValue("");
    expect(screen.getByTestId("sign-in-button")).toHaveAccessibleName("登录");
  });

  test("a key that lies in this tab counts for nothing beside a session", async () => {
    setApiKey("sk-of-somebody-else");
    open();
    await signIn("ann");
    await screen.findByTestId("composer");
    await waitFor(() => expect(server.last("GET", "/v1/models")).toBeDefined());
    for (const { headers } of server.asked) expect(headers.get("Authorization")).toBeNull();
  });

  test.each([undefined, "sk-right"])("a server without accounts shows the chat (key: %s)", async (key) => {
    const old = new FakeServer();
    old.key = key;
    const { fetch: answer } = globalThis;
    vi.stubGlobal("fetch", async (input: Request | string, init?: RequestInit) => {
      const { pathname } = new URL(typeof input === "string" ? input : input.url, "http://localhost");
      if (pathname !== "/api/session" || key) return answer(input, init);
      return Response.json({ accounts: false, setup_needed: false, user: null, scopes: [], csrf_token: null });
    });
    open();
    expect(await screen.findByTestId("composer")).toBeInTheDocument();
    expect(screen.queryByTestId("account")).not.toBeInTheDocument();
    await waitFor(() => expect(screen.queryAllByTestId("key-input")).toHaveLength(key ? 1 : 0));
  });

  test("a server that is down, or without its database, shows no door to guess at", async () => {
    server.down = true;
    open();
    expect(await screen.findByTestId("error")).toHaveAttribute("data-kind", "network");
    expect(screen.queryByTestId("composer")).not.toBeInTheDocument();
    server.down = false;
    await user.click(screen.getByTestId("retry"));
    expect(await screen.findByTestId("sign-in")).toBeInTheDocument();
  });

  test("without any user it names the link on the console, and opens when it was used", async () => {
    server.setupNeeded = true;
    open();
    expect(await screen.findByTestId("set-up")).toHaveTextContent("Open the link that it printed");
    server.setupNeeded = false;
    await user.click(screen.getByRole("button", { name: "I have an account now" }));
    expect(await screen.findByTestId("sign-in")).toBeInTheDocument();
  });

  test("signed out in another tab: this one closes too when it is looked at, and keeps nothing", async () => {
    await openAs("ann", "#/users");
    expect(await screen.findByText("li@example.org")).toBeInTheDocument();
    server.signedIn = undefined;
    await lookAgain();
    expect(await screen.findByTestId("sign-in")).toBeInTheDocument();
    expect(screen.queryByText("li@example.org")).not.toBeInTheDocument();
    server.users[1] = person("wei");
    await signIn("ann");
    await waitFor(() => expect(screen.getByText("wei@example.org")).toBeInTheDocument());
    expect(screen.queryByText("li@example.org")).not.toBeInTheDocument();
  });

  test("another person in the same tab starts with a chat of their own", async () => {
    await openAs("ann");
    await user.type(screen.getByTestId("composer"), "a secret draft");
    server.signedIn = server.users[1];
    server.csrf = "csrf-9";
    await lookAgain();
    await waitFor(() => expect(screen.getByTestId("account")).toHaveAccessibleName("Account: li"));
    expect(screen.getByTestId("composer")).toHaveValue("");
  });

  test("a session that is over leads back to the door when a message is sent", async () => {
    await openAs("ann");
    await waitFor(() => expect(screen.getByTestId("model")).toHaveValue("tiny"));
    server.signedIn = undefined;
    await user.type(screen.getByTestId("composer"), "Hello{Enter}");
    expect(await screen.findByTestId("sign-in")).toBeInTheDocument();
    expect(screen.queryByTestId("key-input")).not.toBeInTheDocument();
  });

  test("a session that was renewed in another window goes on by itself, with what was asked", async () => {
    await openAs("ann");
    await waitFor(() => expect(screen.getByTestId("model")).toHaveValue("tiny"));
    server.csrf = "csrf-of-a-newer-session";
    await user.type(screen.getByTestId("composer"), "Hello{Enter}");
    const asked = () => server.asked.filter(({ method, path }) => method === "POST" && path === "/api/conversations");
    await waitFor(() => expect(asked()).toHaveLength(2));
    expect(asked().map(({ headers }) => headers.get("X-CSRF-Token"))).toEqual(["csrf-1", "csrf-of-a-newer-session"]);
  });

  test("a session that is refused for no reason that can be found out is not asked for again and again", async () => {
    await openAs("ann");
    await waitFor(() => expect(screen.getByTestId("model")).toHaveValue("tiny"));
    server.refusal = refusal(401, "invalid_api_key", "No.");
    await user.type(screen.getByTestId("composer"), "Hello{Enter}");
    expect(await screen.findByTestId("error")).toHaveTextContent("You are not signed in any more");
    expect(server.asked.filter(({ method, path }) => method === "POST" && path === "/api/conversations")).toHaveLength(1);
  });

  test("the same on a page of the account, after one click", async () => {
    await openAs("ann", "#/account");
    server.csrf = "csrf-of-a-newer-session";
    await user.click(await screen.findByTestId("save-name"));
    await user.click(within(await screen.findByTestId("failure")).getByRole("button"));
    await user.click(screen.getByTestId("save-name"));
    await waitFor(() => expect(screen.queryByTestId("failure")).not.toBeInTheDocument());
  });
});

describe("an identity provider", () => {
  test("is offered before the password, at the address that the server names", async () => {
    server.provider = { name: "Example", url: "https://chat.example/api/oidc/start" };
    open();
    const link = await screen.findByRole("link", { name: "Sign in with Example" });
    expect(link).toHaveAttribute("href", "https://chat.example/api/oidc/start");
    await signIn("ann");
    expect(await screen.findByTestId("composer")).toBeInTheDocument();
  });

  test.each(["state", "provider", "refused", "busy", "stranger", "suspended", "other_identity", "no_owner"])(
    "that let nobody in (%s) is explained in both languages, once",
    async (reason) => {
      server.provider = { name: "Example", url: "https://chat.example/api/oidc/start" };
      open(`#sign-in=${reason}`);
      const english = (await screen.findByTestId("provider-problem")).textContent ?? "";
      expect(english).toMatch(/^[A-Z].{20,}\.$/);
      act(() => setLanguage("zh"));
      expect(screen.getByTestId("provider-problem")).toHaveTextContent(/[\u4e00-\u9fff]{8,}/);
      expect(window.location.hash).toBe("");
    },
  );

  test("words that somebody else put into the address are not repeated", async () => {
    open("#sign-in=Call+0900-1234");
    await screen.findByTestId("sign-in");
    expect(document.body).not.toHaveTextContent("0900");
    expect(screen.queryByTestId("provider-problem")).not.toBeInTheDocument();
  });
});

describe("a printed link", () => {
  test("leaves the address bar at once, and sets the first owner up", async () => {
    server.setupNeeded = true;
    server.links["TOKEN"] = { purpose: "setup", email: null };
    open("#welcome=TOKEN");
    expect(window.location.href).not.toContain("TOKEN");
    await screen.findByRole("heading", { name: "Create the owner’s account" });
    await user.type(screen.getByTestId("email"), "bo@example.org");
    await user.type(screen.getByTestId("name"), "Bo");
    await user.type(screen.getByTestId("new-password"), `${PASSWORD}{Enter}`);
    expect(await screen.findByTestId("composer")).toBeInTheDocument();
    expect(server.last("POST", "/api/welcome").body).toEqual({
      token: "TOKEN",
      email: "bo@example.org",
      name: "Bo",
      password: PASSWORD,
    });
    expect(JSON.stringify({ ...localStorage, ...sessionStorage })).not.toContain("TOKEN");
  });

  test("an invitation knows the address; a weak password is refused in words and may be tried again", async () => {
    server.links["TOKEN"] = { purpose: "invitation", email: "li@example.org" };
    open("#welcome=TOKEN");
    expect(await screen.findByTestId("email")).toHaveAttribute("readonly");
    await user.type(screen.getByTestId("new-password"), "weak password{Enter}");
    expect(await screen.findByRole("alert")).toHaveTextContent("Choose another one.");
    await user.clear(screen.getByTestId("new-password"));
    await user.type(screen.getByTestId("new-password"), `${PASSWORD}{Enter}`);
    expect(await screen.findByTestId("account")).toHaveAccessibleName("Account: li");
    expect(server.last("POST", "/api/welcome").body).toEqual({ token: "TOKEN", password: PASSWORD });
  });

  test("a reset asks for a password only, which can be looked at", async () => {
    server.links["TOKEN"] = { purpose: "reset", email: "li@example.org" };
    open("#welcome=TOKEN");
    await screen.findByRole("heading", { name: "Choose a new password" });
    expect(screen.queryByTestId("name")).not.toBeInTheDocument();
    expect(screen.getByTestId("new-password")).toHaveAttribute("type", "password");
    await user.click(screen.getByRole("button", { name: "Show the password" }));
    expect(screen.getByTestId("new-password")).toHaveAttribute("type", "text");
  });

  test("one that is not good any more says so, and leads to the door", async () => {
    open("#welcome=USED");
    expect(await screen.findByTestId("bad-link")).toHaveTextContent("Ask whoever gave it to you");
    await user.click(screen.getByTestId("leave-welcome"));
    expect(await screen.findByTestId("sign-in")).toBeInTheDocument();
  });

  test("pasted into an open page it works as well", async () => {
    server.links["TOKEN"] = { purpose: "reset", email: "li@example.org" };
    await openAs("ann");
    act(() => {
      window.location.hash = "#welcome=TOKEN";
      window.dispatchEvent(new HashChangeEvent("hashchange"));
    });
    expect(await screen.findByTestId("welcome")).toHaveAttribute("data-purpose", "reset");
    expect(window.location.href).not.toContain("TOKEN");
    await user.click(screen.getByTestId("leave-welcome"));
    expect(await screen.findByTestId("account")).toHaveAccessibleName("Account: ann");
  });
});

describe("one's own account", () => {
  test("the way there and back keeps what was written", async () => {
    await openAs("li");
    await user.type(screen.getByTestId("composer"), "half a message");
    act(() => {
      window.location.hash = "#/account";
      window.dispatchEvent(new HashChangeEvent("hashchange"));
    });
    expect(await screen.findByRole("heading", { name: "My account" })).toHaveFocus();
    expect(screen.getByTestId("own-email")).toHaveTextContent("li@example.org");
    expect(screen.queryByTestId("nav-users")).not.toBeInTheDocument();
    expect(screen.getByTestId("composer")).not.toBeVisible();
    act(() => {
      window.location.hash = "#/";
      window.dispatchEvent(new HashChangeEvent("hashchange"));
    });
    expect(screen.getByTestId("composer")).toBeVisible();
    expect(screen.getByTestId("composer")).toHaveValue("half a message");
  });

  test("the name is changed, here and in the header", async () => {
    await openAs("li", "#/account");
    await user.clear(screen.getByTestId("own-name"));
    await user.type(screen.getByTestId("own-name"), " 李雷 {Enter}");
    expect(await screen.findByText("Saved")).toBeInTheDocument();
    expect(screen.getByTestId("own-name")).toHaveValue("李雷");
    expect(screen.getByTestId("account")).toHaveAttribute("aria-label", "Account: 李雷");
  });

  test("a wrong old password is told; a right one changes it, and the session goes on with its new token", async () => {
    await openAs("li", "#/account");
    await user.type(screen.getByTestId("old-password"), "not this one");
    await user.type(screen.getByTestId("new-password"), "a new long password{Enter}");
    expect(await screen.findByTestId("failure")).toHaveTextContent("The old password is wrong.");
    await user.clear(screen.getByTestId("old-password"));
    await user.type(screen.getByTestId("old-password"), `${PASSWORD}{Enter}`);
    expect(await screen.findByText("The password was changed")).toBeInTheDocument();
    expect(screen.getByTestId("new-password")).toHaveValue("");
    await waitFor(() => expect(within(screen.getByTestId("sessions")).getAllByRole("listitem")).toHaveLength(1));
    await user.click(screen.getByTestId("save-name"));
    await waitFor(() => expect(server.last("PATCH", "/api/account").headers.get("X-CSRF-Token")).toBe("csrf-2"));
  });

  test("other browsers are signed out, one by one or all at once", async () => {
    server.browsers.push(server.browser("elsewhere", false));
    await openAs("li", "#/account");
    await waitFor(() => expect(screen.getAllByTestId("end-session")).toHaveLength(2));
    await user.click(screen.getAllByTestId("end-session")[0] as HTMLElement);
    await waitFor(() => expect(screen.getAllByTestId("end-session")).toHaveLength(1));
    expect(server.browsers.map(({ id }) => id)).toEqual(["here", "elsewhere"]);
    await user.click(screen.getByTestId("end-other-sessions"));
    expect(await screen.findByText("You are signed in here only.")).toBeInTheDocument();
    expect(server.browsers.map(({ id }) => id)).toEqual(["here"]);
  });

  test("signing out shows the door, and the next one begins at the chat", async () => {
    await openAs("li", "#/account");
    await user.click(screen.getByTestId("sign-out"));
    expect(await screen.findByTestId("sign-in")).toBeInTheDocument();
    await signIn("ann");
    expect(await screen.findByTestId("composer")).toBeVisible();
  });
});

describe("API keys", () => {
  test("a key is made as asked, shown once with a button that copies it, and then kept nowhere", async () => {
    await openAs("li", "#/keys");
    await user.click(screen.getByTestId("new-key"));
    expect(screen.queryByTestId("scope-admin")).not.toBeInTheDocument();
    await user.type(screen.getByTestId("key-name"), "laptop");
    await user.click(screen.getByTestId("scope-files"));
    await user.selectOptions(screen.getByTestId("key-life"), "30 days");
    await user.click(screen.getByTestId("make-key"));
    expect(await screen.findByTestId("secret")).toHaveValue("sk-cw-secret");
    const { body } = server.last("POST", "/api/keys");
    expect(body).toMatchObject({ name: "laptop", scopes: ["inference", "files"] });
    expect(Number(body["expires_at"])).toBeCloseTo(Date.now() / 1000 + 30 * 86_400, -2);
    await user.click(screen.getByTestId("copy-secret"));
    expect(await navigator.clipboard.readText()).toBe("sk-cw-secret");
    expect(screen.getByTestId("copy-state")).toHaveTextContent("Copied");
    expect(screen.getByTestId("key-maker")).toHaveAttribute("closedby", "none");
    await user.click(screen.getByTestId("key-done"));
    expect(document.body.innerHTML).not.toContain("sk-cw-secret");
    expect(within(await screen.findByTestId("keys")).getByText("laptop")).toBeInTheDocument();
    await user.click(screen.getByTestId("new-key"));
    expect(screen.getByTestId("key-name")).toHaveValue("");
  });

  test("one that never ends is sent as such; without a scope there is none; administrators have one scope more", async () => {
    await openAs("ann", "#/keys");
    await user.click(screen.getByTestId("new-key"));
    await user.type(screen.getByTestId("key-name"), "server");
    await user.click(screen.getByTestId("scope-inference"));
    expect(screen.getByTestId("make-key")).toBeDisabled();
    await user.click(screen.getByTestId("scope-admin"));
    await user.selectOptions(screen.getByTestId("key-life"), "No expiry");
    await user.click(screen.getByTestId("make-key"));
    await screen.findByTestId("secret");
    expect(server.last("POST", "/api/keys").body).toEqual({ name: "server", scopes: ["admin"], expires_at: null });
  });

  test("revoked and expired keys are put aside", async () => {
    server.keys = [server.key("laptop"), server.key("old", { expires_at: 1 }), server.key("lost", { revoked_at: 2 })];
    await openAs("li", "#/keys");
    expect(await screen.findByText("2 keys that open nothing any more")).toBeInTheDocument();
    await user.click(within(screen.getByTestId("keys")).getByRole("button", { name: "Revoke", description: "laptop" }));
    expect(screen.getByRole("alertdialog")).toHaveTextContent("Programs that use the key laptop are kept out at once");
    await user.click(screen.getByTestId("keep"));
    expect(server.keys[0]?.revoked_at).toBeNull();
    await user.click(within(screen.getByTestId("keys")).getByRole("button", { name: "Revoke", description: "laptop" }));
    await user.click(screen.getByTestId("yes-revoke"));
    expect(await screen.findByText("3 keys that open nothing any more")).toBeInTheDocument();
    expect(screen.getByText("No keys.")).toBeInTheDocument();
  });

  test("what the server refuses is told in the dialog", async () => {
    await openAs("li", "#/keys");
    await user.click(screen.getByTestId("new-key"));
    await user.type(screen.getByTestId("key-name"), "laptop");
    server.refusal = refusal(400, "too_many_keys", "A user has at most 100 keys: revoke one first.");
    await user.click(screen.getByTestId("make-key"));
    expect(await dialog("key-maker").findByRole("alert")).toHaveTextContent("at most 100 keys");
  });
});

describe("users", () => {
  test("members do not see the page", async () => {
    await openAs("li", "#/users");
    expect(await screen.findByRole("heading", { name: "My account" })).toBeInTheDocument();
    expect(server.asked.some(({ path }) => path === "/api/users")).toBe(false);
  });

  test("an invitation gives a link once, which opens where this page does", async () => {
    await openAs("ann", "#/users");
    await user.click(screen.getByTestId("invite"));
    await user.type(screen.getByTestId("invite-email"), "wei@example.org");
    await user.selectOptions(screen.getByTestId("invite-role"), "admin");
    await user.click(screen.getByTestId("invite-button"));
    expect(await screen.findByTestId("secret")).toHaveValue(`${window.location.origin}/#welcome=TOKEN`);
    expect(server.last("POST", "/api/users").body).toEqual({ email: "wei@example.org", role: "admin" });
    await user.click(screen.getByTestId("invite-done"));
    expect(document.body.innerHTML).not.toContain("TOKEN");
    await waitFor(() => expect(row("wei@example.org")).toHaveTextContent("InvitedAdministrator"));
  });

  test("role, link, suspension and return", async () => {
    server.keys = [server.key("laptop")];
    await openAs("ann", "#/users");
    await user.click(await screen.findByText("li@example.org"));
    expect(await dialog("user-dialog").findByText("laptop")).toBeInTheDocument();
    await user.selectOptions(screen.getByTestId("user-role"), "admin");
    expect(server.asked.some(({ method }) => method === "PATCH")).toBe(false);
    await user.click(screen.getByTestId("save-role"));
    await waitFor(() => expect(row("li@example.org")).toHaveTextContent("Administrator"));
    await user.click(screen.getByTestId("suspend"));
    await user.click(screen.getByTestId("no"));
    await user.click(screen.getByTestId("suspend"));
    expect(screen.getByRole("alertdialog")).toHaveTextContent("li is signed out everywhere at once");
    await user.click(screen.getByTestId("yes"));
    await waitFor(() => expect(row("li@example.org")).toHaveTextContent("Suspended"));
    expect(screen.queryByTestId("user-link")).not.toBeInTheDocument();
    await user.click(screen.getByTestId("resume"));
    await waitFor(() => expect(row("li@example.org")).not.toHaveTextContent("Suspended"));
    await user.click(await screen.findByTestId("user-link"));
    expect(await screen.findByTestId("secret")).toHaveValue("https://chat.example.org/#welcome=TOKEN");
    await user.click(screen.getByTestId("user-done"));
    expect(document.body.innerHTML).not.toContain("TOKEN");
  });

  test("their keys can be revoked, and they can be removed, after a question", async () => {
    server.keys = [server.key("laptop")];
    await openAs("ann", "#/users");
    await user.click(await screen.findByText("li@example.org"));
    await user.click(await screen.findByTestId("revoke"));
    await user.click(screen.getByTestId("yes-revoke"));
    expect(server.last("DELETE", "/api/users/user-li/keys/key-laptop")).toBeDefined();
    await user.click(screen.getByTestId("remove"));
    expect(server.users).toHaveLength(2);
    await user.click(screen.getByTestId("yes"));
    await waitFor(() => expect(screen.queryByText("li@example.org")).not.toBeInTheDocument());
    expect(screen.getByTestId("user-dialog")).not.toHaveAttribute("open");
  });

  test("the only owner can be neither suspended nor removed, one of two can", async () => {
    await openAs("ann", "#/users");
    await user.click(await screen.findByText("ann@example.org"));
    expect(await screen.findByTestId("user-dialog")).toHaveTextContent("make somebody else an owner first");
    for (const control of ["suspend", "remove"]) expect(screen.queryByTestId(control)).not.toBeInTheDocument();
    await user.click(screen.getByTestId("user-done"));
    await user.click(screen.getByText("li@example.org"));
    await user.selectOptions(screen.getByTestId("user-role"), "owner");
    await user.click(screen.getByTestId("save-role"));
    await user.click(screen.getByTestId("user-done"));
    await user.click(screen.getByText("ann@example.org"));
    expect(await screen.findByTestId("suspend")).toBeInTheDocument();
    expect(screen.getByTestId("remove")).toBeInTheDocument();
  });

  test("a key shows its id and the names of its scopes, as the command line has them", async () => {
    server.keys = [server.key("laptop")];
    await openAs("li", "#/keys");
    const shown = await screen.findByTestId("key");
    expect(shown).toHaveTextContent("key-laptop");
    expect(shown).toHaveTextContent("Answers (inference)");
  });

  test("an administrator can change nothing of an owner, nor make one", async () => {
    server.users.push(person("bo", "admin"));
    await openAs("bo", "#/users");
    await user.click(await screen.findByText("ann@example.org"));
    expect(screen.getByTestId("user-dialog")).toHaveTextContent("Only owners can change an owner.");
    for (const control of ["user-role", "suspend", "remove", "user-link", "revoke"]) {
      expect(screen.queryByTestId(control)).not.toBeInTheDocument();
    }
    await user.click(screen.getByTestId("user-done"));
    await user.click(screen.getByTestId("invite"));
    expect(within(screen.getByTestId("invite-role")).queryByText("Owner")).not.toBeInTheDocument();
  });

  test("who demotes themselves loses the page at once", async () => {
    server.users.push(person("bo", "admin"));
    await openAs("bo", "#/users");
    await user.click(await screen.findByText("bo@example.org"));
    await user.selectOptions(screen.getByTestId("user-role"), "member");
    server.signedIn = person("bo", "member");
    await user.click(screen.getByTestId("save-role"));
    expect(await screen.findByRole("heading", { name: "My account" })).toBeInTheDocument();
    expect(screen.queryByTestId("nav-users")).not.toBeInTheDocument();
  });

  test("the server's reason is shown where something is refused", async () => {
    server.users.push(person("bo", "owner")); // whom somebody else removes meanwhile
    await openAs("ann", "#/users");
    await user.click(await screen.findByText("ann@example.org"));
    await user.click(screen.getByTestId("suspend"));
    server.refusal = refusal(400, "last_owner", "This is the last owner: make somebody else an owner first.");
    await user.click(screen.getByTestId("yes"));
    expect(await dialog("user-dialog").findByRole("alert")).toHaveTextContent("This is the last owner");
  });

  test("many can be searched", async () => {
    server.users.push(...Array.from({ length: 20 }, (_, index) => person(`member${index}`)));
    await openAs("ann", "#/users");
    await user.type(await screen.findByTestId("find-user"), "LI@");
    expect(screen.getAllByTestId("user")).toHaveLength(1);
    await user.clear(screen.getByTestId("find-user"));
    await user.type(screen.getByTestId("find-user"), "zzz");
    expect(screen.getByText("Nobody like that.")).toBeInTheDocument();
  });
});

vi.setConfig({ testTimeout: 15_000 });
