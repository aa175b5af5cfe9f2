// The conversation itself: streaming, stopping, asking again, editing, failing.
import { beforeEach, describe, expect, test, vi } from "vitest";

import { type ChatSettings, ChatStore } from "../src/chat/store";
import { FakeServer, refusal } from "./server";

let server: FakeServer;
let store: ChatStore;

beforeEach(() => {
  server = new FakeServer();
  const settings: ChatSettings = { model: "tiny", system: "", temperature: 0 };
  store = new ChatStore(settings);
});

const answer = () => store.getSnapshot().messages.at(-1);
const started = (count = 1) => vi.waitFor(() => expect(server.answers).toHaveLength(count));

async function converse(question: string, reply: string): Promise<void> {
  const count = server.answers.length + 1;
  const done = store.send(question);
  await started(count);
  server.last.say(reply);
  server.last.finish();
  await done;
}

describe("streaming", () => {
  test("the answer grows while it arrives and is complete at the end", async () => {
    const done = store.send("Hello");
    await started();
    expect(store.getSnapshot().running).toBe(true);
    server.last.say("Good ");
    await vi.waitFor(() => expect(answer()).toMatchObject({ text: "Good ", state: "streaming" }));
    server.last.say("day");
    server.last.finish();
    await done;
    expect(answer()).toMatchObject({ role: "assistant", text: "Good day", state: "complete" });
    expect(store.getSnapshot().running).toBe(false);
  });

  test("a thousand tokens that arrive together cost a few updates, not a thousand", async () => {
    let updates = 0;
    const done = store.send("Hello");
    await started();
    store.subscribe(() => (updates += 1));
    for (let i = 0; i < 1000; i += 1) server.last.say("a");
    server.last.finish();
    await done;
    expect(answer()?.text).toBe("a".repeat(1000));
    expect(updates).toBeLessThan(100);
  });

  test("an answer cut at its length limit says so", async () => {
    const done = store.send("Hello");
    await started();
    server.last.say("Once");
    server.last.finish("length");
    await done;
    expect(answer()?.state).toBe("length");
  });

  test("characters split between network packets arrive whole", async () => {
    const bytes = new TextEncoder().encode('data: {"choices":[{"delta":{"content":"中文"}}]}\n\ndata: [DONE]\n\n');
    vi.stubGlobal("fetch", async () => {
      const stream = new ReadableStream({
        start(controller) {
          for (const byte of bytes) controller.enqueue(new Uint8Array([byte]));
          controller.close();
        },
      });
      return new Response(stream);
    });
    await store.send("你好");
    expect(answer()).toMatchObject({ text: "中文", state: "complete" });
  });
});

describe("the request", () => {
  test("carries the model, the whole conversation and the temperature", async () => {
    await converse("One", "Uno");
    await converse("Two", "Dos");
    expect(server.last.request).toEqual({
      model: "tiny",
      temperature: 0,
      repetition_penalty: 1.1,
      stream: true,
      messages: [
        { role: "user", content: "One" },
        { role: "assistant", content: "Uno" },
        { role: "user", content: "Two" },
      ],
    });
  });

  test("carries instructions first when there are any", async () => {
    store.configure({ model: "tiny", system: " Be brief. ", temperature: 0 });
    await converse("One", "Uno");
    expect(server.last.request.messages[0]).toEqual({ role: "system", content: "Be brief." });
    expect(server.last.request.temperature).toBe(0);
  });

  test("leaves out an answer that failed before its first word", async () => {
    server.refusal = refusal(503, null, "The queue is full.");
    await store.send("One");
    await converse("Two", "Dos");
    expect(server.last.request.messages.map(({ role }) => role)).toEqual(["user", "user"]);
  });
});

describe("stop", () => {
  test("closes the connection and keeps what was said", async () => {
    const done = store.send("Hello");
    await started();
    server.last.say("Half");
    await vi.waitFor(() => expect(answer()?.text).toBe("Half"));
    store.stop();
    await done;
    expect(server.last.signal.aborted).toBe(true);
    expect(answer()).toMatchObject({ text: "Half", state: "stopped" });
    expect(answer()?.error).toBeUndefined();
    expect(store.getSnapshot().running).toBe(false);
  });
});

describe("asking again", () => {
  test("puts a new answer in place of the old one, from the same conversation", async () => {
    await converse("Hello", "First");
    const question = store.getSnapshot().messages[0];
    const done = store.regenerate(question?.id ?? null);
    await started(2);
    server.last.say("Second");
    server.last.finish();
    await done;
    expect(store.getSnapshot().messages.map(({ text }) => text)).toEqual(["Hello", "Second"]);
    expect(server.last.request.messages).toEqual([{ role: "user", content: "Hello" }]);
  });

  test("lets chance in, or the second answer would be the first one, but not after a failure", async () => {
    server.refusal = refusal(503, null, "The queue is full.");
    await store.send("Hello");
    const question = store.getSnapshot().messages[0];
    for (const [count, temperature] of [[1, 0], [2, 0.3]] as const) {
      const done = store.regenerate(question?.id ?? null);
      await started(count);
      server.last.finish();
      await done;
      expect(server.last.request.temperature).toBe(temperature);
    }
  });

  test("an edited question drops everything that came after it", async () => {
    await converse("One", "Uno");
    await converse("Two", "Dos");
    const firstAnswer = store.getSnapshot().messages[1];
    const done = store.send("Three", firstAnswer?.id);
    await started(3);
    server.last.finish();
    await done;
    expect(server.last.request.messages.map(({ content }) => content)).toEqual(["One", "Uno", "Three"]);
  });
});

describe("failures", () => {
  test.each([
    [refusal(400, "context_length_exceeded", "9000 tokens"), "tooLong", undefined],
    [refusal(400, null, "bad"), "invalid", undefined],
    [refusal(401, "invalid_api_key", "no"), "key", undefined],
    [refusal(403, null, "host"), "forbidden", undefined],
    [refusal(404, "model_not_found", "gone"), "notFound", undefined],
    [refusal(503, null, "full", { "Retry-After": "7" }), "busy", 7],
    [refusal(429, "rate_limit_exceeded", "2 of 2", { "Retry-After": "49" }), "limit", 49],
    [refusal(429, "insufficient_quota", "20 left", { "Retry-After": "53150" }), "quota", 53150],
    [refusal(500, null, "oops"), "server", undefined],
    [new Response("<h1>Bad gateway</h1>", { status: 502 }), "server", undefined],
  ])("a refusal is told by what can be done about it (%#)", async (response, kind, retryAfter_s) => {
    server.refusal = response;
    await store.send("Hello");
    expect(answer()).toMatchObject({ state: "failed", text: "", error: { kind, retryAfter_s } });
  });

  test("no connection is told from a refusal", async () => {
    server.down = true;
    await store.send("Hello");
    expect(answer()?.error?.kind).toBe("network");
  });

  test("an error in mid-stream keeps the text before it, and the server's words", async () => {
    const done = store.send("Hello");
    await started();
    server.last.say("Half");
    server.last.send({ error: { message: "The engine failed.", type: "server_error" } });
    await done;
    expect(answer()).toMatchObject({ text: "Half", state: "failed", error: { kind: "stream" } });
    expect(answer()?.error?.message).toBe("The engine failed.");
  });

  test("a connection that ends without [DONE] is a broken answer, not a complete one", async () => {
    const done = store.send("Hello");
    await started();
    server.last.say("Half");
    server.last.close();
    await done;
    expect(answer()).toMatchObject({ text: "Half", state: "failed", error: { kind: "stream" } });
  });
});
