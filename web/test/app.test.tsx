// The page as a person uses it.
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, describe, expect, test, vi } from "vitest";

import { App } from "../src/App";
import { setLanguage } from "../src/i18n";
import { setUpTheme } from "../src/theme";
import { FakeServer, refusal } from "./server";

let server: FakeServer;
let user: ReturnType<typeof userEvent.setup>;

beforeEach(() => {
  server = new FakeServer();
  user = userEvent.setup();
});

async function open(): Promise<void> {
  const queries = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  render(
    <QueryClientProvider client={queries}>
      <App />
    </QueryClientProvider>,
  );
  await waitFor(() => expect(screen.getByTestId("model")).not.toHaveTextContent("Loading"));
}

const composer = () => screen.getByTestId<HTMLTextAreaElement>("composer");
const lastAnswer = () => screen.getAllByTestId("assistant-message").at(-1);

async function ask(question: string): Promise<void> {
  const count = server.answers.length + 1;
  await user.type(composer(), `${question}{Enter}`);
  await waitFor(() => expect(server.answers).toHaveLength(count));
}

async function reply(text: string): Promise<void> {
  await act(async () => {
    server.last.say(text);
    server.last.finish();
  });
  await waitFor(() => expect(lastAnswer()).toHaveAttribute("data-state", "complete"));
}

describe("a conversation", () => {
  test("streams the answer, then offers to copy it and to answer again", async () => {
    await open();
    await ask("What is the capital of France?");
    expect(composer()).toHaveValue("");
    expect(screen.getByTestId("user-message")).toHaveTextContent("What is the capital of France?");
    expect(screen.getByTestId("stop")).toHaveAccessibleName("Stop answering");
    expect(screen.getByRole("status")).toHaveTextContent("Answering…");
    expect(screen.getByTestId("answer")).toHaveAttribute("aria-busy", "true");
    act(() => server.last.say("Par"));
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("Par"));
    await reply("is");
    expect(lastAnswer()).toHaveTextContent("Paris");
    expect(screen.getByTestId("answer")).toHaveAttribute("aria-live", "polite");
    expect(screen.getByTestId("answer")).toHaveAttribute("aria-busy", "false");
    const actions = within(lastAnswer() as HTMLElement);
    await user.click(actions.getByRole("button", { name: "Copy" }));
    expect(await navigator.clipboard.readText()).toBe("Paris");
    await user.click(actions.getByRole("button", { name: "Answer again" }));
    await waitFor(() => expect(server.answers).toHaveLength(2));
    await reply("It is Paris.");
    expect(lastAnswer()).toHaveTextContent("It is Paris.");
    expect(screen.getByTestId("versions")).toHaveTextContent("2/2");
    await user.click(screen.getByRole("button", { name: "Previous version" }));
    expect(lastAnswer()).toHaveTextContent(/^(?!.*It is).*Paris/);
  });

  test("stops: the connection closes, the text stays, the box is ready again", async () => {
    await open();
    await ask("Count");
    act(() => server.last.say("1, 2"));
    await waitFor(() => expect(lastAnswer()).toHaveTextContent("1, 2"));
    await user.click(screen.getByTestId("stop"));
    await waitFor(() => expect(lastAnswer()).toHaveAttribute("data-state", "stopped"));
    expect(server.last.signal.aborted).toBe(true);
    expect(lastAnswer()).toHaveTextContent("1, 2");
    expect(screen.getByTestId("send")).toBeInTheDocument();
  });

  test("an edited question is asked again without what came after", async () => {
    await open();
    await ask("Fist question");
    await reply("What?");
    await user.click(screen.getByRole("button", { name: "Edit message" }));
    const box = screen.getByTestId("edit-composer");
    await user.clear(box);
    await user.type(box, "First question{Enter}");
    await waitFor(() => expect(server.answers).toHaveLength(2));
    expect(server.last.request.messages).toEqual([{ role: "user", content: "First question" }]);
  });

  test("a new conversation starts empty, stops the running answer, and has no older versions", async () => {
    await open();
    await ask("Hello");
    const { signal } = server.last;
    await user.click(screen.getByTestId("new-chat"));
    expect(signal.aborted).toBe(true);
    expect(screen.getByTestId("examples")).toBeInTheDocument();
    await ask("Again");
    await reply("Hi");
    expect(server.last.request.messages).toHaveLength(1);
    expect(screen.queryByTestId("versions")).not.toBeInTheDocument();
  });

  test("an example question is asked by clicking it", async () => {
    await open();
    await user.click(screen.getByRole("button", { name: "What is the capital of France?" }));
    await waitFor(() => expect(server.answers).toHaveLength(1));
    expect(server.last.request.messages[0]?.content).toBe("What is the capital of France?");
  });

  test("instructions and temperature from the settings go with the next question", async () => {
    await open();
    await user.click(screen.getByTestId("settings"));
    await user.type(screen.getByLabelText("Instructions for the model"), "Be brief.");
    fireEvent.change(screen.getByTestId("temperature"), { target: { value: "0.2" } });
    await user.click(screen.getByTestId("settings-done"));
    await ask("Hello");
    expect(server.last.request).toMatchObject({ temperature: 0.2, messages: [{ role: "system" }, { role: "user" }] });
  });
});

