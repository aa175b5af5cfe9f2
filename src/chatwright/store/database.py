"""One database: transactions that read and transactions that write, alike on SQLite and PostgreSQL.

SQLite has one connection that writes and a pool that reads (WAL: readers see the last commit and wait for nobody). Every write
begins as `BEGIN IMMEDIATE`, so that two processes take turns instead of failing half-way. No transaction stays open while an
answer is generated.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from threading import Lock
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from chatwright.store import sqlite
from chatwright.store.failures import explained
from chatwright.store.url import file_of

READERS = 4
POSTGRES_CONNECTIONS = 10
# How long a request waits for its turn before it is told that the database is busy.
WAIT_S = 15.0
_CREATING = Lock()


class Database:
    """Connections are made when they are first needed, in the event loop that needs them; `close` ends them all."""

    def __init__(self, url: URL, *, wait_s: float = WAIT_S) -> None:
        self.url = url
        self.is_sqlite = file_of(url) is not None
        if self.is_sqlite:
            self._writer = sqlite_engine(url, 1, wait_s, writes=True)
            self._reader = sqlite_engine(url, READERS, wait_s, writes=False)
        else:
            self._writer = self._reader = create_async_engine(
                url,
                pool_size=POSTGRES_CONNECTIONS,
                max_overflow=0,
                pool_timeout=wait_s,
                pool_pre_ping=True,  # a server that restarted is found out before a request is lost to it
                connect_args={"connect_timeout": max(2, round(wait_s))},
                hide_parameters=True,
            )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A transaction that sees one state of the database and changes nothing. Raises StoreError and its kin."""
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with explained(self.url):
            async with AsyncSession(self._reader, expire_on_commit=False, autoflush=False) as session:
                await session.connection(execution_options=options)
                yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that is committed when the block ends, and leaves nothing when it raises. Raises StoreError and its kin."""
        with explained(self.url):
            async with AsyncSession(self._writer, expire_on_commit=False) as session, session.begin():
                await session.connection()
                yield session

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A bare connection in a transaction that writes, for what looks at the schema. Committed when the block ends."""
        with explained(self.url):
            async with self._writer.begin() as connection:
                yield connection

    async def close(self) -> None:
        """End all connections."""
        for engine in {id(engine): engine for engine in (self._writer, self._reader)}.values():
            await engine.dispose()


async def one_at_a_time(session: AsyncSession, name: str) -> None:
    """Let no two transactions that say the same name run at the same time: what one checks, no other changes before it ends.

    On SQLite all that write do so one at a time anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


def sqlite_engine(url: URL, connections: int, wait_s: float, *, writes: bool, foreign_keys: bool = True) -> AsyncEngine:
    """Connections that all write, or all only read."""
    # The driver's most talkative level repeats every value that is written: what people say, and digests of their secrets.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=wait_s,
        connect_args={"timeout": wait_s},
        hide_parameters=True,
    )
    path = file_of(url)
    assert path is not None

    @event.listens_for(engine.sync_engine, "do_connect")
    def keep_private(*_: Any) -> None:
        # Made here, so that nobody else can read it for a moment either. A process that closes a file of SQLite's gives up all
        # locks that its connections hold on it: so never one that exists, and one after the other.
        with _CREATING:
            if not path.exists() and path.parent.is_dir():
                with suppress(FileExistsError):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        sqlite.prepare(connection, writes=writes, foreign_keys=foreign_keys)

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
