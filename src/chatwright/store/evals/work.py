"""For whoever works on runs: which are open, whose they are, what is left of one, and what became of an item.

What an item came to is written once, in one transaction with the counts that it changes. So a kill loses only items that were
under way, and two servers that take a run for theirs do no harm but work twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from sqlalchemy import select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.store import clock
from chatwright.store.evals.runs import OPEN
from chatwright.store.kept import size_of
from chatwright.store.tables import Eval, EvalItem, EvalRun, User

# A server says every few seconds that it is there. Who was silent for so long is gone, and another one may go on.
STALE_S = 60


@dataclass(frozen=True)
class OpenRun:
    """What whoever works on a run looks at every now and then. `owner_is_active`: False once they were suspended."""

    id: str
    user_id: str | None
    model: str | None
    server: str
    seen_at: int
    created_at: int
    owner_is_active: bool
    key_id: str | None = None

    def is_lost(self) -> bool:
        """Whether who worked on it is gone, as far as can be told."""
        return clock.now() - self.seen_at > STALE_S


@dataclass(frozen=True)
class Use:
    """What one call of a model took, in tokens."""

    model: str
    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of an item. `results`, `sample`: JSON. `passed`: by criterion."""

    item_id: str
    status: Literal["pass", "fail", "error"]
    results: str
    sample: str
    passed: Mapping[str, bool] = field(default_factory=dict)
    uses: Sequence[Use] = ()


async def open_runs(session: AsyncSession) -> list[OpenRun]:
    """All that are not over, the oldest first."""
    query = select(
        EvalRun.id,
        EvalRun.user_id,
        EvalRun.model,
        EvalRun.server,
        EvalRun.seen_at,
        EvalRun.created_at,
        User.status,
        EvalRun.key_id,
    )
    query = query.outerjoin(User, User.id == EvalRun.user_id).where(EvalRun.status.in_(OPEN))
    found = await session.execute(query.order_by(EvalRun.position, EvalRun.id))
    return [
        OpenRun(run_id, user_id, model, server, seen_at, created_at, user_id is None or status == "active", key_id)
        for run_id, user_id, model, server, seen_at, created_at, status, key_id in found
    ]


async def claim(session: AsyncSession, run: OpenRun, server: str) -> bool:
    """Take a run; False where another server took it meanwhile, or it is over."""
    taken = (
        update(EvalRun)
        .where(EvalRun.id == run.id, EvalRun.status.in_(OPEN))
        .where(EvalRun.server == run.server, EvalRun.seen_at == run.seen_at)
        .values(server=server, seen_at=clock.now(), status="in_progress")
    )
    result = await session.execute(taken)
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


async def say_alive(session: AsyncSession, run_ids: Sequence[str], server: str) -> None:
    """That these are still worked on."""
    query = update(EvalRun).where(EvalRun.id.in_(run_ids), EvalRun.server == server, EvalRun.status.in_(OPEN))
    await session.execute(query.values(seen_at=clock.now()))


async def read_run(session: AsyncSession, run_id: str) -> tuple[EvalRun, Eval] | None:
    """A run that is open, with what is measured; None: it is over, or gone."""
    run = await session.get(EvalRun, run_id)
    if run is None or run.status not in OPEN:
        return None
    return run, await session.get_one(Eval, run.eval_id)


async def next_items(session: AsyncSession, run_id: str, after: int, limit: int) -> Sequence[EvalItem]:
    """Items of which nothing became yet, behind the one of number `after`."""
    query = select(EvalItem).where(EvalItem.run_id == run_id, EvalItem.number > after, EvalItem.status == "queued")
    return (await session.scalars(query.order_by(EvalItem.number).limit(limit))).all()


async def record(session: AsyncSession, run_id: str, outcomes: Sequence[Outcome]) -> bool:
    """Write down what became of items. False where the run is over: nobody wants to know any more."""
    run = await session.get(EvalRun, run_id, with_for_update=True)
    if run is None or run.status not in OPEN:
        return False
    tallies = tallies_of(run)
    for outcome in outcomes:
        item = await session.get(EvalItem, outcome.item_id)
        if item is None or item.status != "queued":
            continue
        item.status, item.results, item.sample = outcome.status, outcome.results, outcome.sample
        item.created_at = clock.now()
        run.size_bytes += size_of(outcome.results, outcome.sample)
        run.n_passed += outcome.status == "pass"
        run.n_failed += outcome.status == "fail"
        run.n_errored += outcome.status == "error"
        for criterion, passed in outcome.passed.items():
            counts = tallies["criteria"].setdefault(criterion, [0, 0])
            counts[0 if passed else 1] += 1
        for use in outcome.uses:
            sums = tallies["models"].setdefault(use.model, [0, 0, 0, 0])
            for place, n in enumerate((1, use.prompt, use.cached, use.completion)):
                sums[place] += n
    run.tallies = orjson.dumps(tallies).decode()
    return True


async def end(
    session: AsyncSession, run_id: str, status: Literal["completed", "failed"], code: str = "", message: str = ""
) -> None:
    """Say how a run ended, if nobody has said so yet."""
    run = await session.get(EvalRun, run_id, with_for_update=True)
    if run is not None and run.status in OPEN:
        run.status, run.finished_at = status, clock.now()
        run.error_code, run.error_message = code or None, message or None


def tallies_of(run: EvalRun) -> dict[str, Any]:
    """`criteria`: (passed, failed) by criterion; `models`: (calls, prompt, cached, completion tokens) by model."""
    return {"criteria": {}, "models": {}, **orjson.loads(run.tallies)}
