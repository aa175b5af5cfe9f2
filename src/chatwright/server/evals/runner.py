"""Whoever has runs of evals worked on: looks into the database every now and then, takes up what is open, ends what shall end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from chatwright.errors import ChatwrightError
from chatwright.server.batches.answering import Answering
from chatwright.server.errors import log_crash
from chatwright.server.evals.work import CannotRunError, Work
from chatwright.server.state import ServerState, server_name
from chatwright.store import clock
from chatwright.store.actor import on_behalf_of_owner
from chatwright.store.database import Database
from chatwright.store.evals import work as store
from chatwright.store.evals.work import OpenRun

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
ALIVE_EVERY_S = 10
WINDOW_S = 24 * 3600
# Runs that are worked on; the others wait. Each has some of its items in memory.
RUNS_AT_ONCE = 16
RUNS_OF_ONE = 4
EXPIRED = CannotRunError("run_expired", "The run was not finished within 24 hours. What there was until then is kept.")
SUSPENDED = CannotRunError("user_suspended", "The run was ended, as its user was suspended.")


class EvalRunner:
    """One per server. Inside of `running` it works."""

    def __init__(self, state: ServerState, database: Database, answering: Answering) -> None:
        self.server = server_name(state.settings.home)
        self._state = state
        self._database = database
        self._answering = answering
        self._wake = asyncio.Event()
        # Comparing two long texts takes a good part of a second of Python: with one at a time the event loop waits for one thread.
        self._grading = asyncio.Semaphore(1)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._owners: dict[str, str | None] = {}
        self._said_alive_at = 0

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

    def wake(self) -> None:
        """There is something new in the database."""
        self._wake.set()

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look()
            except ChatwrightError as error:  # the database is away: the next time, then
                log.warning("%s", error)
            except Exception as error:  # noqa: BLE001  an edge: runs go on, whatever one look met
                log_crash("runs of evals were not looked after", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S if self._tasks else 10 * LOOK_EVERY_S):
                    await self._wake.wait()

    async def _look(self) -> None:
        async with self._database.read() as session:
            found = {run.id: run for run in await store.open_runs(session)}
        for run_id, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[run_id], self._owners[run_id]
            elif run_id not in found or found[run_id].server != self.server:
                task.cancel()  # over, gone, or taken by another server while this one was away
        for run in found.values():
            if (reason := _why_not(run)) is not None:
                await self._give_up(run.id, reason)
            elif run.id not in self._tasks and self._has_place(run) and await self._is_ours(run):
                async with self._database.write() as session:
                    taken = await store.claim(session, run, self.server)
                if taken:
                    self._begin(run)
        if self._tasks and clock.now() - self._said_alive_at >= ALIVE_EVERY_S:
            async with self._database.write() as session:
                await store.say_alive(session, list(self._tasks), self.server)
            self._said_alive_at = clock.now()

    def _begin(self, run: OpenRun) -> None:
        work = Work(run, self._database, self._state, self._answering, self._grading)
        task = self._tasks[run.id] = asyncio.create_task(work.run())
        self._owners[run.id] = run.user_id
        task.add_done_callback(lambda _: self.wake())

    def _has_place(self, run: OpenRun) -> bool:
        """Whether it can be worked on now. Who has many runs leaves room for those of others."""
        owners = list(self._owners.values())
        return len(owners) < RUNS_AT_ONCE and owners.count(run.user_id) < RUNS_OF_ONE

    async def _is_ours(self, run: OpenRun) -> bool:
        """Whether this server shall work on it: it took it before, or who did is gone and the model is served here too."""
        if run.server == self.server:
            return True
        if not run.is_lost():
            return False
        if run.model is not None:
            try:
                await self._state.model_called(run.model, on_behalf_of_owner(run.user_id))
            except ChatwrightError:
                return False
        return True

    async def _give_up(self, run_id: str, reason: CannotRunError) -> None:
        if (task := self._tasks.get(run_id)) is not None:
            task.cancel()
        async with self._database.write() as session:
            await store.end(session, run_id, "failed", reason.code, reason.message)


def _why_not(run: OpenRun) -> CannotRunError | None:
    """Why a run shall end before its last item."""
    if not run.owner_is_active:
        return SUSPENDED
    return EXPIRED if run.created_at + WINDOW_S <= clock.now() else None
