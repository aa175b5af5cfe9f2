"""One run, from its first item of which nothing became yet to its last. The database says what is left, so nothing else is kept.

A run that is canceled or deleted meanwhile takes no more outcomes; whoever has it worked on ends the task.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from chatwright.engine.text import TextModel
from chatwright.errors import (
    ChatwrightError,
    EvaluationError,
    InvalidRequestError,
    ModelNotFoundError,
    StorageError,
    StoreError,
    StoreUnavailableError,
)
from chatwright.server.batches.answering import Answering
from chatwright.server.batches.dispatch import Answer
from chatwright.server.errors import log_crash
from chatwright.server.evals.criteria import Criterion, Verdict
from chatwright.server.evals.sampling import ItemError, Sample, Sampler, given_sample
from chatwright.server.state import ServerState
from chatwright.store.actor import Actor, on_behalf_of_owner
from chatwright.store.database import Database
from chatwright.store.evals import work as store
from chatwright.store.evals.work import OpenRun, Outcome, Use
from chatwright.store.tables import EvalItem

log = logging.getLogger(__name__)

PAUSE_S = 10.0
EMBEDDINGS = "/v1/embeddings"
READ_AT_ONCE = 32
# Items without a model are graded quickly: these are written down together.
GRADED_AT_ONCE = 32


@dataclass(frozen=True)
class Plan:
    """What is to be done with each item."""

    criteria: Sequence[Criterion]
    sampler: Sampler | None
    encoder: str | None

    @property
    def asks(self) -> bool:
        """Whether an item costs a model's work."""
        return self.sampler is not None or any(criterion.wants_vectors for criterion in self.criteria)


