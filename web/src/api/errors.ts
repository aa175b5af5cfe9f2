// What can go wrong with a request, sorted by what a person can do about it.
export type ErrorKind =
  | "key" // 401: a key is missing or wrong, or the session is over; 403 csrf: it is another one by now
  | "forbidden" // 403: the page was opened at an address the server does not answer to
  | "notFound" // 404: the model went away
  | "tooLong" // 400 context_length_exceeded
  | "invalid" // any other 4xx
  | "busy" // 503, and 429 of too many wrong passwords: try again later
  | "limit" // 429 rate_limit_exceeded: what one may ask in a minute, or at once, is used up
  | "quota" // 429 insufficient_quota: so are the tokens of this month, and waiting for seconds is no help
  | "network" // nothing answered
  | "server" // 5xx
  | "stream"; // the answer broke off in the middle

export class ApiError extends Error {
  /** `message` is the server's own sentence (English on /v1), or empty; `param` names the field that is wrong. */
  constructor(
    readonly kind: ErrorKind,
    message = "",
    readonly retryAfter_s?: number,
    readonly param?: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

interface ErrorBody {
  message?: unknown;
  param?: unknown;
  code?: unknown;
}

/** The inner object of `{"error": {"message", "type", "param", "code"}}`, or nothing when the body is something else. */
export function errorBody(body: unknown): ErrorBody | undefined {
  if (typeof body !== "object" || body === null || !("error" in body)) return undefined;
  const { error } = body;
  return typeof error === "object" && error !== null ? error : undefined;
}

function kindOf(status: number, code: unknown): ErrorKind {
  if (status === 401 || code === "csrf") return "key";
  if (status === 403) return "forbidden";
  if (status === 404) return "notFound";
  if (status === 429 && code === "insufficient_quota") return "quota";
  if (status === 429 && code === "rate_limit_exceeded") return "limit";
  if (status === 429 || status === 503) return "busy";
  if (code === "context_length_exceeded") return "tooLong";
  return status >= 500 ? "server" : "invalid";
}

export function errorFrom(status: number, body: unknown, retryAfter: string | null): ApiError {
  const error = errorBody(body);
  const message = typeof error?.message === "string" ? error.message : "";
  const seconds = Number(retryAfter ?? NaN);
  const param = typeof error?.param === "string" ? error.param : undefined;
  return new ApiError(kindOf(status, error?.code), message, seconds > 0 ? Math.ceil(seconds) : undefined, param);
}

export async function errorFromResponse(response: Response): Promise<ApiError> {
  const body: unknown = await response.json().catch(() => undefined); // a proxy's error page is not JSON
  return errorFrom(response.status, body, response.headers.get("Retry-After"));
}

/** Any failure of a request as an ApiError; `fetch` rejects with a TypeError when nothing answers. */
export function asApiError(error: unknown): ApiError {
  return error instanceof ApiError ? error : new ApiError("network");
}
