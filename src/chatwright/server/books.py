"""The books of a server: what its requests use, written to the store in one transaction for all that wait.

A request that ended is told to its client only after it was tried to write it down: what a client saw end is in the usage tables,
also where the server is killed in that moment. What runs is noted once a second: a kill costs the tokens of its last second, and
the next start counts the rest. A database that cannot be written delays neither: what is to be written stays here, and is tried
again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress

import psutil

from chatwright.errors import StorageError, StoreError, StoreUnavailableError
from chatwright.server.errors import log_crash
from chatwright.store.database import Database
from chatwright.store.ids import new_id
from chatwright.store.usage.ledger import Entry, Tokens, fold, note, settle, settle_dead

log = logging.getLogger(__name__)

NOTE_EVERY_S = 1.0
# How often a server without work looks after reservations of dead ones.
SWEEP_EVERY_S = 60.0
CLOCK_SLACK_S = 3
FOLD_EVERY_S = 3600
# A server on another machine is dead when it said nothing for so long.
SILENCE_S = 180
FAILURES = (StoreError, StoreUnavailableError, StorageError)


class Books:
    """One per app, in its event loop."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self.database = database
        self.server = server_name()
        self._now = now
        self._running: dict[str, Entry] = {}
        self._ended: list[Entry] = []
        self._tried: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._noted_at = 0.0
        self._swept_at = 0.0
        self._folded_at = 0
        self._closed = False

    def begin(self, entry: Entry) -> None:
        """A request runs."""
        if not self._running:  # the task sleeps long while nothing runs
            self._noted_at = asyncio.get_running_loop().time()
            self._wake.set()
        self._running[entry.id] = entry
        self.start()

    def end(self, entry: Entry) -> None:
        """It ended; what it has used is final."""
        self._running.pop(entry.id, None)
        self._ended.append(entry)
        self._tried[entry.id] = asyncio.Event()
        self._wake.set()

    async def written(self, entry: Entry) -> None:
        """Wait until it was tried to write down a request that ended."""
        event = self._tried.get(entry.id)
        if event is not None:
            await event.wait()

    def start(self) -> None:
        """Begin to write, and to look after what dead servers left."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Write what is left, once more."""
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await self._task
            self._task = None
        await self._write(noting=False)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closed:
            if loop.time() - self._swept_at >= SWEEP_EVERY_S or not self._swept_at:
                self._swept_at = loop.time()
                await self._sweep()
            wait_s = SWEEP_EVERY_S
            if self._running:
                wait_s = max(0.0, self._noted_at + NOTE_EVERY_S - loop.time())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)
            self._wake.clear()
            noting = loop.time() - self._noted_at >= NOTE_EVERY_S
            if noting:
                self._noted_at = loop.time()
            if not await self._write(noting=noting):
                await asyncio.sleep(NOTE_EVERY_S)
                self._wake.set()

    async def _write(self, *, noting: bool) -> bool:
        """One transaction; whether it succeeded."""
        ended, self._ended = self._ended, []
        running = list(self._running.values()) if noting else []
        if not ended and not running:
            return True
        written: list[tuple[Entry, Tokens]] = []
        try:
            async with self.database.write() as session:
                await settle(session, ended)
                written = await note(session, self.server, running, self._now())
        except FAILURES as error:
            log.warning("usage can not be written, it will be tried again: %s", error)
            self._ended = ended + self._ended
            return False
        except Exception as error:  # noqa: BLE001  the edge of a task: without it every answer would wait for ever
            log_crash("usage can not be written, it will be tried again", error)
            self._ended = ended + self._ended
            return False
        finally:
            for entry in ended:
                if (event := self._tried.pop(entry.id, None)) is not None:
                    event.set()
        for entry, tokens in written:
            entry.noted = tokens
        return True

    async def _sweep(self) -> None:
        """Count what dead servers left."""
        now = self._now()
        try:
            async with self.database.write() as session:
                n_dead = await settle_dead(session, lambda server, seen_at: is_dead(server, seen_at, now))
            while now - self._folded_at >= FOLD_EVERY_S:
                async with self.database.write() as session:
                    if not await fold(session, now):
                        self._folded_at = now
        except FAILURES as error:
            log.warning("what dead servers left can not be looked for, it will be tried again: %s", error)
        except Exception as error:  # noqa: BLE001  as above
            log_crash("what dead servers left can not be looked for", error)
        else:
            if n_dead:
                log.info("requests of a server that ended without a word were counted: %d", n_dead)


def server_name() -> str:
    """This process, told from all others: machine, process, when it began, and a word of its own."""
    began = int(psutil.Process().create_time())
    return f"{socket.gethostname()[:200]}/{os.getpid()}/{began}/{new_id('server')}"


def is_dead(server: str, seen_at: int, now: int) -> bool:
    """Whether a server answers no more: its process is gone from this machine, or it was silent for long on another."""
    machine, _, rest = server.partition("/")
    if machine != socket.gethostname()[:200]:
        return now - seen_at > SILENCE_S
    pid, began, *_ = rest.split("/")
    try:
        # Roughly: the time since which it runs is computed of the machine's, which may have been corrected.
        return abs(psutil.Process(int(pid)).create_time() - int(began)) > CLOCK_SLACK_S
    except psutil.Error:
        return True