describe("the Enter key", () => {
  test("with Shift starts a new line", async () => {
    await open();
    await user.type(composer(), "one{Shift>}{Enter}{/Shift}two");
    expect(composer()).toHaveValue("one\ntwo");
    expect(server.answers).toHaveLength(0);
  });

  test("does not send while an input method composes", async () => {
    await open();
    fireEvent.compositionStart(composer());
    fireEvent.change(composer(), { target: { value: "nihao" } });
    fireEvent.keyDown(composer(), { key: "Enter", keyCode: 229, isComposing: true });
    fireEvent.compositionEnd(composer(), { data: "你好" });
    expect(server.answers).toHaveLength(0);
    expect(screen.queryByTestId("user-message")).not.toBeInTheDocument();
  });

  test("does not send in Safari, which ends the composition before the key press", async () => {
    await open();
    fireEvent.compositionStart(composer());
    fireEvent.change(composer(), { target: { value: "你好" } });
    fireEvent.compositionEnd(composer(), { data: "你好" });
    fireEvent.keyDown(composer(), { key: "Enter", keyCode: 229, isComposing: false });
    expect(screen.queryByTestId("user-message")).not.toBeInTheDocument();
    fireEvent.keyDown(composer(), { key: "Enter", keyCode: 13 });
    await waitFor(() => expect(server.answers).toHaveLength(1));
    expect(server.last.request.messages[0]?.content).toBe("你好");
  });

  test("does not send an empty message, nor a second one while the first is answered", async () => {
    await open();
    await user.type(composer(), "{Enter}   {Enter}");
    expect(screen.queryByTestId("user-message")).not.toBeInTheDocument();
    await user.clear(composer());
    await ask("Hello");
    await user.type(composer(), "Wait{Enter}");
    expect(server.answers).toHaveLength(1);
    expect(composer()).toHaveValue("Wait");
  });
});

describe("the API key", () => {
  test("is asked for when the server wants one, kept in this tab only, and sent", async () => {
    server.key = "sk-right";
    await open();
    expect(await screen.findByTestId("key-input")).toBeInTheDocument();
    await user.type(screen.getByTestId("key-input"), "sk-wrong{Enter}");
    expect(await screen.findByText(/did not accept that key/)).toBeInTheDocument();
    await user.type(screen.getByTestId("key-input"), "sk-right{Enter}");
    await waitFor(() => expect(screen.getByTestId("model")).toHaveValue("tiny"));
    await ask("Hello");
    expect(server.last.authorization).toBe("Bearer sk-right");
    expect(JSON.stringify({ ...localStorage })).not.toContain("sk-");
    expect(document.cookie).toBe("");
  });

  test("a question refused for want of a key is asked again once it is there", async () => {
    await open();
    server.key = "sk-right";
    await user.type(composer(), "Hello{Enter}");
    await user.type(await screen.findByTestId("key-input"), "sk-right{Enter}");
    await waitFor(() => expect(server.answers).toHaveLength(1));
    await reply("Hi");
    expect(lastAnswer()).toHaveTextContent("Hi");
  });
});

