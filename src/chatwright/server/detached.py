"""Answers of the web app's conversations: written to their end whether anybody listens or not, and followed by whoever does.

A position is how many characters of the answer came before. It names every event, so that a reader who was away goes on from any
of them; and as an answer is saved while it grows, that also works for one that another server writes, or that is long finished.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Literal

from chatwright.engine.text import TextDelta, TextFinish, TextModel, TextRequest
from chatwright.errors import (
    ChatwrightError,
    EngineError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    StorageError,
    StoreError,
    StoreUnavailableError,
)
from chatwright.server.errors import as_wire_error, log_crash
from chatwright.server.metering import Bill, Charge
from chatwright.server.openai.generation import generate_charged, wanted_of, wire_reason
from chatwright.store.actor import Actor
from chatwright.store.conversations import generations
from chatwright.store.conversations.generations import Begun, Ended
from chatwright.store.conversations.messages import find_message
from chatwright.store.conversations.texts import Failure, storable
from chatwright.store.database import Database
from chatwright.store.ids import new_id
from chatwright.store.tables import Generation, Message

log = logging.getLogger(__name__)

# How often answers are saved while they grow, and looked after: who was suspended meanwhile is written for no longer.
SAVE_EVERY_S = 1.0
PING_EVERY_S = 15.0
# How long the last word on an answer is tried to be written, while the database is away; the pauses between the tries.
LAST_TRIES_S = (0.0, 1.0, 2.0, 5.0, 10.0)
SHUT_DOWN = Failure.of(
    OverloadedError("The server was shut down while it wrote this answer. What there was of it is kept."), "interrupted"
)
FILTERED = Failure.of(
    InvalidRequestError("Moderation ended this answer: what would have come next was classified as harmful."),
    "content_filter",
)
UNAVAILABLE = (StoreError, StoreUnavailableError, StorageError)

EndReason = Literal["stop", "length", "cancelled", "interrupted", "error", "content_filter"]


@dataclass(frozen=True)
class Delta:
    """The answer goes on with `text`; then it is at `position`."""

    position: int
    text: str


@dataclass(frozen=True)
class Finished:
    """The answer as it is kept."""

    message: Message


@dataclass(frozen=True)
class Failed:
    """There will be no more to read: it was deleted, or can not be read."""

    error: ChatwrightError


class Ping:
    """Nothing new, but the line is alive."""


Event = Delta | Finished | Failed | Ping


class Writing:
    """An answer that grows here."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.message_id = new_id("msg")
        self.has_row = False
        self.n_prompt = 0
        self.n_tokens = 0
        self.last_event: Finished | Failed | None = None
        self._pieces: list[str] = []
        self._ends: list[int] = []
        self._changed = asyncio.Event()
        self._pump: asyncio.Task[EndReason] | None = None
        self._stop_reason: EndReason | None = None
        self._n_saved = 0

    @property
    def text(self) -> str:
        """As far as it came."""
        return "".join(self._pieces)

    @property
    def position(self) -> int:
        """Where it is."""
        return self._ends[-1] if self._ends else 0

    def add(self, text: str) -> None:
        """It goes on."""
        if text:
            self._pieces.append(text)
            self._ends.append(self.position + len(text))
            self._tell()

    def unsaved(self) -> str | None:
        """The text, if it grew since it was asked for the last time."""
        if len(self._pieces) == self._n_saved:
            return None
        self._n_saved = len(self._pieces)
        return self.text

    def stop(self, reason: EndReason) -> None:
        """End it soon, if it does not end by itself before. The first reason counts."""
        if self._stop_reason is None:
            self._stop_reason = reason
            if self._pump is not None:
                self._pump.cancel()

    async def run(self, pump: asyncio.Task[EndReason]) -> EndReason:
        """Why it ended. Raises what `pump`, which adds to it, does."""
        self._pump = pump
        if self._stop_reason is not None:
            pump.cancel()
        await asyncio.wait({pump})
        if pump.cancelled():
            return self._stop_reason or "interrupted"
        return pump.result()

    def close(self, event: Finished | Failed) -> None:
        """The last thing that readers are told."""
        self.last_event = event
        self._tell()

    async def follow(self, after: int) -> AsyncGenerator[Event, None]:
        """What comes after a position, up to the last event. A slow reader gets more at once, and fills no memory."""
        while True:
            changed, last = self._changed, self.last_event
            if after < self.position:
                start = bisect_right(self._ends, after)
                text = "".join(self._pieces[start:])[after - (self._ends[start - 1] if start else 0) :]
                after = self.position
                yield Delta(after, text)
            elif last is not None:
                yield last
                return
            else:
                try:
                    async with asyncio.timeout(PING_EVERY_S):
                        await changed.wait()
                except TimeoutError:
                    yield Ping()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class DetachedAnswers:
    """One per app with accounts. `server`: a name that this server, and no other, has again after a restart."""

    def __init__(self, database: Database, server: str, cut_off: asyncio.Event) -> None:
        self._database = database
        self._server = server
        self._cut_off = cut_off
        self._writings: dict[str, Writing] = {}  # by message
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None

    def is_written(self, message_id: str) -> bool:
        """Whether this server writes that message."""
        return message_id in self._writings

    def seems_written(self, generation: Generation | None) -> bool:
        """Whether somebody writes what the row says, as far as can be told."""
        return generation is not None and not generations.is_lost(generation, self._server, self.is_written)

    async def recover(self) -> None:
        """Say what became of answers that this server wrote when it ended without warning; those of others that are gone, too."""
        try:
            async with self._database.write() as session:
                await generations.end_lost(session, self._server, self.is_written)
        except UNAVAILABLE as error:  # `settle` comes back to each
            log.warning("interrupted answers could not be looked for: %s", error)

    async def settle(self, conversation_id: str) -> None:
        """The same for one conversation."""
        async with self._database.write() as session:
            await generations.end_lost(session, self._server, self.is_written, conversation_id)

    async def begin(
        self,
        actor: Actor,
        conversation_id: str,
        *,
        parent_id: str | None,
        content: str | None,
        model: TextModel,
        request: TextRequest,
        bill: Bill,
    ) -> Begun:
        """Begin to write an answer on somebody's bill; see `begin_generation`, whose errors it raises. Raises LimitReachedError
        where nothing is left of what may be used; then nothing was said either."""
        async with AsyncExitStack() as stack:
            wanted = wanted_of([request], can_be_shorter=True)
            charge = await stack.enter_async_context(bill.charge(model.name, wanted))
            writing, begun = await self._begun(
                actor, conversation_id, parent_id=parent_id, content=content, model=model, request=request
            )
            paid = stack.pop_all()
        task = asyncio.create_task(self._write(writing, model, request, charge, paid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        return begun

    async def _begun(
        self,
        actor: Actor,
        conversation_id: str,
        *,
        parent_id: str | None,
        content: str | None,
        model: TextModel,
        request: TextRequest,
    ) -> tuple[Writing, Begun]:
        """The rows of an answer."""
        writing = Writing(conversation_id)
        writing.n_prompt = len(request.prompt_ids)
        # Before its row is there for others to see: one that nobody writes would be called interrupted.
        self._writings[writing.message_id] = writing
        try:
            async with self._database.write() as session:
                await generations.end_lost(session, self._server, self.is_written, conversation_id)
                begun = await generations.begin_generation(
                    session,
                    actor,
                    conversation_id,
                    parent_id=parent_id,
                    content=content,
                    model=model.name,
                    message_id=writing.message_id,
                    server=self._server,
                )
        except BaseException:
            del self._writings[writing.message_id]
            raise
        writing.has_row = True
        return writing, begun

    async def stop(self, actor: Actor, conversation_id: str, message_id: str) -> Message:
        """End an answer and wait until that is written; one that is over stays as it is. Raises NotFoundError."""
        async with self._database.read() as session:
            message = await find_message(session, actor, conversation_id, message_id)
        if message.finish_reason is None:
            if (writing := self._writings.get(message_id)) is not None:
                writing.stop("cancelled")
            else:
                async with self._database.write() as session:
                    await generations.ask_to_stop(session, actor, conversation_id, message_id)
            async with aclosing(self.follow(actor, message, len(message.content))) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        return event.message
                    if isinstance(event, Failed):
                        raise event.error
        return message

    def abandon(self, conversation_id: str) -> None:
        """The conversation is gone: nobody will read what is written for it."""
        for writing in self._writings.values():
            if writing.conversation_id == conversation_id:
                writing.stop("cancelled")

    async def follow(self, actor: Actor, message: Message, after: int) -> AsyncGenerator[Event, None]:
        """What comes in an answer after a position, up to its end. `message`: as it was read just now."""
        settled = False
        while not self._cut_off.is_set():
            writing = self._writings.get(message.id)
            if writing is not None:
                async with aclosing(writing.follow(after)) as events:
                    async for event in events:
                        yield event
                return
            if len(message.content) > after:
                yield Delta(len(message.content), message.content[after:])
                after = len(message.content)
            if message.finish_reason is not None or message.role == "user":
                yield Finished(message)
                return
            # Another server writes it, or did so until it ended.
            try:
                async with self._database.read() as session:
                    written = await generations.generations_of(session, [message.conversation_id])
                if settled or self.seems_written(written.get(message.conversation_id)):
                    yield Ping()
                    await asyncio.sleep(SAVE_EVERY_S)
                else:
                    await self.settle(message.conversation_id)
                    settled = True
                async with self._database.read() as session:
                    message = await find_message(session, actor, message.conversation_id, message.id)
            except ChatwrightError as error:
                yield Failed(error)
                return

    async def close(self) -> None:
        """Wait for what is being written: to its end, or until the app's `cut_off` ends it."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _write(
        self, writing: Writing, model: TextModel, request: TextRequest, charge: Charge, paid: AsyncExitStack
    ) -> None:
        try:
            last = await self._last_word(writing, await self._generate(writing, model, request, charge, paid))
        except Exception as error:  # noqa: BLE001  an edge: nobody awaits this task, and its readers must be told
            log_crash("the end of an answer could not be written", error)
            last = Failed(EngineError("The server failed while it wrote this answer. Its log says where."))
        del self._writings[writing.message_id]
        writing.close(last)

    async def _generate(
        self, writing: Writing, model: TextModel, request: TextRequest, charge: Charge, paid: AsyncExitStack
    ) -> Ended:
        """Write the answer and settle its bill (`paid`); returns how that went."""
        reason: EndReason = "error"
        failure = None
        try:
            async with paid:
                reason = await writing.run(asyncio.create_task(self._pump(writing, model, request, charge)))
        except ChatwrightError as error:
            failure = _failure(error)
            if isinstance(error, OverloadedError) and self._cut_off.is_set():
                reason, failure = "interrupted", SHUT_DOWN
        except Exception as error:  # noqa: BLE001  an edge: nobody awaits this task
            log_crash("an answer failed", error)
            failure = _failure(EngineError("The server failed while it wrote this answer. Its log says where."))
        if reason == "content_filter":  # no error before this point: whatever was computed is paid for, shown or not
            reason, failure = "error", FILTERED
        if reason == "interrupted" and failure is None:
            failure = generations.INTERRUPTED
        return Ended(writing.text, reason, failure, writing.n_prompt, writing.n_tokens)

    async def _pump(self, writing: Writing, model: TextModel, request: TextRequest, charge: Charge) -> EndReason:
        end: Literal["stop", "length", "content_filter"] = "stop"
        everything = generate_charged(model, [request], self._cut_off, charge)
        async with aclosing(everything) as events:
            async for _, event in events:
                if isinstance(event, TextDelta):
                    writing.n_tokens += len(event.tokens)
                    writing.add(storable(event.text))
                elif isinstance(event, TextFinish):
                    end = wire_reason(event)
        return end

    async def _last_word(self, writing: Writing, ended: Ended) -> Finished | Failed:
        """Write down how it ended. While that fails the answer counts as being written; when it is given up, as interrupted."""
        failed: ChatwrightError = NotFoundError("There is nothing of that id.")
        for pause_s in LAST_TRIES_S:
            await asyncio.sleep(0 if self._cut_off.is_set() else pause_s)
            try:
                async with self._database.write() as session:
                    message = await generations.end_generation(session, writing.message_id, ended)
                return Failed(NotFoundError("There is nothing of that id.")) if message is None else Finished(message)
            except UNAVAILABLE as error:
                log.warning("the end of an answer could not be saved: %s", error)
                failed = error
                if self._cut_off.is_set():
                    break
        return Failed(failed)

    async def _keep(self) -> None:
        """Save what grows and end what nobody shall have, as long as anything is being written."""
        while self._writings:
            await asyncio.sleep(SAVE_EVERY_S)
            contents = {key: writing.unsaved() for key, writing in self._writings.items() if writing.has_row}
            if not contents:
                continue
            try:
                async with self._database.write() as session:
                    unwanted = await generations.note_progress(session, self._server, contents)
            except UNAVAILABLE as error:
                log.warning("answers could not be saved while they grow: %s", error)
                continue
            except Exception as error:  # noqa: BLE001  an edge: nobody awaits this task
                log_crash("answers could not be saved while they grow", error)
                continue
            for message_id in unwanted:
                if (writing := self._writings.get(message_id)) is not None:
                    writing.stop("cancelled")


def _failure(error: ChatwrightError) -> Failure:
    wire = as_wire_error(error)
    return Failure.of(error, wire.code or "server_error")
