// The usage page, as members and administrators see it.
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, describe, expect, test, vi } from "vitest";

import { Gate, QUERY_OPTIONS } from "../src/account/Gate";
import { setCsrfToken } from "../src/api/key";
import { setLanguage } from "../src/i18n";
import { niceEnd, niceTicks } from "../src/ui/chart";
import { grouped, type Row, spans, sum } from "../src/usage/sums";
import { AccountServer } from "./accounts";
import { refusal } from "./server";

const DAY = 86_400;
const END = 20_000 * DAY;
const row = (day: number, more: Partial<Row> = {}): Row => ({
  day: END - day * DAY,
  model: "tiny",
  requests: 1,
  input_tokens: 100,
  cached_tokens: 40,
  output_tokens: 10,
  ...more,
});
const limit = (more: object) => ({
  object: "limit",
  id: "limit-1",
  key_id: null,
  user_id: null,
  model: null,
  requests_per_minute: null,
  tokens_per_minute: null,
  concurrent_requests: null,
  tokens_per_month: null,
  created_at: 1,
  requests_of_minute: 0,
  tokens_of_minute: 0,
  tokens_of_month: 0,
  running: 0,
  ...more,
});

let server: AccountServer;
let user: ReturnType<typeof userEvent.setup>;

beforeEach(() => {
  server = new AccountServer();
  user = userEvent.setup();
  setCsrfToken(null);
});

async function openAs(name: string): Promise<void> {
  server.signedIn = server.users.find((user) => user.name === name);
  window.location.hash = "#/usage";
  render(
    <QueryClientProvider client={new QueryClient({ defaultOptions: QUERY_OPTIONS })}>
      <Gate>
        <p>the chat</p>
      </Gate>
    </QueryClientProvider>,
  );
  await screen.findByTestId("account-pages");
}

function own(data: Row[], limits: object[] = []): void {
  server.answers["GET /api/usage"] = ({ query }) =>
    Response.json({ object: "usage", start_time: END - Number(query.get("days")) * DAY, end_time: END, data, limits });
}

function all(data: Row[], limits: object[] = []): void {
  server.answers["GET /api/usage/all"] = ({ query }) =>
    Response.json({
      object: "usage_of_all",
      start_time: END - Number(query.get("days")) * DAY,
      end_time: END,
      data: data.map((one) => ({ user_id: null, key_id: null, ...one })),
      limits,
      names: [
        { object: "usage_name", id: "user-li", name: "li", owner: null },
        { object: "usage_name", id: "key-1", name: "laptop", owner: "li" },
      ],
    });
}

const cells = (name: string) =>
  within(screen.getAllByTestId("usage-row").find((one) => one.dataset["name"] === name) as HTMLElement)
    .getAllByRole("cell")
    .map(({ textContent }) => textContent);

describe("sums", () => {
  test("every day has its place, and what is grouped is all there is", () => {
    const rows = [row(1), row(1, { model: "other" }), row(3, { requests: 5 })];
    const days = spans(rows, END - 4 * DAY, END);
    expect(days.map(({ requests }) => requests)).toEqual([0, 5, 0, 2]);
    for (const by of ["day", "model"] as const) expect(sum(grouped(rows, by).map(([, used]) => used))).toEqual(sum(rows));
    expect(grouped(rows, "day").map(([day]) => Number(day))).toEqual([END - DAY, END - 3 * DAY]);
  });

  test("a year is drawn in weeks, and loses no token", () => {
    const rows = Array.from({ length: 366 }, (_, index) => row(index + 1, { requests: index }));
    const weeks = spans(rows, END - 366 * DAY, END);
    expect(weeks).toHaveLength(53);
    expect(sum(weeks)).toEqual(sum(rows));
  });

  test.each([
    [0, 7, 4],
    [0.0021, 0.0102, 4],
    [1, 3000, 6],
    [0, 250_000, 4],
  ])("round numbers from %d to %d", (low, high, count) => {
    const ticks = niceTicks(low, high, count);
    expect(ticks.length).toBeGreaterThan(1);
    expect(ticks.length).toBeLessThanOrEqual(count + 2);
    for (const tick of ticks) expect(tick >= low && tick <= high).toBe(true);
    expect(niceEnd(high)).toBeGreaterThanOrEqual(high);
    expect(niceEnd(high)).toBeLessThanOrEqual(high * 1.6);
  });
});

