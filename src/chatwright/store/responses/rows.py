"""Responses and their items. One that is being written is ended in one transaction with all that it said, or is called failed: no
row says that something is written which nobody writes.

Who may begin, read, cancel and delete is asked with the actor. The rest is the server's own bookkeeping of what was begun.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.ids import is_wire_id, new_wire_id
from chatwright.store.kept import size_of
from chatwright.store.policy import Action, Resource, authorize, owns
from chatwright.store.responses import conversations
from chatwright.store.responses.items import KeptItem
from chatwright.store.tables import ResponseItemRow, ResponseRow, User

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
RUNNING: tuple[Status, Status] = ("queued", "in_progress")
# A server says every few seconds that it is there. Who was silent for so long is gone.
STALE_S = 30
# How far back a conversation is read by previous_response_id.
MAX_CHAIN = 4096
MAX_ITEMS = 4096
LOST = "The server ended before this response was finished. Ask again."


@dataclass(frozen=True)
class Ended:
    """How a response came to its end. `head`, `pieces`: as in `ResponseRow`."""

    status: Status
    head: str
    pieces: str | None
    output: Sequence[KeptItem]


def may_keep(actor: Actor) -> bool:
    """Whether what this actor says can be kept: for somebody."""
    return actor.user_id is not None or owns(actor, None)


async def add_response(session: AsyncSession, actor: Actor, row: ResponseRow, said: Sequence[KeptItem]) -> None:
    """A response that is about to be written, and what was said to the model."""
    authorize(actor, Action.USE_RESPONSES, Resource(row.user_id))
    row.size_bytes = size_of(row.head, *(item.content for item in said))
    session.add(row)
    await session.flush()
    _add_items(session, row.id, said, is_output=False, after=0)


async def find_response(session: AsyncSession, actor: Actor, response_id: str) -> ResponseRow:
    """Raises NotFoundError."""
    row = await session.get(ResponseRow, response_id) if is_wire_id(response_id) else None
    if row is None:
        authorize(actor, Action.USE_RESPONSES)
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_RESPONSES, Resource(row.user_id))
    return row


async def ids_of_ended(
    session: AsyncSession, actor: Actor, *, created_after: int | None, created_before: int | None
) -> list[str]:
    """One's own that were answered, in the order in which they were begun; the bounds are among them."""
    authorize(actor, Action.USE_RESPONSES)
    query = select(ResponseRow.id).where(
        ResponseRow.user_id.is_not_distinct_from(actor.user_id), ResponseRow.status.in_(("completed", "incomplete"))
    )
    if created_after is not None:
        query = query.where(ResponseRow.created_at >= created_after)
    if created_before is not None:
        query = query.where(ResponseRow.created_at <= created_before)
    return list(await session.scalars(query.order_by(ResponseRow.created_at, ResponseRow.id)))


async def found(session: AsyncSession, actor: Actor, ids: Sequence[str]) -> list[ResponseRow]:
    """Those of them that are still there and the actor's own, in this order."""
    authorize(actor, Action.USE_RESPONSES)
    query = select(ResponseRow).where(ResponseRow.id.in_(ids), ResponseRow.user_id.is_not_distinct_from(actor.user_id))
    there = {row.id: row for row in await session.scalars(query)}
    return [there[response_id] for response_id in ids if response_id in there]


async def items_of(session: AsyncSession, row: ResponseRow, *, is_output: bool) -> list[KeptItem]:
    """What was said to the model in it, or by the model, in order."""
    query = select(ResponseItemRow).where(
        ResponseItemRow.response_id == row.id, ResponseItemRow.is_output.is_(is_output)
    )
    found = await session.scalars(query.order_by(ResponseItemRow.number))
    return [KeptItem(item.id, item.content) for item in found]


async def history(session: AsyncSession, actor: Actor, response_id: str) -> list[KeptItem]:
    """Everything that was said up to the end of a response, in order. Raises InvalidRequestError."""
    authorize(actor, Action.USE_RESPONSES)
    row = await session.get(ResponseRow, response_id) if is_wire_id(response_id) else None
    if row is None or not owns(actor, row.user_id):
        raise _no_previous(response_id)
    if row.status in RUNNING:
        raise InvalidRequestError(
            "The response {id} is not finished yet: wait for its end, or cancel it.",
            id=response_id,
            param="previous_response_id",
            code="previous_response_not_finished",
        )
    missing, items = await _chain(session, row.id, row.user_id)
    if missing is not None:
        raise _no_previous(missing)
    if len(items) > MAX_ITEMS:
        raise InvalidRequestError(
            "This conversation has more than {n} items: begin a new one.",
            n=MAX_ITEMS,
            param="previous_response_id",
            code="invalid_value",
        )
    return items


async def input_of(session: AsyncSession, row: ResponseRow) -> list[KeptItem]:
    """What the model read: all that was said before, as far as it is still there, then what was said to it in this response."""
    before = (await _chain(session, row.previous_id, row.user_id))[1] if row.previous_id is not None else []
    return [*before, *await items_of(session, row, is_output=False)]


