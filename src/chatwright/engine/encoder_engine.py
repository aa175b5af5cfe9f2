"""An engine for encoders: it turns texts into vectors, those that wait together in one batch, and writes nothing."""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chatwright.engine.protocol import EngineEvent, EngineStats, GenerateRequest, TokenLogprobs
from chatwright.errors import EngineError, InvalidModelError, InvalidRequestError, ModelNotFoundError, OverloadedError

log = logging.getLogger(__name__)

# Tokens of one batch, padding counted: more gain nothing on a processor, and a newcomer waits for all of them.
MAX_BATCH_TOKENS = 4096
# How long the idle loop sleeps at most before it turns again, so that its heartbeat stays fresh.
IDLE_TURN_S = 1.0
# What a forward pass can fail with: out of memory, mostly.
STEP_FAILURES = (RuntimeError, MemoryError, IndexError)


class Embedder(Protocol):
    """The model as this engine sees it: `encoder_runner.EncoderRunner`."""

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector for each text."""


@dataclass(frozen=True, eq=False)
class _Job:
    """A text that somebody waits for; without ids only a turn of the loop."""

    ids: Sequence[int]
    result: asyncio.Future[list[float]]
    loop: asyncio.AbstractEventLoop

    def resolve(self, vector: list[float], error: Exception | None = None) -> None:
        """From the engine's thread: hand it over, unless nobody waits any more."""

        def finish() -> None:
            if self.result.done():
                return
            if error is None:
                self.result.set_result(vector)
            else:
                self.result.set_exception(error)

        self.loop.call_soon_threadsafe(finish)


class EncoderEngine:
    """See `Engine` for what each call does. A text's vector depends on what it shares a batch with in its last bits only."""

    def __init__(self, embedder: Embedder, *, max_context: int, max_queue: int) -> None:
        self._embedder = embedder
        self._max_context = max_context
        self._max_queue = max_queue
        # None ends the loop.
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # those of this turn, in the order in which they came
        self._taken: dict[_Job, None] = {}
        self._closed = False
        self._heartbeat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def max_context(self) -> int:
        """Tokens that one text can have, its marks included."""
        return self._max_context

    async def ready(self) -> None:
        """See `Engine.ready`: it is loaded when it is made."""

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        """Refused: an encoder writes no text. Raises InvalidRequestError."""
        raise _writes_nothing()
        yield  # makes this a generator, as the protocol wants it

    async def score(self, prompt_ids: Sequence[int], top: int = 0) -> list[TokenLogprobs | None]:
        """Refused: an encoder has no probabilities of tokens. Raises InvalidRequestError."""
        raise _writes_nothing()

    async def embed(self, prompt_ids: Sequence[int]) -> list[float]:
        """See `Engine.embed`. Raises InvalidRequestError for a text that is too long: nothing is ever cut."""
        if len(prompt_ids) > self._max_context:
            raise InvalidRequestError(
                "The text has {n} tokens, and this model reads {limit} at most. Divide the text.",
                n=len(prompt_ids),
                limit=self._max_context,
                param="input",
                code="context_length_exceeded",
            )
        assert prompt_ids, "an empty text has its marks at least"
        if (n := self._jobs.qsize()) >= self._max_queue:
            raise OverloadedError("The server is busy: {n} texts are waiting. Try again in a moment.", n=n)
        return await self._ask(prompt_ids)

    async def load_adapter(self, name: str, path: str) -> None:
        """Refused: adapters are of models that write."""
        raise InvalidModelError("An encoder cannot have the adapter in {folder}.", folder=path)

    async def unload_adapter(self, name: str) -> None:
        """There is none."""
        raise ModelNotFoundError("The adapter {name} is not loaded.", name=name[:100])

    def abort(self, request_id: str, index: int | None = None) -> None:
        """Nothing is ever written that could end."""

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return EngineStats(
            running=len(self._taken),
            waiting=self._jobs.qsize(),
            cached_tokens=0,
            heartbeat_age_s=time.monotonic() - self._heartbeat,
            alive=self._thread.is_alive() and not self._closed,
        )

    async def probe(self) -> float:
        """See `Engine.probe`."""
        start = time.monotonic()
        await self._ask(())
        return time.monotonic() - start

    async def close(self) -> None:
        """See `Engine.close`. Waits for the batch under way."""
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _ask(self, ids: Sequence[int]) -> list[float]:
        if self._closed or not self._thread.is_alive():
            raise EngineError("The engine has stopped. Restart the server.")
        loop = asyncio.get_running_loop()
        job = _Job(ids, loop.create_future(), loop)
        self._jobs.put(job)
        return await job.result

    # Everything below runs in the engine's thread.

    def _run(self) -> None:
        try:
            while not self._closed:
                self._heartbeat = time.monotonic()
                self._take_jobs()
                for batch in batches([job for job in self._taken if job.ids and not job.result.cancelled()]):
                    self._heartbeat = time.monotonic()
                    self._embed(batch)
                for job in list(self._taken):  # those that wait for a turn only, or not any more
                    self._resolve(job, [])
        finally:
            # Also when a bug ended the loop: nobody may wait for an engine that is gone.
            while not self._jobs.empty():
                if (left := self._jobs.get()) is not None:
                    self._taken[left] = None
            for job in list(self._taken):
                self._resolve(job, [], EngineError("The engine has stopped. Restart the server."))

    def _take_jobs(self) -> None:
        """All that wait, at least one unless a second passes."""
        try:
            job: _Job | None = self._jobs.get(timeout=IDLE_TURN_S)
            while job is not None:
                self._taken[job] = None
                job = self._jobs.get_nowait()
        except queue.Empty:
            pass

    def _embed(self, batch: Sequence[_Job]) -> None:
        try:
            vectors = self._embedder.embed([job.ids for job in batch])
        except STEP_FAILURES as failure:
            if len(batch) > 1:
                # Who of them was it? One after the other they need less memory, and only the culprit is lost.
                log.warning("a batch of texts failed (%s); they are tried one by one", type(failure).__name__)
                for job in batch:
                    self._embed([job])
                return
            log.exception("a text could not be embedded")
            reason = f"{type(failure).__name__} in the model's forward pass"
            self._resolve(batch[0], [], EngineError("The engine failed: {reason}", reason=reason))
            return
        for job, vector in zip(batch, vectors, strict=True):
            if all(map(math.isfinite, vector)):
                self._resolve(job, vector)
            else:
                reason = "the model's output is not a number (NaN or infinity)"
                self._resolve(job, [], EngineError("The engine failed: {reason}", reason=reason))

    def _resolve(self, job: _Job, vector: list[float], error: EngineError | None = None) -> None:
        del self._taken[job]
        job.resolve(vector, error)


def batches(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """Texts of like length together, so that little is padding; MAX_BATCH_TOKENS at most, or one text."""
    parts: list[list[_Job]] = []
    for job in sorted(jobs, key=lambda job: len(job.ids), reverse=True):
        # the first of a part is its longest
        if not parts or (len(parts[-1]) + 1) * len(parts[-1][0].ids) > MAX_BATCH_TOKENS:
            parts.append([])
        parts[-1].append(job)
    return parts


def _writes_nothing() -> InvalidRequestError:
    return InvalidRequestError(
        "This model turns texts into vectors and writes none. Name a model that continues text.",
        param="model",
        code="unsupported_model",
    )
