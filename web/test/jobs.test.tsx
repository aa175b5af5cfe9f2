// Training jobs in the web app: the list, a job while it goes on and after, and a new one.
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, describe, expect, test, vi } from "vitest";

import { Gate, QUERY_OPTIONS } from "../src/account/Gate";
import { setApiKey, setCsrfToken } from "../src/api/key";
import { setLanguage } from "../src/i18n";
import type { Job, JobEvent } from "../src/jobs/api";
import { AccountServer } from "./accounts";
import { refusal } from "./server";

const NUMBERS = { n_epochs: 3, batch_size: 4, learning_rate_multiplier: 1 } as const;
const RESULT = "ft:tiny:acme:Cat-talk:Ab12";

function job(more: Partial<Job> = {}): Job {
  return {
    id: "ftjob-1",
    object: "fine_tuning.job",
    created_at: 1_790_000_000,
    error: null,
    fine_tuned_model: null,
    finished_at: null,
    hyperparameters: NUMBERS,
    model: "tiny",
    organization_id: "org-acme",
    result_files: [],
    status: "running",
    trained_tokens: null,
    training_file: "file-1",
    validation_file: null,
    seed: 7,
    method: { type: "supervised", supervised: { hyperparameters: NUMBERS } },
    user_provided_suffix: "Cat talk",
    ...more,
  } as Job;
}

/** What a job's events are written into, as the server does it: the whole story for each who asks. */
class Story {
  readonly #events: JobEvent[] = [];
  readonly #open = new Set<ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>>();
  readers = 0;

  tell(message: string, data?: object): void {
    const event = { id: `ftevent-1-${this.#events.length}`, object: "fine_tuning.job.event", created_at: 1, level: "info", message };
    this.#events.push({ ...event, type: data ? "metrics" : "message", data: data ?? null } as JobEvent);
    for (const reader of this.#open) reader.enqueue(this.#bytes(this.#events.length - 1));
  }

  step(step: number, train_loss: number, valid_loss?: number): void {
    this.tell(`Step ${step}`, { step, total_steps: 10, train_loss });
    if (valid_loss !== undefined) this.tell(`Step ${step}`, { step, total_steps: 10, valid_loss });
  }

  hangUp(): void {
    for (const reader of this.#open) reader.close();
    this.#open.clear();
  }

  readonly response = (): Response => {
    this.readers += 1;
    const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => {
        this.#events.forEach((_, index) => controller.enqueue(this.#bytes(index)));
        this.#open.add(controller);
      },
    });
    return new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
  };

  #bytes(index: number): Uint8Array<ArrayBuffer> {
    return new TextEncoder().encode(`data: ${JSON.stringify(this.#events[index])}\n\n`);
  }
}

let server: AccountServer;
let story: Story;
let user: ReturnType<typeof userEvent.setup>;
let current: Job;

beforeEach(() => {
  server = new AccountServer();
  story = new Story();
  user = userEvent.setup();
  current = job();
  setCsrfToken(null);
  const { answers } = server;
  answers["GET /v1/fine_tuning/jobs"] = () => Response.json({ object: "list", data: [current], has_more: false });
  answers["GET /v1/fine_tuning/jobs/ftjob-1"] = () => Response.json(current);
  answers["GET /v1/fine_tuning/jobs/ftjob-1/events"] = () => story.response();
  answers["GET /v1/fine_tuning/jobs/ftjob-1/checkpoints"] = () => Response.json({ object: "list", data: [], has_more: false });
  answers["GET /v1/files/file-1"] = () => Response.json({ id: "file-1", filename: "cats.jsonl", bytes: 100, created_at: 1 });
  answers["GET /v1/files"] = () => Response.json({ object: "list", data: [], has_more: false });
});

function open(hash: string): void {
  window.location.hash = hash;
  render(
    <QueryClientProvider client={new QueryClient({ defaultOptions: QUERY_OPTIONS })}>
      <Gate>
        <p>the chat</p>
      </Gate>
    </QueryClientProvider>,
  );
}

async function openAs(name: string, hash = "#/jobs/ftjob-1"): Promise<void> {
  server.signedIn = server.users.find((user) => user.name === name);
  open(hash);
  await screen.findByTestId("account-pages");
}