describe("failures", () => {
  test.each([
    [refusal(400, "context_length_exceeded", "8192 tokens at most"), "tooLong", "8192 tokens at most"],
    [refusal(503, null, "The queue is full.", { "Retry-After": "7" }), "busy", "Try again in 7 seconds."],
    [refusal(429, "rate_limit_exceeded", "2 of 2", { "Retry-After": "49" }), "limit", "Try again in 49 seconds."],
    [refusal(429, "insufficient_quota", "20 left", { "Retry-After": "53150" }), "quota", "An administrator can raise"],
    [refusal(404, "model_not_found", "No such model"), "notFound", "Choose another model"],
    [refusal(403, null, "Host not allowed"), "forbidden", "the address the server printed"],
  ])("are told with what to do (%#)", async (response, kind, words) => {
    await open();
    server.refusal = response;
    await user.type(composer(), "Hello{Enter}");
    const notice = await screen.findByTestId("error");
    expect(notice).toHaveAttribute("data-kind", kind);
    expect(notice).toHaveTextContent(words);
    await user.click(within(notice).getByTestId("retry"));
    await waitFor(() => expect(server.answers).toHaveLength(1));
  });

  test("a server that is down is tried again on demand", async () => {
    server.down = true;
    await open();
    expect(await screen.findByText("The server cannot be reached")).toBeInTheDocument();
    server.down = false;
    await user.click(screen.getByTestId("retry"));
    await waitFor(() => expect(screen.getByTestId("model")).toHaveValue("tiny"));
    expect(screen.queryByTestId("error")).not.toBeInTheDocument();
  });
});

describe("models and appearance", () => {
  test("the model can be chosen, and the choice is remembered", async () => {
    server.models = [{ id: "one" }, { id: "two" }];
    await open();
    await user.selectOptions(screen.getByTestId("model"), "two");
    await ask("Hello");
    expect(server.last.request.model).toBe("two");
    expect(localStorage.getItem("chatwright.model")).toBe("two");
  });

  test("a model that speaks English only says so, and is asked in English also on the Chinese page", async () => {
    server.models = [{ id: "smollm2", languages: ["en"] }];
    await open();
    expect(screen.getByTestId("language-notice")).toHaveTextContent("smollm2 speaks English only.");
    act(() => setLanguage("zh"));
    expect(screen.getByTestId("language-notice")).toHaveTextContent("smollm2 只会说英语。");
    expect(screen.getByTestId("examples")).toHaveTextContent("What is the capital of France?");
  });

  test("a model of unknown languages is asked in the page's language, without a notice", async () => {
    await open();
    act(() => setLanguage("zh"));
    expect(screen.queryByTestId("language-notice")).not.toBeInTheDocument();
    expect(screen.getByTestId("examples")).toHaveTextContent("法国的首都是哪里？");
  });

  test("no model at all is told with the command that helps", async () => {
    server.models = [];
    await open();
    expect(screen.getByText(/chatwright pull smollm2:135m/)).toBeInTheDocument();
    await user.type(composer(), "Hello{Enter}");
    expect(server.answers).toHaveLength(0);
  });

  test("the language switch changes every word and is remembered", async () => {
    await open();
    await user.selectOptions(screen.getByTestId("language"), "zh");
    expect(screen.getByTestId("disclaimer")).toHaveTextContent("回答由这台机器上的模型生成，可能有误。");
    expect(document.documentElement).toHaveAttribute("lang", "zh-CN");
    expect(localStorage.getItem("chatwright.language")).toBe("zh");
  });

  test("the theme goes from the system's to light to dark, and is remembered", async () => {
    setUpTheme();
    await open();
    const button = screen.getByTestId("theme");
    expect(button).toHaveAccessibleName("Theme: System");
    await user.click(button);
    expect(localStorage.getItem("chatwright.theme")).toBe("light");
    await user.click(button);
    expect(document.documentElement).toHaveClass("dark");
    await user.click(button);
    expect(document.documentElement).not.toHaveClass("dark");
    expect(localStorage.getItem("chatwright.theme")).toBeNull();
  });
});

vi.setConfig({ testTimeout: 15_000 });