describe("one's own usage", () => {
  test("is summed up, drawn, and told by day, model and key", async () => {
    server.keys = [server.key("laptop", { id: "key-1" })];
    own([row(1, { key_id: "key-1", input_tokens: 1500 }), row(2, { model: "other" }), row(2, { key_id: "key-gone" })]);
    await openAs("li");
    expect(await screen.findByTestId("total-input")).toHaveTextContent("1,700");
    expect(screen.getByTestId("total-requests")).toHaveTextContent("3");
    expect(screen.getByTestId("total-cached")).toHaveTextContent("120");
    expect(screen.getByTestId("total-output")).toHaveTextContent("30");
    expect(screen.getByTestId("usage-chart").querySelectorAll("rect.bar-3")).toHaveLength(2);
    expect(cells(String(END - DAY))).toEqual(["1", "1,500", "40", "10"]);
    await user.selectOptions(screen.getByTestId("usage-by"), "key");
    expect(screen.getAllByTestId("usage-row").map((one) => within(one).getByRole("rowheader").textContent)).toEqual([
      "laptop",
      "Without a key: in the web app",
      "key-gone",
    ]);
    await user.selectOptions(screen.getByTestId("usage-by"), "model");
    expect(cells("other")).toEqual(["1", "100", "40", "10"]);
    expect(screen.queryByTestId("usage-whose")).not.toBeInTheDocument();
    expect(server.asked.some(({ path }) => path === "/api/usage/all")).toBe(false);
  });

  test("the range is asked for, and requests can be drawn instead", async () => {
    own([row(1, { requests: 3 })]);
    await openAs("li");
    await user.selectOptions(await screen.findByTestId("usage-range"), "7");
    await user.selectOptions(await screen.findByTestId("usage-measure"), "requests");
    await waitFor(() => expect(screen.getByTestId("usage-chart").querySelectorAll("rect[y]")).toHaveLength(1));
    expect(screen.getByTestId("usage-chart")).toHaveTextContent("Requests by day (UTC):");
  });

  test("limits stand beside what counts against them, and are not theirs to change", async () => {
    own([], [limit({ user_id: "user-li", tokens_per_month: 1000, tokens_of_month: 950, concurrent_requests: 0 })]);
    await openAs("li");
    expect(await screen.findByTestId("usage-none")).toBeInTheDocument();
    expect(screen.getByTestId("limit")).toHaveTextContent("All that you do");
    const month = within(screen.getByTestId("meter-tokens_per_month"));
    expect(month.getByRole("meter", { name: "Tokens this month" })).toHaveValue(0.95);
    expect(screen.getByTestId("meter-tokens_per_month")).toHaveTextContent("950 of 1,000");
    expect(within(screen.getByTestId("meter-concurrent_requests")).getByRole("meter")).toHaveValue(1);
    expect(screen.queryByTestId("meter-tokens_per_minute")).not.toBeInTheDocument();
    for (const control of ["new-limit", "change-limit", "remove-limit"]) {
      expect(screen.queryByTestId(control)).not.toBeInTheDocument();
    }
  });

  test("speaks Chinese", async () => {
    act(() => setLanguage("zh"));
    own([row(1)]);
    await openAs("li");
    expect(await screen.findByRole("heading", { name: "用量" })).toBeInTheDocument();
    expect(await screen.findByTestId("no-limits")).toHaveTextContent("你没有任何限额。");
  });

  test("a refusal is told, and asked again", async () => {
    own([row(1)]);
    server.answers["GET /api/usage"] = () => refusal(503, "store_unavailable", "The database is away.");
    await openAs("li");
    expect(await screen.findByTestId("trouble")).toHaveTextContent("The database is away.");
    own([row(1)]);
    await user.click(screen.getByTestId("retry"));
    expect(await screen.findByTestId("total-requests")).toHaveTextContent("1");
  });
});