const points = () => screen.getByTestId("job-curve").dataset["points"];
const fact = (name: string) => screen.getByTestId("job-facts").querySelector(`[data-fact=${name}]`);

describe("a job that runs", () => {
  test("shows its curve as it grows, how far it is, and what it was asked for", async () => {
    current = job({ estimated_finish: Math.floor(Date.now() / 1000) + 300 });
    story.tell("Fine-tuning job started");
    await openAs("li");
    expect(await screen.findByTestId("no-curve")).toHaveTextContent("The model is being loaded");
    act(() => story.step(1, 4));
    await waitFor(() => expect(points()).toBe("1"));
    act(() => {
      story.step(2, 3, 3.5);
      story.step(3, 2.5);
    });
    await waitFor(() => expect(points()).toBe("4"));
    expect(screen.getByTestId("job-progress")).toHaveTextContent("Step 3 of 10about 5 minutes left");
    expect(screen.getByRole("progressbar")).toHaveValue(3);
    expect(fact("n_epochs")).toHaveTextContent("3");
    expect(fact("seed")).toHaveTextContent("7");
    await waitFor(() => expect(fact("trainingFile")).toHaveTextContent("cats.jsonl"));
    const events = within(screen.getByTestId("job-events"));
    expect(events.getAllByRole("listitem")).toHaveLength(1);
    expect(server.last("GET", "/v1/fine_tuning/jobs/ftjob-1/events").headers.get("X-CSRF-Token")).toBe("csrf-1");
  });

  test("what happened is told in the page's language, and what is not known there in the server's", async () => {
    setLanguage("zh");
    story.tell("Checkpoint created at step 12");
    story.tell("Something new");
    await openAs("li");
    const events = within(await screen.findByTestId("job-events"));
    await waitFor(() => expect(events.getAllByRole("listitem")).toHaveLength(2));
    expect(events.getByText("已在第 12 步保存检查点。")).not.toHaveAttribute("lang");
    expect(events.getByText("Something new")).toHaveAttribute("lang", "en");
  });

  test("the keyboard walks along the curve, and hears what stands there", async () => {
    story.step(1, 4);
    story.step(2, 3, 3.5);
    await openAs("li");
    const slider = await screen.findByRole("slider", { name: "Losses" });
    expect(slider).toHaveAttribute("aria-valuetext", "Step 2 · Training loss 3 · Validation loss 3.5");
    fireEvent.change(slider, { target: { value: "0" } });
    expect(slider).toHaveAttribute("aria-valuetext", "Step 1 · Training loss 4");
    expect(screen.getByTestId("job-curve-at")).toHaveTextContent("Step 1 · Training loss 4");
  });

  test("a line that breaks is taken up again, and nothing is drawn twice", async () => {
    story.step(1, 4);
    await openAs("li");
    await waitFor(() => expect(points()).toBe("1"));
    act(() => story.hangUp());
    await waitFor(() => expect(story.readers).toBe(2));
    act(() => story.step(2, 3));
    await waitFor(() => expect(points()).toBe("2"));
  });

  test("pause, resume, and cancel after a question", async () => {
    const { answers } = server;
    for (const [verb, status] of [["pause", "paused"], ["resume", "queued"], ["cancel", "cancelled"]] as const) {
      answers[`POST /v1/fine_tuning/jobs/ftjob-1/${verb}`] = () => Response.json((current = job({ status })));
    }
    await openAs("li");
    await user.click(await screen.findByTestId("pause-job"));
    expect(await screen.findByText("Paused")).toBeInTheDocument();
    await user.click(screen.getByTestId("resume-job"));
    expect(await screen.findByText("Waiting")).toBeInTheDocument();
    await user.click(screen.getByTestId("cancel-job"));
    expect(current.status).toBe("queued");
    await user.click(screen.getByTestId("ask-cancel-yes"));
    expect(await screen.findByText("Cancelled")).toBeInTheDocument();
    expect(screen.queryByTestId("cancel-job")).not.toBeInTheDocument();
  });

  test("what is refused is told", async () => {
    server.answers["POST /v1/fine_tuning/jobs/ftjob-1/pause"] = () =>
      refusal(400, "invalid_job_state", "The job ftjob-1 is paused already.");
    await openAs("li");
    await user.click(await screen.findByTestId("pause-job"));
    expect(await screen.findByTestId("failure")).toHaveTextContent("is paused already");
  });

  test("stands in the list with its curve", async () => {
    story.step(4, 2);
    await openAs("li", "#/jobs");
    expect(await screen.findByTestId("job-progress")).toHaveAttribute("data-step", "4");
    expect(points()).toBe("1");
    expect(screen.getByTestId("open-job")).toHaveAttribute("href", "#/jobs/ftjob-1");
    expect(screen.getByTestId("open-job")).toHaveTextContent("Cat talk");
  });
});

