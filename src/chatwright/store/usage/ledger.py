"""From reservations to usage: what running requests have used so far is noted, what ended is counted, and what a dead server left
is found."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, cast

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import ReturningDelete

from chatwright.store.database import one_at_a_time
from chatwright.store.ids import new_id
from chatwright.store.tables import Base, Reservation, Usage
from chatwright.store.usage.payer import Kind, Payer
from chatwright.store.usage.times import DAY, minute_of

COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens")
HOUR = 3600
MINUTES_KEPT_S = 2 * DAY
FOLD_AT_ONCE = 1000


@dataclass(frozen=True)
class Tokens:
    """What a request has used: tokens of prompts, those of them that were in the cache, and tokens of answers."""

    input: int = 0
    cached: int = 0
    output: int = 0


@dataclass
class Entry:
    """A request in the books of the server that answers it. `reserved`: tokens that it will not exceed.

    `noted`: what its row in the store says it has used; None while it has no row, as far as we know (`may_have_row`).
    `is_counted`: whether it counts as a request: not when it was refused before it began.
    """

    payer: Payer
    model: str
    kind: Kind
    started_at: int
    reserved: int
    used: Tokens = Tokens()
    noted: Tokens | None = None
    is_counted: bool = True
    may_have_row: bool = False
    id: str = field(default_factory=lambda: new_id("reservation"))


async def note(session: AsyncSession, server: str, entries: Iterable[Entry], now: int) -> list[tuple[Entry, Tokens]]:
    """Write what running requests have used so far; what was written, for `noted` once it is committed."""
    written = [(entry, entry.used) for entry in entries]
    rows = [
        {
            "id": entry.id,
            "server": server,
            "user_id": entry.payer.user_id,
            "key_id": entry.payer.key_id,
            "model": entry.model,
            "kind": entry.kind,
            "started_at": entry.started_at,
            "seen_at": now,
            "tokens": entry.reserved,
            "input_tokens": used.input,
            "cached_tokens": used.cached,
            "output_tokens": used.output,
        }
        for entry, used in written
    ]
    for entry, _ in written:
        entry.may_have_row = True  # also where nobody hears of the commit
    if rows:
        await _execute(session, "reservations", rows)
    return written


async def settle(session: AsyncSession, entries: Sequence[Entry]) -> None:
    """Turn the reservations of requests that ended into usage."""
    taken = await _take(session, [entry.id for entry in entries if entry.may_have_row])
    gone = {entry.id for entry in entries if entry.noted is not None} - taken
    sums: dict[_Key, _Sums] = defaultdict(_Sums)
    for entry in entries:
        # Another server took this one for dead, and has counted what was noted: the rest is missing.
        before = entry.noted if entry.id in gone and entry.noted is not None else Tokens()
        requests = int(entry.is_counted and entry.id not in gone)
        key = _Key(minute_of(entry.started_at), entry.payer, entry.model, entry.kind)
        sums[key].add(requests, entry.used, before)
    await _add(session, sums)


async def settle_dead(session: AsyncSession, is_dead: Callable[[str, int], bool]) -> int:
    """Count what requests of servers that live no more have used, as far as it was noted, and free what they had reserved.

    `is_dead`: of a server's name, and when it was last seen. Returns how many there were.
    """
    rows = {row.id: row for row in await session.scalars(select(Reservation))}
    dead = [row.id for row in rows.values() if is_dead(row.server, row.seen_at)]
    sums: dict[_Key, _Sums] = defaultdict(_Sums)
    taken = await _take(session, dead)
    for row in (rows[row_id] for row_id in taken):
        key = _Key(minute_of(row.started_at), Payer(row.user_id, row.key_id), row.model, cast("Kind", row.kind))
        sums[key].add(1, Tokens(row.input_tokens, row.cached_tokens, row.output_tokens), Tokens())
    await _add(session, sums)
    return len(taken)


async def fold(session: AsyncSession, now: int) -> int:
    """Put the minutes of each hour together that ended some days ago: a year by the minute would be millions of rows.

    Returns how many minutes were put away; more may be left.
    """
    await one_at_a_time(session, "old usage")
    border = now - now % HOUR - MINUTES_KEPT_S
    old = select(Usage.id).where(Usage.start < border, Usage.start % HOUR != 0).order_by(Usage.id).limit(FOLD_AT_ONCE)
    ids = (await session.scalars(old)).all()
    columns = [getattr(Usage, name) for name in ("start", "user_id", "key_id", "model", "kind", *COUNTS)]
    rows = (await session.execute(delete(Usage).where(Usage.id.in_(ids)).returning(*columns))).all()
    sums: dict[_Key, _Sums] = defaultdict(_Sums)
    for start, user_id, key_id, model, kind, requests, *tokens in rows:
        key = _Key(start - start % HOUR, Payer(user_id, key_id), model, kind)
        sums[key].add(requests, Tokens(*tokens), Tokens())
    await _add(session, sums)
    return len(rows)


@dataclass(frozen=True)
class _Key:
    """What a row of usage is about."""

    start: int
    payer: Payer
    model: str
    kind: Kind

    @property
    def id(self) -> str:
        text = "\0".join((str(self.start), self.payer.user_id, self.payer.key_id, self.model, self.kind))
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass
class _Sums:
    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0

    def add(self, requests: int, used: Tokens, before: Tokens) -> None:
        self.requests += requests
        self.input += used.input - before.input
        self.cached += used.cached - before.cached
        self.output += used.output - before.output


async def _take(session: AsyncSession, ids: Sequence[str]) -> set[str]:
    """Delete reservations; those that were there."""
    if not ids:
        return set()
    connection = await session.connection()
    return {row.id for row in await connection.execute(_delete(), {"ids": list(ids)})}


@cache
def _delete() -> ReturningDelete[tuple[str]]:
    table = Base.metadata.tables["reservations"]
    return delete(table).where(table.c.id.in_(bindparam("ids", expanding=True))).returning(table.c.id)


async def _add(session: AsyncSession, sums: dict[_Key, _Sums]) -> None:
    # In the order of ids: two servers that add to the same rows must not wait for each other.
    rows = [
        {
            "id": key.id,
            "start": key.start,
            "user_id": key.payer.user_id,
            "key_id": key.payer.key_id,
            "model": key.model,
            "kind": key.kind,
            "requests": more.requests,
            "input_tokens": more.input,
            "cached_tokens": more.cached,
            "output_tokens": more.output,
        }
        for key, more in sorted(sums.items(), key=lambda item: item[0].id)
        if more != _Sums()
    ]
    if rows:
        await _execute(session, "usage", rows)


async def _execute(session: AsyncSession, table: Written, rows: list[dict[str, Any]]) -> None:
    connection = await session.connection()
    await connection.execute(_upsert(table, connection.dialect.name), rows)


Written = Literal["reservations", "usage"]


@cache
def _upsert(table: Written, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """Insert rows, or change those that are there: reservations are written anew, usage is added to. Both databases know that, each
    in a class of its own. Built once, as that costs more than running it."""
    target = Base.metadata.tables[table]
    statement = postgresql.insert(target) if dialect == "postgresql" else sqlite.insert(target)
    new = statement.excluded
    if table == "usage":
        return statement.on_conflict_do_update(
            index_elements=["id"], set_={name: target.c[name] + new[name] for name in COUNTS}
        )
    return statement.on_conflict_do_update(
        index_elements=["id"], set_={name: new[name] for name in ("seen_at", *COUNTS[1:])}
    )
