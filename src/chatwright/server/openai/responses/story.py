"""A response as numbered events: the same numbers whenever it is told, while it is written and from what was kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseErrorEvent,
    ResponseFailedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseQueuedEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)
from openai.types.responses.response_output_text import Logprob, LogprobTopLogprob
from pydantic import BaseModel

from chatwright.engine.text import TokenText
from chatwright.server.openai.responses.wire import OutputItem, as_json, event_json, output_item, response_object
from chatwright.server.openai.streaming import numbered_sse, obfuscated
from chatwright.store.ids import new_wire_id

ItemStatus = Literal["completed", "incomplete"]
# Of an item: how many characters each piece has that was streamed, and of how many tokens its probabilities are told.
Pieces = list[tuple[int, int]]


@dataclass(frozen=True)
class Told:
    """An event as it is sent. `number`: its place. `n_hidden`: how many of its bytes say something that its size shall not tell;
    None: that is not known, but `hides` whether there is something."""

    number: int
    text: str
    n_hidden: int | None = None
    hides: bool = False

    def sent(self, *, obfuscate: bool) -> str:
        """As it goes to somebody, who may want its size to tell nothing."""
        return obfuscated(self.text, self.n_hidden) if obfuscate and self.hides else self.text


class Story:
    """Makes the events of one response, in order, and the output that they come to. `head`: as `wire.new_head` makes it."""

    def __init__(self, head: dict[str, Any]) -> None:
        self.head = head
        self.output: list[OutputItem] = []
        self.pieces: list[Pieces] = []
        self.next_number = 0
        self._text: list[str] = []
        self._logprobs: list[Logprob] = []
        self._is_open = False

    def created(self) -> Iterator[Told]:
        """It is there."""
        yield self._told(ResponseCreatedEvent, response=response_object(self.head, []))
        if self.head["status"] == "queued":
            yield self._told(ResponseQueuedEvent, response=response_object(self.head, []))

    def begun(self) -> Iterator[Told]:
        """The model is at it."""
        self.head = self.head | {"status": "in_progress"}
        yield self._told(ResponseInProgressEvent, response=response_object(self.head, []))

    def text(self, text: str, logprobs: Sequence[Logprob], item_id: str | None = None) -> Iterator[Told]:
        """The model says something."""
        if not self._is_open or not isinstance(self.output[-1], ResponseOutputMessage):
            yield from self.close()
            yield from self._open_message(item_id or new_wire_id("msg"))
        if not text and not logprobs:
            return
        self._text.append(text)
        self._logprobs += logprobs
        self.pieces[-1].append((len(text), len(logprobs)))
        yield self._told(
            ResponseTextDeltaEvent,
            hidden=text,
            content_index=0,
            delta=text,
            item_id=self.output[-1].id,
            logprobs=[_short(logprob) for logprob in logprobs],
            output_index=len(self.output) - 1,
        )

    def call(self, name: str, call_id: str, item_id: str | None = None) -> Iterator[Told]:
        """The model calls a function."""
        yield from self.close()
        item = ResponseFunctionToolCall(
            id=item_id or new_wire_id("fc"),
            type="function_call",
            call_id=call_id,
            name=name,
            arguments="",
            status="in_progress",
        )
        yield from self._open(item)

    def arguments(self, text: str) -> Iterator[Told]:
        """The arguments of the call go on."""
        if text:
            self._text.append(text)
            self.pieces[-1].append((len(text), 0))
            yield self._told(
                ResponseFunctionCallArgumentsDeltaEvent,
                hidden=text,
                delta=text,
                item_id=self.output[-1].id,
                output_index=len(self.output) - 1,
            )

    def close(self, status: ItemStatus = "completed") -> Iterator[Told]:
        """The item that is open is over."""
        if not self._is_open:
            return
        self._is_open = False
        item, text, index = self.output[-1], "".join(self._text), len(self.output) - 1
        if isinstance(item, ResponseOutputMessage):
            part = ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=self._logprobs)
            place: dict[str, Any] = {"item_id": item.id, "output_index": index, "content_index": 0}
            logprobs = [_short(logprob) for logprob in self._logprobs]
            yield self._told(ResponseTextDoneEvent, text=text, logprobs=logprobs, **place)
            yield self._told(ResponseContentPartDoneEvent, part=part, **place)
            item = item.model_copy(update={"content": [part], "status": status})
        else:
            yield self._told(
                ResponseFunctionCallArgumentsDoneEvent, arguments=text, item_id=item.id, output_index=index
            )
            item = item.model_copy(update={"arguments": text, "status": status})
        self.output[-1] = item
        yield self._told(ResponseOutputItemDoneEvent, item=item, output_index=index)

    def ended(self, head: dict[str, Any]) -> Iterator[Told]:
        """It is over, as `head` says; the items are closed."""
        self.head = head
        response = response_object(head, self.output)
        if head["status"] == "completed":
            yield self._told(ResponseCompletedEvent, response=response)
        elif head["status"] == "failed":
            yield self._told(ResponseFailedEvent, response=response)
        else:
            # Of what was cancelled OpenAI's events know nothing; its status says it.
            yield self._told(ResponseIncompleteEvent, response=response)

    def broken_off(self, message: str, code: str) -> Told:
        """There is no response any more that could be over."""
        return self._told(ResponseErrorEvent, message=message, code=code, param=None)

    def _open_message(self, item_id: str) -> Iterator[Told]:
        item = ResponseOutputMessage(id=item_id, type="message", role="assistant", status="in_progress", content=[])
        yield from self._open(item)
        part = ResponseOutputText(type="output_text", text="", annotations=[], logprobs=[])
        yield self._told(
            ResponseContentPartAddedEvent,
            part=part,
            item_id=item_id,
            output_index=len(self.output) - 1,
            content_index=0,
        )

    def _open(self, item: OutputItem) -> Iterator[Told]:
        self._is_open = True
        self._text, self._logprobs = [], []
        self.output.append(item)
        self.pieces.append([])
        yield self._told(ResponseOutputItemAddedEvent, item=item, output_index=len(self.output) - 1)

    def _told(self, kind: type[BaseModel], hidden: str | None = None, **fields: Any) -> Told:
        name = kind.model_fields["type"].annotation.__args__[0]  # type: ignore[union-attr]
        number, self.next_number = self.next_number, self.next_number + 1
        event = kind(type=name, sequence_number=number, **fields)
        text = numbered_sse(name, as_json(event).decode() if "response" in fields else event_json(event))
        # Probabilities name the token too, and others beside it: of what length, only the whole event tells.
        n_hidden = None if hidden is None or fields.get("logprobs") else len(orjson.dumps(hidden))
        return Told(number, text, n_hidden, hides=hidden is not None)


def retold(
    head: dict[str, Any], contents: Sequence[dict[str, Any]], pieces: Sequence[Pieces] | None, after: int = -1
) -> Iterator[Told]:
    """The events of a response that is over, from what was kept of it: those that were sent when it was written.

    `pieces`: None where it never began, or was lost; what was sent of that is not known, and its end has a number behind `after`.
    """
    story = Story(head | {"status": "queued" if head["background"] else "in_progress"} | _UNKNOWN)
    yield from story.created()
    if pieces is None:
        story.next_number = max(story.next_number, after + 1)
    else:
        yield from story.begun()
        yield from _items(story, contents, pieces)
    yield from story.ended(head)


def _items(story: Story, contents: Sequence[dict[str, Any]], pieces: Sequence[Pieces]) -> Iterator[Told]:
    for number, content in enumerate(contents):
        item = output_item(content)
        parts = pieces[number] if number < len(pieces) else []
        at = 0
        if isinstance(item, ResponseOutputMessage):
            assert item.content[0].type == "output_text"
            text, logprobs, at_token = item.content[0].text, item.content[0].logprobs or [], 0
            yield from story.text("", [], item.id)
            for n_characters, n_tokens in parts:
                yield from story.text(text[at : at + n_characters], logprobs[at_token : at_token + n_tokens])
                at, at_token = at + n_characters, at_token + n_tokens
        else:
            yield from story.call(item.name, item.call_id, item.id)
            for n_characters, _ in parts:
                yield from story.arguments(item.arguments[at : at + n_characters])
                at += n_characters
        yield from story.close("completed" if item.status == "completed" else "incomplete")


# What is known of a response only when it is over.
_UNKNOWN: dict[str, Any] = {"completed_at": None, "error": None, "incomplete_details": None, "usage": None}


def logprobs_of(tokens: Sequence[TokenText]) -> list[Logprob]:
    """Probabilities of tokens, as a text has them."""
    return [
        Logprob(
            token=token.text,
            bytes=list(token.bytes),
            logprob=token.logprob if token.logprob is not None else 0.0,
            top_logprobs=[
                LogprobTopLogprob(token=other.text, bytes=list(other.bytes), logprob=other.logprob)
                for other in token.top
            ],
        )
        for token in tokens
    ]


def _short(logprob: Logprob) -> dict[str, Any]:
    """The same, as events have them: without bytes."""
    return {
        "token": logprob.token,
        "logprob": logprob.logprob,
        "top_logprobs": [{"token": other.token, "logprob": other.logprob} for other in logprob.top_logprobs],
    }
