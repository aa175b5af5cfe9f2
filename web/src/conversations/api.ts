// The typed calls of conversations, and the events of an answer.
import { EventSourceParserStream } from "eventsource-parser/stream";
import i18next from "i18next";

import { client } from "../account/api";
import { answer } from "../api/client";
import { ApiError, asApiError, type ErrorKind, errorFrom, errorFromResponse } from "../api/errors";
import { authorization } from "../api/key";
import type { components } from "../api/schema";

type Schemas = components["schemas"];
export type Conversation = Schemas["ConversationObject"];
export type ConversationPage = Schemas["ConversationObjects"];
export type OpenConversation = Schemas["OpenConversation"];
export type StoredMessage = Schemas["MessageObject"];
export type Generation = Schemas["GenerationObject"];

const at = (conversation_id: string) => ({ params: { path: { conversation_id } } });

export const listConversations = (after: string | undefined, signal?: AbortSignal): Promise<ConversationPage> =>
  answer(client().GET("/api/conversations", { params: { query: after === undefined ? {} : { after } }, signal }));

export const beginConversation = (): Promise<Conversation> => answer(client().POST("/api/conversations", { body: {} }));

export const openConversation = (id: string, signal?: AbortSignal): Promise<OpenConversation> =>
  answer(client().GET("/api/conversations/{conversation_id}", { ...at(id), signal }));

export const renameConversation = (id: string, title: string): Promise<Conversation> =>
  answer(client().PATCH("/api/conversations/{conversation_id}", { ...at(id), body: { title } }));

export const showBranch = (id: string, active_message_id: string): Promise<Conversation> =>
  answer(client().PATCH("/api/conversations/{conversation_id}", { ...at(id), body: { active_message_id }, keepalive: true }));

export const deleteConversation = (id: string): Promise<unknown> =>
  answer(client().DELETE("/api/conversations/{conversation_id}", at(id)));

export const generate = (id: string, body: Schemas["GenerateBody"]): Promise<Generation> =>
  answer(client().POST("/api/conversations/{conversation_id}/generations", { ...at(id), body }));

export const stopMessage = (conversation_id: string, message_id: string): Promise<StoredMessage> =>
  answer(
    client().POST("/api/conversations/{conversation_id}/messages/{message_id}/stop", {
      params: { path: { conversation_id, message_id } },
      body: {},
    }),
  );

/** What can be done about an answer that was not finished. */
export function failureOf(message: StoredMessage): ApiError | undefined {
  const kinds: Record<string, ErrorKind> = { engine_overloaded: "busy", context_length_exceeded: "tooLong" };
  return message.error ? new ApiError(kinds[message.error.code] ?? "stream", message.error.message) : undefined;
}

export interface AnswerEvent {
  /** Where to go on from when the line breaks after this. */
  position: string;
  text?: string;
  /** The whole answer: there is no more to come. */
  message?: StoredMessage;
}

/** The events of an answer after a position. Every failure is an ApiError; a line that breaks is one of kind "network". */
export async function* followMessage(
  conversation: string,
  message: string,
  position: string,
  signal: AbortSignal,
): AsyncGenerator<AnswerEvent> {
  const { Authorization: _, ...token } = authorization();
  let response: Response;
  try {
    response = await fetch(`/api/conversations/${conversation}/messages/${message}/events`, {
      headers: { Accept: "text/event-stream", "Accept-Language": i18next.language, "Last-Event-ID": position, ...token },
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
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const data = JSON.parse(value.data) as Schemas["MessageEvent"];
      if (data.error) throw errorFrom(data.error.code === "not_found" ? 404 : 503, { error: data.error }, null);
      yield {
        position: value.id ?? position,
        ...(data.text ? { text: data.text } : {}),
        ...(data.message ? { message: data.message } : {}),
      };
    }
  } catch (error) {
    signal.throwIfAborted();
    throw asApiError(error);
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
