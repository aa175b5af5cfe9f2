"""An engine in this process: one thread that schedules, runs and samples, beside the event loop and never on it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatwright.engine.grammar import Constraint, GrammarCompiler, GrammarFailedError
from chatwright.engine.protocol import (
    EngineEvent,
    EngineStats,
    FinishEvent,
    FinishReason,
    GenerateRequest,
    PromptEvent,
    SamplingParams,
    TokenEvent,
    TokenLogprobs,
)
from chatwright.engine.runner_protocol import Runner
from chatwright.engine.sampler import adjust_logits, sample, score_token
from chatwright.engine.scheduler import Chunk, Scheduler
from chatwright.engine.sequence import Group
from chatwright.engine.sequence import Sequence as Choice
from chatwright.engine.subscriber import Subscriber
from chatwright.errors import EngineError, InUseError, InvalidRequestError, ModelNotFoundError, OverloadedError

log = logging.getLogger(__name__)

# How long the idle loop sleeps at most before it turns again, so that its heartbeat stays fresh.
IDLE_TURN_S = 1.0
# What a forward pass can fail with: out of memory, mostly.
STEP_FAILURES = (RuntimeError, MemoryError, IndexError)


class LocalEngine:
    """Serves several requests at once on one model (see `Engine` for what each call does)."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        *,
        max_context: int,
        max_queue: int,
        grammars: GrammarCompiler | None = None,
        adapters: Mapping[str, Path] | None = None,
    ) -> None:
        """`adapters`: those to begin with. Raises what reading them raises."""
        runner.allocate(scheduler.pool.n_blocks)
        self._runner = runner
        self._scheduler = scheduler
        # Name → what the runner knows the adapter by. Another one of the same name, later, is another one: it must not find
        # what the cache holds of its predecessor.
        self._adapters: dict[str, str] = {}
        # what the runner knows an adapter by → requests that use it, counted from the moment that they are given its name
        self._using: Counter[str] = Counter()
        # Unloaded, but requests still use them: the last of these takes it away.
        self._leaving: set[str] = set()
        for name, path in (adapters or {}).items():
            self._add_adapter(name, runner.read_adapter(path))
        self._grammars = grammars
        self._max_context = min(max_context, scheduler.cache_tokens)
        self._max_requests = scheduler.max_batch + max_queue
        # The last quarter of the queue is for others than whoever filled the rest.
        self._max_requests_each = self._max_requests - max_queue // 4
        # owner → requests that are being answered or waiting
        self._places: Counter[str] = Counter()
        # Commands run in the engine's thread between two steps: everything but this queue belongs to that thread.
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._long_commands: deque[Callable[[], None]] = deque()
        self._n_embedding = 0
        self._subscribers: dict[str, Subscriber] = {}
        self._groups: dict[str, Group] = {}
        self._outbox: list[tuple[str, EngineEvent]] = []
        self._closed = False
        self._heartbeat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def max_context(self) -> int:
        """Tokens that one choice can hold, prompt and answer together."""
        return self._max_context

    async def ready(self) -> None:
        """See `Engine.ready`."""
        self._check_alive()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `Engine.generate`."""
        self._check_alive()
        self._check_room(request.owner)
        adapter = self._known_adapter(request.adapter) if request.adapter is not None else None
        request = replace(request, adapter=adapter)
        assert request.prompt_ids, "an empty prompt has no last token to continue"
        assert len(request.prompt_ids) + request.sampling.max_tokens <= self._max_context, "the caller checks lengths"
        subscriber = self._subscribers[request.id] = Subscriber(request.n, self._places, request.owner)
        if adapter is not None:
            self._using[adapter] += 1
        try:
            # Outside of the engine's queue until its grammar is compiled: nobody waits for that but the request itself.
            constraints = await self._constraints(request)
            self._check_alive()
            self._commands.put(lambda: self._add(request, constraints))
            n_open = request.n
            while n_open:
                event = await subscriber.events.get()
                n_open -= isinstance(event, FinishEvent)
                yield event
        finally:
            del self._subscribers[request.id]
            subscriber.leave()
            self.abort(request.id)
            if adapter is not None:
                self._using[adapter] -= 1
                if adapter in self._leaving and not self._using[adapter]:
                    # Behind the request's end, which is in the queue already.
                    self._commands.put(self._removal(adapter))

    async def score(self, prompt_ids: Sequence[int], top: int = 0) -> list[TokenLogprobs | None]:
        """See `Engine.score`."""
        request = GenerateRequest(
            f"score-{id(prompt_ids)}-{time.monotonic_ns()}", prompt_ids, SamplingParams(0), 1, top
        )
        scores: list[TokenLogprobs | None] = []
        async for event in self.generate(request):
            if isinstance(event, PromptEvent):
                scores.extend(event.scores)
            if isinstance(event, FinishEvent) and event.reason == "error":
                raise EngineError("The engine failed: {reason}", reason=event.error)
        return scores

    async def embed(self, prompt_ids: Sequence[int]) -> list[float]:
        """See `Engine.embed`. One text between two steps, so that many of them do not stop everybody's answers. Raises
        OverloadedError where too many wait."""
        self._check_alive()
        if self._n_embedding >= self._max_requests:
            raise OverloadedError(
                "The server is busy: {n} requests are being answered or waiting. Try again in a moment.",
                n=self._n_embedding,
            )
        self._n_embedding += 1
        try:
            embedding: list[float] = await self._call(lambda: self._runner.embed(prompt_ids), between_steps=True)
        finally:
            self._n_embedding -= 1
        return embedding

    async def load_adapter(self, name: str, path: str) -> None:
        """See `Engine.load_adapter`."""
        self._check_alive()
        adapter = await asyncio.to_thread(self._runner.read_adapter, Path(path))
        await self._call(lambda: self._add_adapter(name, adapter))

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`. From here on nobody is given its name any more, and whoever was given it keeps it: no
        request, however far it is on its way, finds itself without its adapter."""
        self._check_alive()
        known_by = self._known_adapter(name)
        del self._adapters[name]
        if self._using[known_by]:
            self._leaving.add(known_by)
        else:
            await self._call(self._removal(known_by))

    def _removal(self, known_by: str) -> Callable[[], None]:
        """What takes an adapter that nobody uses out of the runner, in the engine's thread."""
        self._leaving.discard(known_by)
        del self._using[known_by]
        return lambda: self._runner.remove_adapter(known_by)

    def abort(self, request_id: str, index: int | None = None) -> None:
        """See `Engine.abort`."""
        self._commands.put(lambda: self._abort(request_id, index))

    def stats(self) -> EngineStats:
        """See `Engine.stats`. Read without a lock: the figures may be one step old."""
        scheduler = self._scheduler
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            cached_tokens=scheduler.cached_tokens(),
            heartbeat_age_s=time.monotonic() - self._heartbeat,
            alive=self._thread.is_alive() and not self._closed,
            blocks_total=scheduler.pool.n_blocks,
            blocks_used=scheduler.pool.n_used,
            blocks_cached=scheduler.pool.n_idle,
            reused_tokens=scheduler.n_reused_tokens,
            preemptions=scheduler.n_preempted,
        )

    async def probe(self) -> float:
        """See `Engine.probe`."""
        start = time.monotonic()
        await self._call(lambda: None)
        return time.monotonic() - start

    async def close(self) -> None:
        """See `Engine.close`. Waits for the step under way."""
        self._closed = True
        self._commands.put(lambda: None)
        await asyncio.to_thread(self._thread.join)
        if self._grammars is not None:
            self._grammars.close()

    async def _constraints(self, request: GenerateRequest) -> list[Constraint]:
        """One for each choice, none where the request has no grammar. Raises InvalidRequestError."""
        if request.grammar is None:
            return []
        if self._grammars is None:
            raise InvalidRequestError("This engine cannot hold answers to a grammar.", code="unsupported_parameter")
        return await self._grammars.constraints(request.grammar, request.n)

    def _check_room(self, owner: str) -> None:
        """Raise OverloadedError where no request more is taken, or none more of this owner."""
        n = self._places.total()
        if n >= self._max_requests:
            raise OverloadedError(
                "The server is busy: {n} requests are being answered or waiting. Try again in a moment.", n=n
            )
        if self._places[owner] >= self._max_requests_each:
            raise OverloadedError(
                "{n} of your requests are being answered or waiting, as many as one user may have here. Try again in a moment.",
                n=self._places[owner],
            )

    def _known_adapter(self, name: str) -> str:
        """What the runner knows an adapter by. Raises ModelNotFoundError."""
        if name not in self._adapters:
            raise ModelNotFoundError("The adapter {name} is not loaded.", name=name[:100])
        return self._adapters[name]

    def _check_alive(self) -> None:
        if self._closed or not self._thread.is_alive():
            raise EngineError("The engine has stopped. Restart the server.")

    async def _call(self, function: Callable[[], Any], *, between_steps: bool = False) -> Any:
        """Run a function in the engine's thread and wait for what it returns. `between_steps`: it takes long, so that others get a
        step before the next such function."""
        self._check_alive()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def resolve(result: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def command() -> None:
            try:
                if between_steps:
                    self._check_alive()  # when the engine closes, those that still wait need not be computed
                result, error = function(), None
            except Exception as failure:  # noqa: BLE001  the caller gets the error, and the loop lives
                result, error = None, failure
            loop.call_soon_threadsafe(resolve, result, error)

        self._commands.put((lambda: self._long_commands.append(command)) if between_steps else command)
        return await future

    # Everything below runs in the engine's thread.

    def _run(self) -> None:
        try:
            while not self._closed:
                self._heartbeat = time.monotonic()
                self._run_commands()
                if self._long_commands:
                    self._long_commands.popleft()()
                if self._scheduler.has_work():
                    self._step()
                self._deliver()
        finally:
            # Also when a bug ended the loop: nobody may wait for an engine that is gone.
            reason: FinishReason = "abort" if self._closed else "error"
            while not self._commands.empty():
                self._commands.get()()
            while self._long_commands:
                self._long_commands.popleft()()
            for group in list(self._groups.values()):
                for choice in group.sequences:
                    self._finish(choice, reason, None if self._closed else "the engine's loop ended; see the log")
            self._deliver()

    def _run_commands(self) -> None:
        wait = not self._scheduler.has_work() and not self._long_commands
        while True:
            try:
                command = self._commands.get(block=wait, timeout=IDLE_TURN_S)
            except queue.Empty:
                return
            command()
            wait = False

    def _add_adapter(self, name: str, adapter: Any) -> None:
        if name in self._adapters:
            raise InUseError("An adapter {name} is loaded already: unload it first.", name=name)
        known_by = f"{name} {uuid.uuid4().hex}"
        self._runner.add_adapter(known_by, adapter)
        self._adapters[name] = known_by

    def _add(self, request: GenerateRequest, constraints: Sequence[Constraint]) -> None:
        group = self._groups[request.id] = Group(request)
        for choice, constraint in zip(group.sequences, constraints, strict=False):
            choice.constraint = constraint
        self._scheduler.add(group)

    def _abort(self, request_id: str, index: int | None) -> None:
        if group := self._groups.get(request_id):
            for choice in group.sequences:
                if index is None or choice.index == index:
                    self._finish(choice, "abort")

    def _step(self) -> None:
        chunks, preempted = self._scheduler.schedule()
        for choice in preempted:
            self._runner.free(choice)
        start = time.perf_counter()
        self._run_chunks(chunks)
        # With what follows a forward pass, the choosing of tokens: users wait for both.
        self._scheduler.observe(chunks, time.perf_counter() - start)

    def _run_chunks(self, chunks: list[Chunk]) -> None:
        try:
            outputs = self._runner.step(chunks)
        except STEP_FAILURES as failure:
            if len(chunks) > 1:
                # Who of them was it? One after the other they need less memory, and only the culprit is lost. What the
                # failed step already wrote into blocks is written again, at the same places.
                log.warning("a step of the engine failed (%s); its parts are tried one by one", type(failure).__name__)
                for chunk in chunks:
                    if not chunk.sequence.finished:
                        self._run_chunks([chunk])
                return
            log.exception("a step of the engine failed")
            self._finish(chunks[0].sequence, "error", f"{type(failure).__name__} in the model's forward pass")
            return
        for chunk, logits_nV in zip(chunks, outputs, strict=True):
            self._scheduler.advance(chunk)
            if len(logits_nV):
                self._take_logits(chunk, logits_nV)

    def _take_logits(self, chunk: Chunk, logits_nV: NDArray[np.float32]) -> None:
        """Report prompt scores and, at the end of the known tokens, choose the next one."""
        choice = chunk.sequence
        if not np.isfinite(logits_nV).all():
            self._finish(choice, "error", "the model's output is not a number (NaN or infinity)")
            return
        if choice.wants_prompt_scores and choice.n_scored < choice.n_prompt:
            self._score_prompt(chunk, logits_nV)
        if not chunk.reaches_end:
            return
        sampling = choice.group.request.sampling
        if choice.n_output >= sampling.max_tokens:
            self._finish(choice, "length")
            return
        logits_V = logits_nV[-1]
        adjusted = adjust_logits(logits_V, sampling, choice.group.request.prompt_ids, choice.output_counts)
        try:
            if choice.constraint:
                adjusted = choice.constraint.mask(adjusted)
        except GrammarFailedError as failure:
            self._finish(choice, "grammar", str(failure))
            return
        token_id = sample(adjusted, sampling, choice.index, choice.n_output)
        scores = None if sampling.logprobs is None else score_token(logits_V, token_id, sampling.logprobs)
        event = TokenEvent(choice.index, token_id, scores)
        if token_id in sampling.stop_ids:
            self._finish(choice, "stop", stop_token=event)
            return
        choice.append(token_id)
        self._emit(choice, event)
        try:
            if choice.constraint and choice.constraint.advance(token_id):
                self._finish(choice, "stop")
        except GrammarFailedError as failure:
            self._finish(choice, "grammar", str(failure))
        if choice.n_output >= sampling.max_tokens:
            self._finish(choice, "length")

    def _score_prompt(self, chunk: Chunk, logits_nV: NDArray[np.float32]) -> None:
        choice = chunk.sequence
        n_top = choice.group.request.prompt_logprobs or 0
        start = choice.n_scored
        scores: list[TokenLogprobs | None] = [None] if start == 0 else []
        # The logits at position p score the token at p + 1.
        for position in range(start + len(scores), min(chunk.end + 1, choice.n_prompt)):
            row = logits_nV[position - 1 - chunk.start]
            scores.append(score_token(row, choice.token_ids[position], n_top))
        choice.n_scored += len(scores)
        if scores:
            self._emit(choice, PromptEvent(start, tuple(scores)))

    def _finish(
        self, choice: Choice, reason: FinishReason, error: str | None = None, stop_token: TokenEvent | None = None
    ) -> None:
        if choice.finished:
            return
        self._scheduler.remove(choice, spoilt=reason == "error")
        self._runner.free(choice)
        choice.constraint = None
        self._emit(choice, FinishEvent(choice.index, reason, error, stop_token, choice.n_reused or 0))
        if all(sibling.finished for sibling in choice.group.sequences):
            del self._groups[choice.group.request.id]

    def _emit(self, choice: Choice, event: EngineEvent) -> None:
        self._outbox.append((choice.group.request.id, event))

    def _deliver(self) -> None:
        """Hand a step's events over, with one wake-up for each event loop that waits."""
        if not self._outbox:
            return
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Subscriber, EngineEvent]]] = {}
        for request_id, event in self._outbox:
            if subscriber := self._subscribers.get(request_id):
                by_loop.setdefault(subscriber.loop, []).append((subscriber, event))
        self._outbox.clear()
        for loop, events in by_loop.items():
            # A loop that is gone has no reader any more.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_put_all, events)


def _put_all(events: list[tuple[Subscriber, EngineEvent]]) -> None:
    for subscriber, event in events:
        subscriber.put(event)