describe("a job that ended", () => {
  test("leads to the chat with its result, and deletes it after a question", async () => {
    current = job({ status: "succeeded", fine_tuned_model: RESULT, result_files: ["file-9"], trained_tokens: 1234 });
    const models = [{ id: "tiny" }, { id: RESULT, parent: "tiny" }];
    server.answers["GET /v1/models"] = () => Response.json({ object: "list", data: models });
    const removed: string[] = [];
    server.answers[`DELETE /v1/models/${encodeURIComponent(RESULT)}`] = () => {
      removed.push(RESULT);
      models.pop();
      return Response.json({ id: RESULT, object: "model", deleted: true });
    };
    await openAs("li");
    expect(await screen.findByTestId("result-name")).toHaveTextContent(RESULT);
    await user.click(screen.getByTestId("chat-with"));
    expect(localStorage.getItem("chatwright.model")).toBe(RESULT);
    await waitFor(() => expect(screen.queryByTestId("account-pages")).not.toBeInTheDocument());
    expect(window.location.hash).toBe("#/");
    act(() => {
      window.location.hash = "#/jobs/ftjob-1";
      window.dispatchEvent(new HashChangeEvent("hashchange"));
    });
    await user.click(await screen.findByTestId("delete-result"));
    expect(removed).toEqual([]);
    await user.click(screen.getByTestId("ask-delete-yes"));
    await waitFor(() => expect(screen.getByTestId("result")).toHaveAttribute("data-there", "false"));
    expect(screen.queryByTestId("chat-with")).not.toBeInTheDocument();
  });

  test("in failure names the line that is wrong, and shows it", async () => {
    const message = "The job failed due to an invalid file. Line 2: unknown role ('wizard').";
    current = job({ status: "failed", error: { code: "invalid_training_file", message, param: "training_file" } });
    server.answers["GET /v1/files/file-1/content"] = () => new Response('{"good": 1}\n{"role": "wizard"}\n{"good": 3}\n');
    await openAs("li");
    const alert = await screen.findByTestId("job-failure");
    expect(alert).toHaveTextContent("Line 2 of the training file is wrong");
    expect(await screen.findByTestId("wrong-line")).toHaveTextContent('{"role": "wizard"}');
    act(() => setLanguage("zh"));
    expect(alert).toHaveTextContent("训练文件第 2 行有误");
  });

  test("of somebody else is not there", async () => {
    server.answers["GET /v1/fine_tuning/jobs/ftjob-1"] = () => refusal(404, "not_found", "There is nothing of that id.");
    await openAs("li");
    expect(await screen.findByTestId("trouble")).toHaveTextContent("There is nothing of that id.");
  });
});