class CannotRunError(Exception):
    """Why the run has failed as a whole."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def no_encoder() -> InvalidRequestError:
    """For whoever wants vectors compared."""
    return InvalidRequestError(
        "cosine compares vectors, and this server serves no encoder. Serve one beside the model: chatwright serve MODEL"
        " ENCODER",
        param="testing_criteria",
        code="unsupported_grader",
    )


def encoder_of(models: Sequence[TextModel]) -> str | None:
    """The model whose vectors are good for comparing texts, if one is served."""
    return next((model.name for model in models if model.embeds and not model.writes_text), None)


class Work:
    """Run once; where it fails for a reason that may pass, it is begun again. `grading`: places of all runs for comparing texts."""

    def __init__(
        self, run: OpenRun, database: Database, state: ServerState, answering: Answering, grading: asyncio.Semaphore
    ) -> None:
        self._id = run.id
        self._actor: Actor = on_behalf_of_owner(run.user_id, run.key_id)
        self._database = database
        self._state = state
        self._answering = answering
        self._grading = grading

    async def run(self) -> None:
        """Until the run is over."""
        try:
            await self._run()
        except ChatwrightError as error:
            log.warning("the eval run %s waits: %s", self._id, error)
            await asyncio.sleep(PAUSE_S)
        except Exception as error:  # noqa: BLE001  an edge: other runs go on
            log_crash(f"the eval run {self._id} failed", error)
            await self._end(
                CannotRunError("server_error", "The server failed while it worked on this run. Its log says where.")
            )

    async def _run(self) -> None:
        try:
            plan = await self._plan()
        except CannotRunError as error:
            await self._end(error)
            return
        if plan is None:
            return
        take = self._items(GRADED_AT_ONCE if not plan.asks else 1)

        async def go_on() -> None:
            while items := await take():
                if not await self._keep([await self._outcome(plan, item) for item in items]):
                    return

        workers = [asyncio.create_task(go_on()) for _ in range(self._answering.at_once if plan.asks else 1)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        async with self._database.write() as session:
            await store.end(session, self._id, "completed")

    async def _plan(self) -> Plan | None:
        """None: the run is over. Raises CannotRunError."""
        async with self._database.read() as session:
            found = await store.read_run(session, self._id)
        if found is None:
            return None
        run, its_eval = found
        criteria = [Criterion.of(kept) for kept in orjson.loads(its_eval.criteria)]
        sampler = Sampler.of(orjson.loads(run.source))
        if sampler is not None:
            try:
                model = await self._state.model_called(sampler.model, self._actor)
            except ModelNotFoundError as error:
                raise CannotRunError("model_not_found", str(error)) from None
            sampler = replace(sampler, context_length=model.context_length)
        encoder = encoder_of(self._state.models)
        if encoder is None and any(criterion.wants_vectors for criterion in criteria):
            raise CannotRunError("encoder_not_found", str(no_encoder()))
        return Plan(criteria, sampler, encoder)

    def _items(self, n: int) -> Callable[[], Any]:
        """What takes the next items, `n` at most; none when there are no more."""
        waiting: deque[EvalItem] = deque()
        turn, last = asyncio.Lock(), -1

        async def take() -> list[EvalItem]:
            nonlocal last
            async with turn:
                if not waiting:
                    async with self._database.read() as session:
                        waiting.extend(await store.next_items(session, self._id, last, READ_AT_ONCE))
                    last = waiting[-1].number if waiting else last
                return [waiting.popleft() for _ in range(min(n, len(waiting)))]

        return take

    async def _outcome(self, plan: Plan, item: EvalItem) -> Outcome:
        """What becomes of an item."""
        content = orjson.loads(item.content)
        sample = given_sample(None if item.given is None else orjson.loads(item.given))
        uses: list[Use] = []
        try:
            if plan.sampler is not None:
                sample = await self._sample(plan.sampler, content, uses)
            scope = {"item": content} | ({} if sample.scope is None else {"sample": sample.scope})
            verdicts = [await self._verdict(criterion, scope, plan.encoder, uses) for criterion in plan.criteria]
        except (ItemError, EvaluationError, InvalidRequestError) as error:
            reason = error if isinstance(error, ItemError) else ItemError.of(error)
            shown = {**(reason.shown or sample.shown), "error": {"code": reason.code, "message": reason.message}}
            return Outcome(item.id, "error", "[]", orjson.dumps(shown).decode(), uses=uses)
        return Outcome(
            item.id,
            "pass" if all(verdict.passed for verdict in verdicts) else "fail",
            orjson.dumps([verdict.shown() for verdict in verdicts]).decode(),
            orjson.dumps(sample.shown).decode(),
            {verdict.criterion.id: verdict.passed for verdict in verdicts},
            uses,
        )

    async def _sample(self, sampler: Sampler, item: dict[str, Any], uses: list[Use]) -> Sample:
        """The model's answer. Raises ItemError, EvaluationError."""
        messages = sampler.asked(item)
        answer = await self._answering.answer(self._actor, self._id, sampler.endpoint, sampler.body(messages))
        if answer.status != 200:
            raise _failed(answer, sampler.shown(messages))
        sample = sampler.sample(messages, answer.body)
        uses += sample.uses
        return sample

    async def _verdict(
        self, criterion: Criterion, scope: dict[str, Any], encoder: str | None, uses: list[Use]
    ) -> Verdict:
        """What a criterion says. Raises ItemError, EvaluationError."""
        text, reference = criterion.texts(scope)
        if not criterion.wants_vectors:
            async with self._grading:
                return await asyncio.to_thread(criterion.grade, text, reference)
        assert encoder is not None, "the plan was made with one"
        if text == reference or not (text and reference):  # nothing has no vector
            return criterion.verdict(float(text == reference))
        body = {"model": encoder, "input": [text, reference], "encoding_format": "float"}
        answer = await self._answering.answer(self._actor, self._id, EMBEDDINGS, body)
        if answer.status != 200:
            raise _failed(answer, None)
        uses.append(Use(encoder, answer.body["usage"]["prompt_tokens"]))
        first, second = (entry["embedding"] for entry in answer.body["data"])  # of length one
        return criterion.verdict(sum(a * b for a, b in zip(first, second, strict=True)))

    async def _keep(self, outcomes: Sequence[Outcome]) -> bool:
        """Write them down, however long the database is away: they have cost something. False: nobody wants them any more."""
        while True:
            try:
                async with self._database.write() as session:
                    return await store.record(session, self._id, outcomes)
            except (StoreError, StoreUnavailableError, StorageError) as error:
                log.error("the eval run %s waits: %s", self._id, error)
                await asyncio.sleep(PAUSE_S)

    async def _end(self, error: CannotRunError) -> None:
        async with self._database.write() as session:
            await store.end(session, self._id, "failed", error.code, error.message)


def _failed(answer: Answer, shown: dict[str, Any] | None) -> ItemError:
    """Why a route refused. `shown`: the sample as far as it is known."""
    error = answer.body["error"]
    return ItemError(error["code"] or f"http_{answer.status}", error["message"], shown)
