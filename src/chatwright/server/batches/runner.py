"""Whoever has batches worked on: looks into the database every now and then, begins what is new and ends what shall end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from chatwright.errors import ChatwrightError
from chatwright.server.batches.answering import Answering
from chatwright.server.batches.folder import BatchFolder, batches_in
from chatwright.server.batches.work import Work
from chatwright.server.errors import log_crash
from chatwright.server.permission import route_policies
from chatwright.server.state import ServerState
from chatwright.store import clock
from chatwright.store.batches import OPEN, open_batches
from chatwright.store.files import Files
from chatwright.store.tables import Batch

log = logging.getLogger(__name__)

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations")
LOOK_EVERY_S = 1.0
# A folder without a row may be of a batch that is just being made.
YOUNG_S = 60
LOST_AFTER_S = 3600


class BatchRunner:
    """One per server. Inside of `running` it works."""

    def __init__(self, app: FastAPI, state: ServerState, files: Files, answering: Answering) -> None:
        self._answering = answering
        self._files = files
        self._home = state.settings.home
        self._paths = {policy.path for policy in route_policies(app) if policy.method == "POST"}
        self._wake = asyncio.Event()
        self._work: dict[str, Work] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until the block ends; what is not finished then goes on with the next server."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            tasks = [watch, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def endpoints(self) -> list[str]:
        """The routes that answer lines: those of OpenAI's that this server has."""
        return [path for path in ENDPOINTS if path in self._paths]

    def wake(self) -> None:
        """There is something new in the database."""
        self._wake.set()

    def folder(self, batch_id: str) -> BatchFolder:
        """Where a batch is worked on."""
        return BatchFolder(self._home, batch_id)

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look()
            except ChatwrightError as error:  # the database is away: the next time, then
                log.warning("%s", error)
            except Exception as error:  # noqa: BLE001  an edge: batches go on, whatever one look met
                log_crash("batches were not looked after", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S if self._tasks else 10 * LOOK_EVERY_S):
                    await self._wake.wait()

    async def _look(self) -> None:
        async with self._files.database.read() as session:
            found = {batch.id: batch for batch in await open_batches(session)}
        for batch_id, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[batch_id], self._work[batch_id]
            elif batch_id not in found:  # its owner was removed
                task.cancel()
            else:
                self._work[batch_id].end_if_due(found[batch_id])
        for batch_id in await asyncio.to_thread(batches_in, self._home):
            if batch_id in self._tasks:
                continue
            if batch_id in found:
                work = Work(found[batch_id], self.folder(batch_id), self._files, self._answering)
                self._work[batch_id] = work
                self._tasks[batch_id] = asyncio.create_task(work.run())
                self._tasks[batch_id].add_done_callback(lambda _: self.wake())
            elif self._files.home_is_ours:
                await self._forget(batch_id)

        for batch in found.values():
            if batch.expires_at + LOST_AFTER_S <= clock.now() and batch.id not in self._tasks:
                await self._give_up(batch.id)

    async def _give_up(self, batch_id: str) -> None:
        """A batch that should be over, and whose folder is in no home: nobody else will say so."""
        async with self._files.database.write() as session:
            row = await session.get(Batch, batch_id, with_for_update=True)
            if row is not None and row.status in OPEN:
                row.status, row.expired_at = "expired", clock.now()

    async def _forget(self, batch_id: str) -> None:
        """Delete what is left of a batch that is over, or never came to be. One that is being made has no row yet."""
        folder = self.folder(batch_id)
        with suppress(OSError):
            if clock.now() - folder.path.stat().st_mtime < YOUNG_S:
                return
        await asyncio.to_thread(folder.remove)
