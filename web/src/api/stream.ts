// One chat completion as a stream of text: server-sent events over fetch, since EventSource can neither POST nor send a key.
import { EventSourceParserStream } from "eventsource-parser/stream";

import { ApiError, asApiError, errorBody, errorFromResponse } from "./errors";
import { authorization } from "./key";

export interface ChatRequest {
  model: string;
  messages: { role: "system" | "user" | "assistant"; content: string }[];
  temperature: number;
  repetition_penalty: number;
}

export type FinishReason = "stop" | "length";

export interface ChatChunk {
  text: string;
  finish?: FinishReason;
}

interface WireChunk {
  choices?: { delta?: { content?: string | null }; finish_reason?: string | null }[];
}

function parse(data: string): ChatChunk {
  let body: unknown;
  try {
    body = JSON.parse(data);
  } catch {
    throw new ApiError("stream"); // cut off in the middle of an event
  }
  const error = errorBody(body);
  if (error) throw new ApiError("stream", typeof error.message === "string" ? error.message : "");
  const choice = (body as WireChunk).choices?.[0];
  return {
    text: choice?.delta?.content ?? "",
    ...(choice?.finish_reason ? { finish: choice.finish_reason === "length" ? "length" : "stop" } : {}),
  };
}

/**
 * Yields the answer's pieces as they arrive. Aborting `signal` closes the connection, which is what stops the engine;
 * the generator then ends with the signal's AbortError. Every other failure is an ApiError.
 */
export async function* streamChat(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatChunk> {
  let response: Response;
  try {
    response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream", ...authorization() },
      body: JSON.stringify({ ...request, stream: true }),
      signal,
    });
  } catch (error) {
    signal.throwIfAborted();
    throw asApiError(error);
  }
  if (!response.ok || !response.body) throw await errorFromResponse(response);

  const reader = response.body
    .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array<ArrayBuffer>>)
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  let ended = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (value.data === "[DONE]") {
        ended = true;
        break;
      }
      yield parse(value.data);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof ApiError ? error : new ApiError("stream");
  } finally {
    await reader.cancel().catch(() => undefined);
  }
  if (!ended) throw new ApiError("stream");
}
