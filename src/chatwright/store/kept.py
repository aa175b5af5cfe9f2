"""How much programs may leave on /v1: rows of each kind, and bytes of all kinds together, of one owner.

Each row knows its size, with what belongs to it, so that what is deleted, in whatever way, counts no more. What was let in is
written to its end: an answer is not lost because it, or another one at the same time, turned out longer than what was left.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import TooLargeError
from chatwright.store.actor import Actor
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import ApiConversation, Eval, EvalRun, ResponseRow, StoredCompletion

Kind = type[ResponseRow] | type[ApiConversation] | type[StoredCompletion] | type[Eval] | type[EvalRun]
KINDS: tuple[Kind, ...] = (ResponseRow, ApiConversation, StoredCompletion, Eval, EvalRun)
MOST_RESPONSES = 100_000
MOST_CONVERSATIONS = 10_000
MOST_COMPLETIONS = 100_000


def size_of(*texts: str | None) -> int:
    """In bytes, as UTF-8."""
    return sum(len(text.encode()) for text in texts if text is not None)


async def check_room(session: AsyncSession, actor: Actor, kind: Kind | None, more_bytes: int, quota_bytes: int) -> None:
    """Raise TooLargeError where the actor may not keep another row of this kind (None: more of one that is there), so large.
    `quota_bytes`: of all kinds together; 0 for no limit."""
    authorize(actor, Action.USE_EVALS if kind in (Eval, EvalRun) else Action.USE_RESPONSES, Resource(actor.user_id))
    counts: Mapping[Kind, tuple[int, int]] = {each: await _counted(session, actor, each) for each in KINDS}
    if kind is ResponseRow and counts[kind][0] >= MOST_RESPONSES:
        raise TooLargeError(
            "There can be {n} stored responses at most: delete some first, or send store: false.",
            n=MOST_RESPONSES,
            param=None,
            code="too_many_responses",
        )
    if kind is ApiConversation and counts[kind][0] >= MOST_CONVERSATIONS:
        raise TooLargeError(
            "There can be {n} conversations at most: delete some first.",
            n=MOST_CONVERSATIONS,
            param=None,
            code="too_many_conversations",
        )
    if kind is StoredCompletion and counts[kind][0] >= MOST_COMPLETIONS:
        raise TooLargeError(
            "There can be {n} stored completions at most: delete some first, or leave out store.",
            n=MOST_COMPLETIONS,
            param=None,
            code="too_many_completions",
        )
    if quota_bytes and sum(n_bytes for _, n_bytes in counts.values()) + more_bytes > quota_bytes:
        raise TooLargeError(
            "All that your programs keep (responses, conversations, stored completions, evals) can take {size} MiB at most: delete"
            " some first.",
            size=f"{quota_bytes / 2**20:g}",
            param=None,
            code="storage_quota_exceeded",
        )


async def _counted(session: AsyncSession, actor: Actor, kind: Kind) -> tuple[int, int]:
    """(rows, bytes) of the actor's own; both are in an index."""
    query = select(func.count(), func.coalesce(func.sum(kind.size_bytes), 0))
    n_rows, n_bytes = (await session.execute(query.where(kind.user_id.is_not_distinct_from(actor.user_id)))).one()
    return int(n_rows), int(n_bytes)