describe("a new job", () => {
  const file = { id: "file-1", object: "file", filename: "cats.jsonl", bytes: 2048, created_at: 1, purpose: "fine-tune" };

  test("is asked for with what was chosen, and opens", async () => {
    server.answers["GET /v1/files"] = () => Response.json({ object: "list", data: [file], has_more: false });
    server.answers["GET /v1/models"] = () =>
      Response.json({
        object: "list",
        data: [
          { id: "tiny", chat: true },
          { id: "labels", chat: false },
          { id: "shop", chat: true, parent: "tiny" },
          { id: RESULT, chat: true, parent: "tiny" },
        ],
      });
    server.answers["POST /v1/fine_tuning/jobs"] = () => Response.json(current);
    await openAs("li", "#/jobs/new");
    const models = await screen.findByTestId("job-model");
    expect(within(models).getAllByRole("option").map(({ textContent }) => textContent)).toEqual(["tiny", RESULT]);
    expect(screen.getByTestId("start-job")).toBeDisabled();
    await user.click(screen.getByTestId("method-dpo"));
    await user.selectOptions(screen.getByTestId("training-file"), "file-1");
    await user.type(screen.getByTestId("job-suffix"), " polite ");
    await user.click(screen.getByTestId("more-settings"));
    await user.type(screen.getByTestId("job-n_epochs"), "4");
    await user.type(screen.getByTestId("job-beta"), "0.2");
    await user.click(screen.getByTestId("start-job"));
    await waitFor(() =>
      expect(server.last("POST", "/v1/fine_tuning/jobs").body).toEqual({
        model: "tiny",
        training_file: "file-1",
        method: { type: "dpo", dpo: { hyperparameters: { n_epochs: 4, beta: 0.2 } } },
        suffix: "polite",
      }),
    );
    expect(window.location.hash).toBe("#/jobs/ftjob-1");
  });

  test("a file is uploaded, chosen, and refused in words", async () => {
    const sent: [string, FormData, string | undefined][] = [];
    let status = 413;
    class Request extends EventTarget {
      upload = new EventTarget();
      status = 0;
      response: unknown;
      responseType = "";
      #headers: Record<string, string> = {};
      #url = "";
      open = (method: string, url: string) => (this.#url = `${method} ${url}`);
      setRequestHeader = (name: string, value: string) => (this.#headers[name] = value);
      getResponseHeader = () => null;
      abort = () => this.dispatchEvent(new Event("abort"));
      send = (form: FormData) => {
        sent.push([this.#url, form, this.#headers["X-CSRF-Token"]]);
        this.status = status;
        this.response = status === 200 ? file : { error: { message: "The file is too large.", code: "too_large" } };
        queueMicrotask(() => this.dispatchEvent(new Event("load")));
      };
    }
    vi.stubGlobal("XMLHttpRequest", Request);
    await openAs("li", "#/jobs/new");
    const chosen = new File(["{}"], "cats.jsonl");
    await user.upload(await screen.findByTestId("training-input"), chosen);
    expect(await screen.findByTestId("failure")).toHaveTextContent("The file is too large.");
    status = 200;
    await user.upload(screen.getByTestId("training-input"), chosen);
    await waitFor(() => expect(screen.getByTestId("training-file")).toHaveValue("file-1"));
    expect(screen.getByTestId("training-file")).toHaveTextContent("cats.jsonl · 2 kB");
    const [url, form, token] = sent[1] as [string, FormData, string];
    expect([url, form.get("purpose"), (form.get("file") as File).name, token]).toEqual([
      "POST /v1/files",
      "fine-tune",
      "cats.jsonl",
      "csrf-1",
    ]);
  });
});

describe("a server without accounts", () => {
  test("asks for the admin token, and shows the jobs to who has it", async () => {
    setApiKey(null);
    const { fetch: answer } = globalThis;
    server.signedIn = server.users[0]; // behind the token everything answers
    vi.stubGlobal("fetch", async (input: globalThis.Request, init?: RequestInit) => {
      const { pathname } = new URL(typeof input === "string" ? input : input.url, "http://localhost");
      if (pathname === "/api/session") {
        return Response.json({ accounts: false, setup_needed: false, provider: null, user: null, scopes: [], csrf_token: null });
      }
      const headers = new Headers(init?.headers ?? input.headers);
      if (headers.get("Authorization") !== "Bearer right") return refusal(401, "invalid_admin_token", "This needs the admin token.");
      return answer(input, init);
    });
    open("#/jobs");
    await user.click(await screen.findByTestId("enter-token"));
    await user.type(screen.getByTestId("key-input"), "right{Enter}");
    expect(await screen.findByTestId("open-job")).toHaveTextContent("Cat talk");
    expect(screen.queryByTestId("nav-account")).not.toBeInTheDocument();
    expect(screen.queryByTestId("sign-out")).not.toBeInTheDocument();
  });
});

vi.setConfig({ testTimeout: 30_000 });
