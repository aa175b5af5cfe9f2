// Conversations that the server keeps, as a person uses them.
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, configure, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, describe, expect, test, vi } from "vitest";

import { Gate, QUERY_OPTIONS } from "../src/account/Gate";
import { setCsrfToken } from "../src/api/key";
import { App } from "../src/App";
import { RETRY_MS } from "../src/conversations/store";
import { refusal } from "./server";
import { TalkServer } from "./talks";

let server: TalkServer;
let user: ReturnType<typeof userEvent.setup>;

beforeEach(() => {
  server = new TalkServer();
  user = userEvent.setup();
  setCsrfToken(null);
  window.history.replaceState(null, "", "#/");
});

async function open(hash?: string): Promise<void> {
  if (hash !== undefined) window.history.replaceState(null, "", hash);
  render(
    <QueryClientProvider client={new QueryClient({ defaultOptions: QUERY_OPTIONS })}>
      <Gate>
        <App />
      </Gate>
    </QueryClientProvider>,
  );
  await waitFor(() => expect(screen.getByTestId("model")).toHaveValue("tiny"));
}

/** The same address again, in a page that knows nothing. */
async function reload(): Promise<void> {
  cleanup();
  await open();
}

const answers = () => screen.queryAllByTestId("assistant-message");
const lastAnswer = () => answers().at(-1);
const shown = () => screen.getAllByTestId(/^(user|assistant)-message$/).map((one) => one.textContent);
const rows = () => screen.queryAllByTestId("conversation");
const row = (title: string) => {
  const found = rows().find((one) => one.textContent?.includes(title));
  if (!found) throw new Error(`no conversation ${title}`);
  return within(found);
};

async function ask(question: string): Promise<void> {
  await user.type(screen.getByTestId("composer"), `${question}{Enter}`);
  await waitFor(() => expect(server.readers).toHaveLength(1));
}

async function reply(text: string): Promise<void> {
  act(() => {
    server.say(text);
    server.finish();
  });
  await waitFor(() => expect(lastAnswer()).toHaveAttribute("data-state", "complete"));
}

describe("a conversation that is kept", () => {
  test("gets an address, a title and a place in the list with its first message", async () => {
    await open();
    expect(rows()).toHaveLength(0);
    await ask("What is the capital of France?");
    const [talk] = server.talks;
    expect(window.location.hash).toBe(`#/c/${talk?.id}`);
    expect(server.last("POST", /generations$/)).toMatchObject({
      csrf: "csrf-1",
      body: { model: "tiny", temperature: 0, content: "What is the capital of France?", parent_id: null, instructions: null },
    });
    await waitFor(() => expect(row("capital").getByTestId("generating")).toBeInTheDocument());
    await reply("Paris");
    expect(lastAnswer()).toHaveTextContent("Paris");
    await waitFor(() => expect(screen.queryByTestId("generating")).not.toBeInTheDocument());
    expect(row("capital").getByTestId("open-conversation")).toHaveAttribute("aria-current", "page");
    await ask("And of Italy?");
    expect(server.last("POST", /generations$/).body["parent_id"]).toBe(talk?.messages[1]?.id);
    expect(server.talks).toHaveLength(1);
    await reply("Rome");
    expect(shown()).toHaveLength(4);
  });

  test("goes on after a reload in the middle of an answer, from where it is", async () => {
    await open();
    await ask("Count");
    act(() => server.say("🙂 one "));
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("one"));
    await reload();
    expect(server.readers).toHaveLength(1);
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("🙂 one"));
    expect(lastAnswer()).toHaveAttribute("data-state", "streaming");
    await reply("two");
    expect(lastAnswer()).toHaveTextContent("🙂 one two");
    expect(answers()).toHaveLength(1);
  });

  test("is read along again when the line broke, and nothing comes twice", async () => {
    await open();
    await ask("Count");
    act(() => server.say("one "));
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("one"));
    act(() => server.readers[0]?.breakOff());
    act(() => server.say("two "));
    await waitFor(() => expect(server.readers).toHaveLength(1), { timeout: 5000 });
    await reply("three");
    expect(lastAnswer()).toHaveTextContent(/^Chatwright said:one two three$/);
  });

  test("that could not be read to its end is read on when tried again, and not written again", async () => {
    const waits = RETRY_MS.splice(0);
    await open();
    await ask("Count");
    act(() => server.say("one "));
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("one"));
    act(() => server.readers[0]?.breakOff());
    await waitFor(() => expect(lastAnswer()).toHaveAttribute("data-state", "failed"));
    RETRY_MS.push(...waits);
    server.say("two ");
    await user.click(screen.getByTestId("retry"));
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("one two"));
    await reply("three");
    expect(lastAnswer()).toHaveTextContent("one two three");
    expect(server.talks[0]?.messages).toHaveLength(2);
  });

  test("stop stops the engine, and the text stays", async () => {
    await open();
    await ask("Count");
    act(() => server.say("1, 2"));
    await user.click(screen.getByTestId("stop"));
    await waitFor(() => expect(lastAnswer()).toHaveAttribute("data-state", "stopped"));
    expect(server.last("POST", /stop$/).path).toContain(server.talks[0]?.messages[1]?.id ?? "?");
    expect(lastAnswer()).toHaveTextContent("1, 2");
    expect(screen.getByTestId("send")).toBeInTheDocument();
  });

  test("is left without stopping it", async () => {
    server.keep("Old one", "Hello", "Good day");
    await open();
    await ask("Count");
    await user.click(row("Old one").getByTestId("open-conversation"));
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("Good day"));
    expect(server.readers).toHaveLength(0);
    expect(server.writing.finish_reason).toBeNull();
    await waitFor(() => expect(row("Count").getByTestId("generating")).toBeInTheDocument());
    await user.click(row("Count").getByTestId("open-conversation"));
    await waitFor(() => expect(server.readers).toHaveLength(1));
    await reply("one");
    expect(shown()).toEqual([expect.stringContaining("Count"), expect.stringContaining("one")]);
  });

  test("left before the server knew of it, it is begun all the same, and does not come back by itself", async () => {
    await open();
    const gate = new EventTarget();
    server.gate = new Promise((resolve) => gate.addEventListener("open", () => resolve()));
    await user.type(screen.getByTestId("composer"), "Count{Enter}");
    await user.click(screen.getByTestId("begin-conversation"));
    gate.dispatchEvent(new Event("open"));
    await waitFor(() => expect(row("Count").getByTestId("generating")).toBeInTheDocument());
    expect(window.location.hash).toBe("#/");
    expect(screen.getByTestId("examples")).toBeInTheDocument();
    expect(row("Count").getByTestId("open-conversation")).not.toHaveAttribute("aria-current");
  });

  test("an answer that was cut short by the server says why", async () => {
    const talk = server.keep("Old one", "Hello");
    const answer = server.add(talk, "assistant", "Good", talk.messages[0]?.id ?? null, "interrupted");
    answer.error = { message: "The server ended while it wrote this answer.", code: "interrupted" };
    await open(`#/c/${talk.id}`);
    await waitFor(() => expect(lastAnswer()).toHaveAttribute("data-state", "failed"));
    expect(lastAnswer()).toHaveTextContent("Good");
    expect(screen.getByTestId("error")).toHaveTextContent("The server ended while it wrote this answer.");
    await user.click(screen.getByTestId("retry"));
    await waitFor(() => expect(server.readers).toHaveLength(1));
    expect(server.last("POST", /generations$/).body).toMatchObject({ parent_id: talk.messages[0]?.id, temperature: 0 });
    expect(server.last("POST", /generations$/).body).not.toHaveProperty("content");
    await reply("Good day");
  });
});

