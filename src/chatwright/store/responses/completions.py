"""Chat completions that were to be kept, with the messages they answered, found by model and metadata."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.store.actor import Actor
from chatwright.store.kept import size_of
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import StoredCompletion, StoredLabel, StoredMessage

ID = re.compile(r"chatcmpl-[0-9a-f]{32}")


@dataclass(frozen=True)
class Kept:
    """A completion. `body`: the wire's object without metadata, as JSON."""

    id: str
    body: str
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class CompletionPage:
    """`has_more`: there are more behind the last one."""

    completions: Sequence[Kept]
    has_more: bool


async def keep_completion(
    session: AsyncSession, actor: Actor, kept: Kept, model: str, created_at: int, messages: Sequence[str]
) -> None:
    """Add one. `messages`: what it answers, each as JSON."""
    authorize(actor, Action.USE_RESPONSES, Resource(actor.user_id))
    session.add(
        StoredCompletion(
            id=kept.id,
            user_id=actor.user_id,
            position=time.time_ns(),
            model=model,
            body=kept.body,
            size_bytes=size_of(kept.body, *messages),
            created_at=created_at,
        )
    )
    await session.flush()
    for number, content in enumerate(messages):
        session.add(StoredMessage(completion_id=kept.id, number=number, content=content))
    _add_labels(session, kept.id, kept.metadata)


async def find_completion(session: AsyncSession, actor: Actor, completion_id: str) -> Kept:
    """Raises NotFoundError."""
    row = await _own_row(session, actor, completion_id)
    return (await _with_labels(session, [row]))[0]


async def list_completions(
    session: AsyncSession,
    actor: Actor,
    *,
    model: str | None,
    metadata: Mapping[str, str],
    after: str | None,
    limit: int,
    newest_first: bool,
) -> CompletionPage:
    """One's own, in the order in which they were made: those of a model, with all of these pairs, behind the one `after`.

    Raises InvalidRequestError.
    """
    authorize(actor, Action.USE_RESPONSES)
    place = tuple_(StoredCompletion.position, StoredCompletion.id)
    query = select(StoredCompletion).where(StoredCompletion.user_id.is_not_distinct_from(actor.user_id))
    if model is not None:
        query = query.where(StoredCompletion.model == model)
    for name, value in metadata.items():
        has = select(StoredLabel.name).where(
            StoredLabel.completion_id == StoredCompletion.id, StoredLabel.name == name, StoredLabel.value == value
        )
        query = query.where(has.exists())
    if after is not None:
        try:
            start = await _own_row(session, actor, after)
        except NotFoundError:
            raise InvalidRequestError(
                "There is no completion '{id}' after which to go on.",
                id=after[:60],
                param="after",
                code="invalid_value",
            ) from None
        mark = tuple_(start.position, start.id)
        query = query.where(place < mark if newest_first else place > mark)
    order = (StoredCompletion.position, StoredCompletion.id)
    query = query.order_by(*(column.desc() for column in order)) if newest_first else query.order_by(*order)
    rows = (await session.scalars(query.limit(limit + 1))).all()
    return CompletionPage(await _with_labels(session, rows[:limit]), len(rows) > limit)


async def messages_of(session: AsyncSession, actor: Actor, completion_id: str) -> list[str]:
    """What it answers, each as JSON, in order. Raises NotFoundError."""
    row = await _own_row(session, actor, completion_id)
    query = select(StoredMessage.content).where(StoredMessage.completion_id == row.id).order_by(StoredMessage.number)
    return list(await session.scalars(query))


async def change_metadata(session: AsyncSession, actor: Actor, completion_id: str, metadata: Mapping[str, str]) -> Kept:
    """Put other metadata in the place of what there was. Raises NotFoundError."""
    row = await _own_row(session, actor, completion_id)
    await session.execute(delete(StoredLabel).where(StoredLabel.completion_id == row.id))
    _add_labels(session, row.id, metadata)
    return Kept(row.id, row.body, metadata)


async def delete_completion(session: AsyncSession, actor: Actor, completion_id: str) -> None:
    """With what it answered. Raises NotFoundError."""
    row = await _own_row(session, actor, completion_id)
    await session.execute(delete(StoredCompletion).where(StoredCompletion.id == row.id))


async def _own_row(session: AsyncSession, actor: Actor, completion_id: str) -> StoredCompletion:
    row = await session.get(StoredCompletion, completion_id) if ID.fullmatch(completion_id) else None
    if row is None:
        authorize(actor, Action.USE_RESPONSES)
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_RESPONSES, Resource(row.user_id))
    return row


async def _with_labels(session: AsyncSession, rows: Sequence[StoredCompletion]) -> list[Kept]:
    labels: dict[str, dict[str, str]] = {row.id: {} for row in rows}
    query = select(StoredLabel).where(StoredLabel.completion_id.in_(labels)).order_by(StoredLabel.name)
    for label in await session.scalars(query):
        labels[label.completion_id][label.name] = label.value
    return [Kept(row.id, row.body, labels[row.id]) for row in rows]


def _add_labels(session: AsyncSession, completion_id: str, metadata: Mapping[str, str]) -> None:
    for name, value in metadata.items():
        session.add(StoredLabel(completion_id=completion_id, name=name, value=value))