describe("everybody's usage", () => {
  test("is for administrators, by users and keys with their names", async () => {
    own([]);
    all([row(1, { user_id: "user-li", key_id: "key-1" }), row(1)]);
    await openAs("ann");
    await user.selectOptions(await screen.findByTestId("usage-whose"), "all");
    await user.selectOptions(await screen.findByTestId("usage-by"), "user");
    await waitFor(() => expect(screen.getByTestId("usage-table")).toHaveAttribute("data-by", "user"));
    expect(screen.getByRole("rowheader", { name: "li" })).toBeInTheDocument();
    expect(screen.getByRole("rowheader", { name: /^Nobody/ })).toBeInTheDocument();
    await user.selectOptions(screen.getByTestId("usage-by"), "key");
    expect(await screen.findByRole("rowheader", { name: "li · laptop" })).toBeInTheDocument();
  });

  test("limits are set, changed and taken away", async () => {
    own([]);
    all([], [limit({ key_id: "key-1", tokens_per_minute: 50 })]);
    const calls: unknown[] = [];
    server.answers["PUT /api/limits"] = ({ body }) => {
      calls.push(body);
      return Response.json(limit({}));
    };
    server.answers["DELETE /api/limits/limit-1"] = () => {
      calls.push("gone");
      return Response.json({ id: "limit-1", deleted: true });
    };
    await openAs("ann");
    await user.selectOptions(await screen.findByTestId("usage-whose"), "all");
    await user.click(await screen.findByTestId("new-limit"));
    expect(screen.getByTestId("save-limit")).toBeDisabled();
    await waitFor(() => expect(within(screen.getByTestId("limit-subject")).getAllByRole("option")).toHaveLength(3));
    await user.selectOptions(screen.getByTestId("limit-subject"), "user-li");
    await user.type(screen.getByTestId("limit-tokens_per_month"), "5000");
    await user.click(screen.getByTestId("save-limit"));
    await waitFor(() => expect(screen.getByTestId("limit-dialog")).not.toHaveAttribute("open"));
    const nothing = { concurrent_requests: null, requests_per_minute: null };
    expect(calls.pop()).toEqual({ user_id: "user-li", tokens_per_month: 5000, tokens_per_minute: null, ...nothing });

    await user.click(screen.getByRole("button", { name: "Change the limit: Key li · laptop" }));
    expect(screen.getByTestId("limit-tokens_per_minute")).toHaveValue(50);
    await user.clear(screen.getByTestId("limit-tokens_per_minute"));
    await user.click(screen.getByTestId("save-limit"));
    await waitFor(() => expect(calls).toEqual(["gone"]));
    await user.click(screen.getByTestId("remove-limit"));
    await waitFor(() => expect(calls).toEqual(["gone", "gone"]));
  });

  test("what may not be limited is told in the dialog", async () => {
    own([]);
    all([]);
    server.answers["PUT /api/limits"] = () => refusal(403, "forbidden", "Only owners may do this to an owner.");
    await openAs("ann");
    await user.selectOptions(await screen.findByTestId("usage-whose"), "all");
    await user.click(await screen.findByTestId("new-limit"));
    await user.selectOptions(screen.getByTestId("limit-kind"), "model");
    await waitFor(() => expect(within(screen.getByTestId("limit-subject")).getAllByRole("option")).toHaveLength(2));
    await user.selectOptions(screen.getByTestId("limit-subject"), "tiny");
    await user.type(screen.getByTestId("limit-concurrent_requests"), "2");
    await user.click(screen.getByTestId("save-limit"));
    expect(await within(screen.getByTestId("limit-dialog")).findByRole("alert")).toHaveTextContent("Only owners");
  });
});

vi.setConfig({ testTimeout: 30_000 });
