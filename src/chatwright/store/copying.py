"""All rows of one database into another, empty one, whichever of the two kinds each is: moving house, backups of PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import StoreError
from chatwright.store.database import Database
from chatwright.store.tables import Base
from chatwright.store.url import shown

CHUNK = 500


async def copy_rows(source: Database, target: Database, *, replace: bool = False) -> dict[str, int]:
    """Copy everything in one transaction on each side, and read it back. Both have this version's schema.

    Returns table → rows. Raises StoreError when the target has rows and is not to be replaced; then, as with every other
    failure, the target is as it was.
    """
    counts = {}
    async with source.read() as reader, target.write() as writer:
        await _make_room(writer, target, replace)
        await _defer_references(writer, target)
        for table in Base.metadata.sorted_tables:  # what is referred to first
            counts[table.name] = await _copy_table(reader, writer, table)
    return counts


async def is_empty(session: AsyncSession) -> bool:
    """Whether no table has a row."""
    for table in Base.metadata.sorted_tables:
        if await session.scalar(select(func.count()).select_from(table)):
            return False
    return True


async def _make_room(writer: AsyncSession, target: Database, replace: bool) -> None:
    if await is_empty(writer):
        return
    if not replace:
        raise StoreError("The database {path} is not empty: nothing was changed.", path=shown(target.url))
    for table in reversed(Base.metadata.sorted_tables):
        await writer.execute(table.delete())


async def _defer_references(writer: AsyncSession, target: Database) -> None:
    """Until the end of the transaction: rows of a table that refer to one another come in any order."""
    await writer.execute(text("PRAGMA defer_foreign_keys = ON" if target.is_sqlite else "SET CONSTRAINTS ALL DEFERRED"))


async def _copy_table(reader: AsyncSession, writer: AsyncSession, table: Table) -> int:
    n_rows, sent = 0, 0
    result = await reader.stream(select(table))
    async for chunk in result.mappings().partitions(CHUNK):
        rows = [dict(row) for row in chunk]
        await writer.execute(insert(table), rows)
        n_rows += len(rows)
        sent ^= _fingerprint(rows)
    arrived = 0
    back = await writer.stream(select(table))
    async for chunk in back.mappings().partitions(CHUNK):
        arrived ^= _fingerprint([dict(row) for row in chunk])
    if sent != arrived:
        raise StoreError("The rows of {table} changed on their way: nothing was changed.", table=table.name)
    return n_rows


def _fingerprint(rows: list[dict[str, Any]]) -> int:
    """Of the rows in any order: no two are alike, as each has its key."""
    result = 0
    for row in rows:
        result ^= int.from_bytes(hashlib.sha256(_canonical(row)).digest())
    return result


def _canonical(row: Mapping[str, Any]) -> bytes:
    return repr(sorted(row.items())).encode("utf-8", "surrogatepass")