describe("versions", () => {
  test("of answers and of questions are all there after a reload, and the shown ones are remembered", async () => {
    await open();
    await ask("Fist question");
    await reply("First answer");
    await user.click(screen.getByTestId("regenerate"));
    await waitFor(() => expect(server.readers).toHaveLength(1));
    expect(server.last("POST", /generations$/).body["temperature"]).toBe(0.3);
    await reply("Second answer");
    await user.click(screen.getByRole("button", { name: "Edit message" }));
    const box = screen.getByTestId("edit-composer");
    await user.clear(box);
    await user.type(box, "First question{Enter}");
    await waitFor(() => expect(server.readers).toHaveLength(1));
    expect(server.last("POST", /generations$/).body).toMatchObject({ content: "First question", parent_id: null });
    await reply("Third answer");
    expect(shown()).toEqual([expect.stringContaining("First question"), expect.stringContaining("Third answer")]);
    await reload();
    await waitFor(() => expect(screen.getByTestId("versions")).toHaveTextContent("2/2"));
    await user.click(screen.getByRole("button", { name: "Previous version" }));
    await waitFor(() => expect(shown()[0]).toContain("Fist question"));
    expect(shown()[1]).toContain("Second answer");
    const active = server.talks[0]?.messages.find(({ content }) => content === "Second answer")?.id;
    await waitFor(() => expect(server.talks[0]?.active_message_id).toBe(active));
    await reload();
    await waitFor(() => expect(shown()[1]).toContain("Second answer"));
    await user.click(within(lastAnswer() as HTMLElement).getByRole("button", { name: "Previous version" }));
    await waitFor(() => expect(shown()[1]).toContain("First answer"));
  });
});

