"""Responses that are being written: to their end whether anybody listens or not, and followed by whoever does.

Every response is written here, also one that is not kept; unless it is in the background, it ends when its client leaves. One
in the background waits for room in the engine instead of being refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from chatwright.engine.text import TextDelta, TokenText
from chatwright.errors import (
    ChatwrightError,
    EngineError,
    OverloadedError,
    StorageError,
    StoreError,
    StoreUnavailableError,
)
from chatwright.server.errors import log_crash
from chatwright.server.openai.responses.items import kept
from chatwright.server.openai.responses.requests import fields_of_responses
from chatwright.server.openai.responses.story import Story, Told, logprobs_of
from chatwright.server.openai.responses.wire import as_values, ended_head, error_of, usage_of
from chatwright.store.actor import Actor
from chatwright.store.database import Database
from chatwright.store.responses import rows
from chatwright.store.responses.items import KeptItem
from chatwright.store.responses.rows import Ended, Status

if TYPE_CHECKING:  # chat's routes need the server's state, which has one of these
    from chatwright.server.openai.chat import ChatJob

log = logging.getLogger(__name__)

# How often the server says of what it writes that it is there, and looks whether that is still wanted.
LOOK_EVERY_S = 2.0
# How long the last word on a response is tried to be written, while the database is away: the pauses between the tries.
LAST_TRIES_S = (0.0, 1.0, 2.0, 5.0, 10.0)
# Responses in the background: those that are in the engine, or wait for room in it; all, and those of one user.
BACKGROUND_AT_ONCE = 16
MAX_BACKGROUND = 256
MAX_BACKGROUND_OF_ONE = 64
FULL_QUEUE_PAUSE_S = 0.1
UNAVAILABLE = (StoreError, StoreUnavailableError, StorageError)


@dataclass(frozen=True)
class Keeping:
    """For whom a response is kept, and what was said to the model."""

    actor: Actor
    said: Sequence[KeptItem]
    previous_id: str | None
    conversation_id: str | None


@dataclass(eq=False)
class Running:
    """A response that is written here. `keeping`: None where nothing of it is to be left. `failure`: why it failed, or did not
    begin."""

    job: ChatJob
    story: Story
    background: bool
    keeping: Keeping | None
    told: list[Told] = field(default_factory=list)
    is_over: bool = False
    status: Status | None = None
    failure: ChatwrightError | None = None
    began: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    n_output: int = 0
    n_cached: int = 0
    is_filtered: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _writer: asyncio.Task[Status] | None = None
    _is_stopped: bool = False

    @property
    def id(self) -> str:
        """Of the response."""
        found: str = self.story.head["id"]
        return found

    @property
    def owner_id(self) -> str | None:
        """Whose it is."""
        return None if self.keeping is None else self.keeping.actor.user_id

    def tell(self, events: Iterable[Told]) -> None:
        """Those who follow hear it."""
        before = len(self.told)
        self.told += events
        if len(self.told) > before:
            self._changed.set()
            self._changed = asyncio.Event()

    def stop(self) -> None:
        """End it soon, if it does not end by itself before."""
        self._is_stopped = True
        if self._writer is not None:
            self._writer.cancel()

    async def run(self, writer: asyncio.Task[Status]) -> Status:
        """How `writer` ended. Raises what it raises."""
        self._writer = writer
        if self._is_stopped:
            writer.cancel()
        await asyncio.wait({writer})
        return "cancelled" if writer.cancelled() else writer.result()

    def close(self, events: Iterable[Told]) -> None:
        """The last events."""
        self.is_over = True
        self.told += events
        self._changed.set()

    async def follow(self, first: int = 0) -> AsyncGenerator[Told, None]:
        """Its events from a number on, to the last. A slow reader fills no memory: they are there in any case."""
        while True:
            changed, is_over = self._changed, self.is_over
            while first < len(self.told):
                yield self.told[first]
                first += 1
            if is_over:
                return
            await changed.wait()

    async def finished(self) -> None:
        """Wait for its end."""
        async with aclosing(self.follow(len(self.told))) as events:
            async for _ in events:
                pass


class RunningResponses:
    """One per app. `server`: a name that this server, and no other, has again after a restart."""

    def __init__(self, database: Database | None, server: str, cut_off: asyncio.Event) -> None:
        self._database = database
        self._server = server
        self._cut_off = cut_off
        self._running: dict[str, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._places = asyncio.Semaphore(BACKGROUND_AT_ONCE)

    def get(self, response_id: str) -> Running | None:
        """One that is written here."""
        return self._running.get(response_id)

    async def recover(self) -> None:
        """Say what became of those that this server wrote when it ended without warning."""
        if self._database is not None:
            try:
                async with self._database.write() as session:
                    await rows.end_lost(session, self._server, self._running)
            except UNAVAILABLE as error:  # `settle` comes back to each
                log.warning("interrupted responses could not be looked for: %s", error)

    async def settle(self, response_id: str) -> None:
        """The same for one, of whichever server, when somebody asks for it."""
        if self._database is not None and response_id not in self._running:
            async with self._database.write() as session:
                await rows.end_lost(session, self._server, self._running, response_id)

    async def start(self, job: ChatJob, head: dict[str, Any], keeping: Keeping | None) -> Running:
        """Begin to write a response. One in the background is there when this returns; of another one `began` is to be awaited,
        which raises what keeps it from beginning.

        Raises OverloadedError, StoreError and its kin.
        """
        background: bool = head["background"]
        if background:
            head = head | {"status": "queued"}
            owners = [other.owner_id for other in self._running.values() if other.background]
            mine = keeping.actor.user_id if keeping is not None else None
            if len(owners) >= MAX_BACKGROUND or owners.count(mine) >= MAX_BACKGROUND_OF_ONE:
                raise OverloadedError("Too many responses are being written in the background. Try again in a moment.")
        running = Running(job, Story(head), background, keeping)
        # Before its row is there for others to see: one that nobody writes would be called failed.
        self._running[running.id] = running
        try:
            if background:
                await self._add(running)
                running.tell(running.story.created())
                running.began.set_result(None)
        except BaseException:
            del self._running[running.id]
            raise
        task = asyncio.create_task(self._write(running))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._database is not None and keeping is not None and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.create_task(self._keep())
        return running

    async def close(self) -> None:
        """Wait for what is being written: to its end, or until the app's `cut_off` ends it."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _add(self, running: Running) -> None:
        keeping, head = running.keeping, running.story.head
        if keeping is None:
            return
        assert self._database is not None, "what is kept needs a store"
        row = rows.new_row(
            keeping.actor,
            running.id,
            head["status"],
            _json(head),
            self._server,
            keeping.previous_id,
            keeping.conversation_id,
        )
        async with self._database.write() as session:
            await rows.add_response(session, keeping.actor, row, keeping.said)

    async def _write(self, running: Running) -> None:
        try:
            last = await self._to_the_end(running)
        except Exception as error:  # noqa: BLE001  an edge: nobody awaits this task, and its readers must be told
            log_crash("the end of a response could not be written", error)
            message = "The server failed while it wrote this response. Its log says where."
            last = [running.story.broken_off(message, "server_error")]
        del self._running[running.id]
        running.close(last)
        if running.keeping is not None and not running.told:
            await self._clear(running.id)

    async def _clear(self, response_id: str) -> None:
        """It was stopped just when its row was written: nobody knows of it, but the row must not say that it goes on."""
        try:
            await self.settle(response_id)
        except UNAVAILABLE as error:  # the next start, or whoever asks for it, comes back to it
            log.warning("a response that never began could not be cleared away: %s", error)

    async def _to_the_end(self, running: Running) -> list[Told]:
        status: Status = "failed"
        error: dict[str, Any] | None = None
        try:
            status = await running.run(asyncio.create_task(self._generate(running)))
        except ChatwrightError as failure:
            running.failure = failure
            if not running.began.done():
                return self._refused(running, failure)
            if isinstance(failure, OverloadedError) and self._cut_off.is_set():
                failure = OverloadedError("The server was shut down while it wrote this response. Ask again.")
            error = error_of(failure)
        except Exception as failure:  # noqa: BLE001  an edge: nobody awaits this task
            log_crash("a response failed", failure)
            crash = EngineError("The server failed while it wrote this response. Its log says where.")
            running.failure = crash
            if not running.began.done():
                return self._refused(running, crash)
            error = error_of(crash)
        if not running.began.done():  # stopped before it began: there is nobody to tell, and nothing to keep
            running.began.cancel()
            return []
        running.tell(running.story.close("completed" if status == "completed" else "incomplete"))
        usage = None
        if running.n_output or status in ("completed", "incomplete"):
            usage = usage_of(running.job.n_prompt, running.n_cached, running.n_output)
        head = ended_head(running.story.head, status, usage=usage, error=error, is_filtered=running.is_filtered)
        if running.keeping is not None and not await self._last_word(running, status, head):
            return [running.story.broken_off("The response was deleted while it was written.", "response_deleted")]
        running.status = status
        return list(running.story.ended(head))

    def _refused(self, running: Running, failure: ChatwrightError) -> list[Told]:
        running.began.set_exception(failure)
        running.began.exception()  # heard: the client may be gone, and then nobody else listens
        return []

    async def _generate(self, running: Running) -> Status:
        """Write it. Returns how it ended."""
        if not running.background:
            with fields_of_responses():
                return await self._pump(running)
        async with self._places:
            while True:
                try:
                    return await self._pump(running)
                except OverloadedError:
                    if self._cut_off.is_set() or running.n_output:
                        raise
                    await asyncio.sleep(FULL_QUEUE_PAUSE_S)

    async def _pump(self, running: Running) -> Status:
        answer, story, job = running.job.form.choice(), running.story, running.job
        status: Status = "completed"
        unsaid: list[TokenText] = []
        has_begun = False
        async with aclosing(job.events()) as events:
            async for event in events:
                if not has_begun:  # not before the engine has: what it refuses gets a status of its own
                    has_begun = True
                    await self._begin(running)
                if isinstance(event, TextDelta):
                    running.n_output += len(event.tokens)
                    unsaid += event.tokens if job.body.logprobs else ()
                    deltas = answer.push(event.text)
                else:
                    deltas, reason = answer.finish(event)
                    running.n_output, running.n_cached = event.n_tokens, event.reused_tokens
                    status = "incomplete" if reason in ("length", "content_filter") else "completed"
                    running.is_filtered = reason == "content_filter"
                for number, delta in enumerate(deltas, start=1):
                    if delta.content is not None and not delta.tool_calls:
                        is_last = number == len(deltas)
                        running.tell(story.text(delta.content, logprobs_of(unsaid) if is_last else []))
                        unsaid = [] if is_last else unsaid
                    for call in delta.tool_calls or ():
                        assert call.function is not None
                        unsaid = []  # what writes a call has no text
                        if call.id is not None:
                            running.tell(story.call(call.function.name or "", call.id))
                        running.tell(story.arguments(call.function.arguments or ""))
        return status

    async def _begin(self, running: Running) -> None:
        story = running.story
        if not running.background:
            await self._add(running)
            running.tell(story.created())
        running.tell(story.begun())
        if running.background and self._database is not None:
            try:
                async with self._database.write() as session:
                    await rows.begin(session, running.id, _json(story.head))
            except UNAVAILABLE as error:  # it stays queued to those who ask, until its end is written
                log.warning("the beginning of a response could not be saved: %s", error)
        if not running.began.done():
            running.began.set_result(None)

    async def _last_word(self, running: Running, status: Status, head: Mapping[str, Any]) -> bool:
        """Write down how it ended. False where it is gone."""
        assert self._database is not None, "what is kept needs a store"
        story = running.story
        output = [kept(as_values(item)) for item in story.output]
        pieces = None if story.head["status"] == "queued" else _json(story.pieces)
        ended = Ended(status, _json(head), pieces, output)
        for pause_s in LAST_TRIES_S:
            await asyncio.sleep(0 if self._cut_off.is_set() else pause_s)
            try:
                async with self._database.write() as session:
                    return await rows.end(session, running.id, ended)
            except UNAVAILABLE as error:
                log.warning("the end of a response could not be saved: %s", error)
                failed = error
                if self._cut_off.is_set():
                    break
        raise failed

    async def _keep(self) -> None:
        """End what nobody shall have, as long as anything is being written."""
        assert self._database is not None
        while self._running:
            await asyncio.sleep(LOOK_EVERY_S)
            ids = [running.id for running in self._running.values() if running.keeping is not None and running.told]
            try:
                async with self._database.write() as session:
                    unwanted = await rows.note_alive(session, self._server, ids)
            except UNAVAILABLE as error:
                log.warning("responses could not be looked after: %s", error)
                continue
            except Exception as error:  # noqa: BLE001  an edge: nobody awaits this task
                log_crash("responses could not be looked after", error)
                continue
            for response_id in unwanted:
                if (running := self._running.get(response_id)) is not None:
                    running.stop()


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def pieces_of(text: str | None) -> list[list[tuple[int, int]]] | None:
    """The inverse for the pieces of a row."""
    if text is None:
        return None
    return [[(n_characters, n_tokens) for n_characters, n_tokens in item] for item in json.loads(text)]