async def _chain(session: AsyncSession, response_id: str, user_id: str | None) -> tuple[str | None, list[KeptItem]]:
    """(the id of the response that is missing at its beginning, or None; everything said up to the end of this one, in order, at
    most MAX_ITEMS + 1)."""
    chain = select(ResponseRow.id, ResponseRow.previous_id, literal(0).label("back")).where(
        ResponseRow.id == response_id, ResponseRow.user_id.is_not_distinct_from(user_id)
    )
    steps = chain.cte("chain", recursive=True)
    further = (
        select(ResponseRow.id, ResponseRow.previous_id, (steps.c.back + 1).label("back"))
        .join(steps, ResponseRow.id == steps.c.previous_id)
        .where(steps.c.back < MAX_CHAIN, ResponseRow.user_id.is_not_distinct_from(user_id))
    )
    steps = steps.union_all(further)
    links = (await session.execute(select(steps.c.id, steps.c.previous_id).order_by(steps.c.back.desc()))).all()
    query = (
        select(ResponseItemRow.id, ResponseItemRow.content)
        .join(steps, ResponseItemRow.response_id == steps.c.id)
        .order_by(steps.c.back.desc(), ResponseItemRow.number)
        .limit(MAX_ITEMS + 1)
    )
    items = [KeptItem(*found) for found in (await session.execute(query))]
    return links[0][1] if links else None, items


async def find_item(session: AsyncSession, actor: Actor, item_id: str) -> KeptItem | None:
    """An item of any of one's responses."""
    if not is_wire_id(item_id):
        return None
    query = (
        select(ResponseItemRow.content, ResponseRow.user_id)
        .join(ResponseRow, ResponseRow.id == ResponseItemRow.response_id)
        .where(ResponseItemRow.id == item_id)
    )
    found = (await session.execute(query)).first()
    return KeptItem(item_id, found[0]) if found is not None and owns(actor, found[1]) else None


async def delete_response(session: AsyncSession, actor: Actor, response_id: str) -> ResponseRow:
    """Delete it with all that was said in it. Raises NotFoundError."""
    row = await find_response(session, actor, response_id)
    await session.execute(delete(ResponseRow).where(ResponseRow.id == row.id))
    return row


async def ask_to_cancel(session: AsyncSession, actor: Actor, response_id: str) -> ResponseRow:
    """Tell whichever server writes it that it shall end. Raises NotFoundError."""
    row = await find_response(session, actor, response_id)
    row.cancel_asked = True
    return row


async def begin(session: AsyncSession, response_id: str, head: str) -> None:
    """It has left the queue."""
    await session.execute(
        update(ResponseRow)
        .where(ResponseRow.id == response_id, ResponseRow.status == "queued")
        .values(status="in_progress", head=head, seen_at=clock.now())
    )


async def note_alive(session: AsyncSession, server: str, ids: Collection[str]) -> Collection[str]:
    """Say that a server writes these. Returns those that shall end: it was asked for, the user may not be here any more, or they
    were deleted."""
    rows = await session.execute(
        select(ResponseRow.id, ResponseRow.user_id, ResponseRow.cancel_asked, User.status)
        .outerjoin(User, User.id == ResponseRow.user_id)
        .where(ResponseRow.id.in_(ids))
    )
    wanted = {
        response_id
        for response_id, user_id, cancel_asked, status in rows
        if not cancel_asked and (user_id is None or status == "active")
    }
    await session.execute(
        update(ResponseRow).where(ResponseRow.id.in_(wanted), ResponseRow.server == server).values(seen_at=clock.now())
    )
    return [response_id for response_id in ids if response_id not in wanted]


async def end(session: AsyncSession, response_id: str, ended: Ended) -> bool:
    """The last word on a response, which its conversation has from then on. False where it is gone, or was given up."""
    row = await session.get(ResponseRow, response_id, with_for_update=True)
    if row is None or row.status not in RUNNING:
        return False
    row.status, row.head, row.pieces = ended.status, ended.head, ended.pieces
    row.size_bytes += size_of(ended.pieces, *(item.content for item in ended.output))
    said = await items_of(session, row, is_output=False)
    _add_items(session, row.id, ended.output, is_output=True, after=len(said))
    if row.conversation_id is not None and ended.status != "failed":
        await conversations.append(session, row.conversation_id, [*said, *ended.output])
    return True


async def end_lost(session: AsyncSession, server: str, running: Collection[str], only: str | None = None) -> list[str]:
    """Call those failed that nobody writes any more, as `server` sees it: `running` is what it writes itself. Returns their ids.

    `only`: of this one response.
    """
    query = select(ResponseRow).where(ResponseRow.status.in_(RUNNING))
    if only is not None:
        query = query.where(ResponseRow.id == only)
    lost = []
    for row in await session.scalars(query.with_for_update()):
        mine = row.server == server
        if (mine and row.id not in running) or (not mine and abs(clock.now() - row.seen_at) > STALE_S):
            head = json.loads(row.head) | {"status": "failed", "error": {"code": "server_error", "message": LOST}}
            row.status, row.head = "failed", json.dumps(head, ensure_ascii=False)
            lost.append(row.id)
    return lost


def new_row(
    actor: Actor,
    response_id: str,
    status: Status,
    head: str,
    server: str,
    previous_id: str | None,
    conversation_id: str | None,
) -> ResponseRow:
    """A row that is not in the database yet."""
    now = clock.now()
    return ResponseRow(
        id=response_id,
        user_id=actor.user_id,
        status=status,
        previous_id=previous_id,
        conversation_id=conversation_id,
        head=head,
        pieces=None,
        server=server,
        seen_at=now,
        cancel_asked=False,
        created_at=now,
    )


def new_response_id() -> str:
    """`resp_…`."""
    return new_wire_id("resp")


def _add_items(
    session: AsyncSession, response_id: str, items: Sequence[KeptItem], *, is_output: bool, after: int
) -> None:
    for number, item in enumerate(items, start=after):
        session.add(
            ResponseItemRow(
                id=item.id, response_id=response_id, number=number, is_output=is_output, content=item.content
            )
        )


def _no_previous(response_id: str) -> InvalidRequestError:
    return InvalidRequestError(
        "Previous response with id '{id}' not found.",
        id=response_id[:60],
        param="previous_response_id",
        code="previous_response_not_found",
    )