describe("the list", () => {
  test("opens, and a new conversation begins empty", async () => {
    server.keep("Cats", "About cats", "They purr");
    server.keep("Dogs", "About dogs", "They bark");
    await open();
    await waitFor(() => expect(rows()).toHaveLength(2));
    await user.click(row("Cats").getByTestId("open-conversation"));
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("They purr"));
    expect(window.location.hash).toBe(`#/c/${server.talks[1]?.id}`);
    await user.click(screen.getByTestId("begin-conversation"));
    expect(screen.getByTestId("examples")).toBeInTheDocument();
    expect(window.location.hash).toBe("#/");
    act(() => {
      window.location.hash = `#/c/${server.talks[0]?.id}`;
    });
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("They bark"));
    act(() => {
      window.location.hash = "#/account";
    });
    await screen.findByTestId("account-pages");
    act(() => {
      window.location.hash = "#/";
    });
    await waitFor(() => expect(screen.queryByTestId("account-pages")).not.toBeInTheDocument());
    expect(lastAnswer()).toHaveTextContent("They bark");
    expect(window.location.hash).toBe(`#/c/${server.talks[0]?.id}`);
  });

  test("renames with Enter, and not with the Enter of an input method", async () => {
    const talk = server.keep("Cats", "About cats");
    await open();
    await waitFor(() => expect(rows()).toHaveLength(1));
    await user.click(row("Cats").getByRole("button", { name: "Rename “Cats”" }));
    const field = screen.getByTestId("title");
    expect(field).toHaveFocus();
    await user.clear(field);
    await user.type(field, "猫{Enter}");
    await waitFor(() => expect(row("猫")).toBeDefined());
    expect(talk.title).toBe("猫");
    await user.click(row("猫").getByTestId("rename"));
    await user.type(screen.getByTestId("title"), "x{Escape}");
    expect(screen.queryByTestId("title")).not.toBeInTheDocument();
    expect(talk.title).toBe("猫");
  });

  test("deletes after asking, and leaves what was open", async () => {
    const talk = server.keep("Cats", "About cats", "They purr");
    server.keep("Dogs", "About dogs");
    await open(`#/c/${talk.id}`);
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("They purr"));
    await user.click(row("Cats").getByTestId("delete"));
    const dialog = within(screen.getByTestId("delete-conversation"));
    expect(dialog.getByText(/“Cats”/)).toBeInTheDocument();
    await user.click(dialog.getByRole("button", { name: "Cancel" }));
    expect(server.talks).toHaveLength(2);
    await user.click(row("Cats").getByTestId("delete"));
    await user.click(screen.getByTestId("confirm-delete"));
    await waitFor(() => expect(rows()).toHaveLength(1));
    expect(server.talks.map(({ title }) => title)).toEqual(["Dogs"]);
    expect(screen.getByTestId("examples")).toBeInTheDocument();
    expect(window.location.hash).toBe("#/");
  });

  test("shows older ones page by page", async () => {
    server.pageSize = 2;
    for (let number = 1; number <= 5; number += 1) server.keep(`Nr. ${number}`, "x");
    await open();
    await waitFor(() => expect(rows()).toHaveLength(2));
    await user.click(screen.getByTestId("more-conversations"));
    await waitFor(() => expect(rows()).toHaveLength(4));
    await user.click(screen.getByTestId("more-conversations"));
    await waitFor(() => expect(rows()).toHaveLength(5));
    expect(screen.queryByTestId("more-conversations")).not.toBeInTheDocument();
  });
});

describe("failures", () => {
  test("a question that the server refused can be asked again, and is said once", async () => {
    await open();
    server.refusal = refusal(503, "engine_overloaded", "The queue is full.");
    await user.type(screen.getByTestId("composer"), "Hello{Enter}");
    await waitFor(() => expect(screen.getByTestId("error")).toHaveAttribute("data-kind", "busy"));
    expect(shown()[0]).toContain("Hello");
    await user.click(screen.getByTestId("retry"));
    await waitFor(() => expect(server.readers).toHaveLength(1));
    await reply("Hi");
    expect(server.talks).toHaveLength(1);
    expect(server.talks[0]?.messages.map(({ content }) => content)).toEqual(["Hello", "Hi"]);
    expect(shown()).toHaveLength(2);
  });

  test("what another tab is writing is not interrupted, and is there when this tab is looked at again", async () => {
    const talk = server.keep("Cats", "About cats", "They purr");
    await open(`#/c/${talk.id}`);
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("They purr"));
    const question = server.add(talk, "user", "And dogs?", talk.messages[1]?.id ?? null, null);
    server.add(talk, "assistant", "They", question.id, null);
    await act(async () => {
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("They"));
    await reply(" bark");
    expect(lastAnswer()).toHaveTextContent("They bark");
  });

  test("a conversation that is not there, or somebody else's, is left", async () => {
    await open("#/c/conv-none");
    await waitFor(() => expect(window.location.hash).toBe("#/"));
    expect(screen.getByTestId("examples")).toBeInTheDocument();
  });

  test("a server that is away is told, and tried again on demand", async () => {
    const talk = server.keep("Cats", "About cats", "They purr");
    await open();
    server.down = true;
    act(() => {
      window.location.hash = `#/c/${talk.id}`;
    });
    await waitFor(() => expect(screen.getAllByTestId("error").at(-1)).toHaveAttribute("data-kind", "network"));
    server.down = false;
    await user.click(screen.getAllByTestId("retry").at(-1) as HTMLElement);
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("They purr"));
    expect(screen.queryByTestId("error")).not.toBeInTheDocument();
  });
});

vi.setConfig({ testTimeout: 30_000 });
configure({ asyncUtilTimeout: 5000 });
