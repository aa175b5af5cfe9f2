"""What looks after jobs while the server runs: one turn after the other, each from what rows and folders say at that moment.

A turn ends workers whose jobs were cancelled or paused, writes what runs have done into the store, takes results over, and starts
what waits, in the order of the queue. Nothing is remembered that a server which starts anew would not find again: a worker that
outlived the server is found by the lock of its folder, and what was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from chatwright.errors import ChatwrightError, InvalidModelError, ModelNotFoundError, NotFoundError, StorageError
from chatwright.jobs.budget import CHECK, TUNE, Budget, Phase
from chatwright.jobs.children import Child
from chatwright.jobs.folder import LOG, JobFolder, JobsFolder, Outcome
from chatwright.jobs.reading import read_run, results_csv, trained_tokens
from chatwright.machine import available_memory_bytes
from chatwright.model.adapter import open_adapter
from chatwright.settings import Settings
from chatwright.store.actor import OPERATOR, on_behalf_of_owner
from chatwright.store.database import Database
from chatwright.store.files import Description, Files, rows
from chatwright.store.jobs import work
from chatwright.store.jobs.events import Event
from chatwright.store.jobs.states import ENDED, State
from chatwright.store.jobs.work import Failure
from chatwright.store.tables import Job
from chatwright.store.url import shown
from chatwright.training.run import Run

log = logging.getLogger(__name__)

# Between two turns: while something is at work, and while nothing is (users may be removed by others).
BUSY_S, IDLE_S = 0.5, 5.0
# After a turn that failed, for lack of a database or of room.
TROUBLE_S = 5.0
# Starts of a worker that does not get a step further.
MOST_TRIES = 3
# Files that are looked at beside the jobs that train.
CHECKS_AT_ONCE = 1
SWEEP_EVERY_S = 600.0
# Of the memory that is free when a worker starts.
DEFAULT_MEMORY_SHARE = 0.8
STOP_POLL_S = 0.05


class Supervisor:
    """One per server. `running` is its life."""

    def __init__(self, database: Database, files: Files, settings: Settings) -> None:
        self.database, self.files, self.settings = database, files, settings
        self.folder = JobsFolder(settings.home)
        self._children: dict[str, Child] = {}
        # How the last worker of a job ended that this server has seen.
        self._endings: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._stopping = False
        self._user_went = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the block runs jobs get on. When it ends workers save and end, to go on with the next server."""
        await self._begin()
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._stopping = True
            task.cancel()
            await asyncio.wait({task})
            await self._stop_children()

    def wake(self) -> None:
        """Something was asked for: do not wait for the next turn."""
        self._wake.set()

    def forget_user(self) -> None:
        """A user was removed: their jobs go now, and not with some later sweep."""
        self._user_went = True
        self.wake()

    async def news(self, timeout_s: float) -> None:
        """Until something has happened to any job, at most so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)

    def works_at(self, job_id: str) -> bool:
        """Whether a worker of this job may still be writing."""
        return job_id in self._children

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        swept_at = loop.time()
        while True:
            self._wake.clear()
            pause_s = TROUBLE_S
            try:
                if self._user_went or loop.time() - swept_at > SWEEP_EVERY_S:
                    self._user_went, swept_at = False, loop.time()
                    await self._sweep()
                pause_s = BUSY_S if await self.turn() else IDLE_S
            except ChatwrightError as error:
                log.warning("jobs have to wait: %s", error)
            except Exception as error:  # noqa: BLE001  an edge: one broken job must not end all others, and the log says where
                log.error("jobs: %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s)

    async def turn(self) -> bool:
        """Everything that can be done now; whether there is more to come soon. Raises StoreError and its kin, StorageError."""
        place = await asyncio.to_thread(self.folder.known_place)
        if place is None:
            return False
        async with self.database.read() as session:
            jobs = await work.jobs_at_work(session, OPERATOR, place)
            states = await work.states_of(session, OPERATOR, list(self._children))
            kept_out = await work.kept_out(session, OPERATOR, {job.user_id for job in jobs if job.user_id})
        await self._look_at_children(states)
        open_jobs = []
        for job in jobs:
            if job.user_id in kept_out:
                await self._move(job, State.PAUSED, Event("Paused: the account can not sign in.", level="warn"))
            elif await self._advance(job):
                open_jobs.append(job)
        await self._start_waiting(open_jobs)
        return bool(self._children or open_jobs)

    async def _begin(self) -> None:
        """Workers that outlived the server before, and what it left half made. Before anybody can ask for anything."""
        try:
            if not await self._is_ours():
                return
            for folder in await asyncio.to_thread(self.folder.jobs):
                child = await asyncio.to_thread(Child.found, folder)
                if child is not None:
                    log.info("the job %s is still at work (process %s)", folder.id, child.process.pid)
                    self._children[folder.id] = child
            await asyncio.to_thread(self.folder.sweep_half_made)
            await self._sweep(at_start=True)
        except ChatwrightError as error:
            log.warning("jobs have to wait: %s", error)

    async def _is_ours(self) -> bool:
        """Whether the jobs of this home folder are those that this database knows."""
        place = await asyncio.to_thread(self.folder.known_place)
        if place is None:
            return False
        if await asyncio.to_thread(self.folder.is_of, shown(self.database.url)):
            return True
        async with self.database.read() as session:
            if await work.knows(session, OPERATOR, place):
                return True
        log.warning("the jobs in %s go with another database: they are left alone", self.folder.path)
        return False

    async def _look_at_children(self, states: dict[str, State]) -> None:
        """Bury the dead, and end those whose jobs shall not go on."""
        for job_id, child in list(self._children.items()):
            state = states.get(job_id)
            if not child.is_alive():
                del self._children[job_id]
                self._endings[job_id] = _ending_of(child)
                if state is None:
                    await asyncio.to_thread(child.folder.remove)  # with its user
                elif state in ENDED:
                    await asyncio.to_thread(child.folder.forget_inputs)
                self._announce()
            elif state is None:
                child.kill()
            elif state in ENDED:
                child.stop(to_keep=False)
            elif state is State.PAUSED or child.asked_at is not None:
                child.stop(to_keep=True)

    async def _advance(self, job: Job) -> bool:
        """Write down what a job has done, and what comes of it; whether it is still open."""
        folder = self.folder.job(job.id)
        if not await asyncio.to_thread(folder.path.is_dir):
            await self._fail(job, folder, Failure("files_missing", "The files of this job are gone from the server."))
            return False
        # Looked at before the journals: what it wrote before it ended is then all there.
        is_at_work = job.id in self._children
        outcome = None if is_at_work else await asyncio.to_thread(folder.outcome)
        await self._read(job, folder)
        if is_at_work:
            return True
        if outcome is not None:
            await self._end(job, folder, outcome)
            return False
        if job.state == State.RUNNING:
            how = self._endings.pop(job.id, "")
            message = f"The process of the job ended early ({how})." if how else "The job was interrupted."
            await self._move(job, State.QUEUED, Event(f"{message} It goes on from what it has saved.", level="warn"))
        elif job.state == State.VALIDATING and await asyncio.to_thread(folder.checked) is not None:
            await self._move(job, State.QUEUED, Event("Files validated, moving job to queued state"))
        return True

    async def _read(self, job: Job, folder: JobFolder) -> None:
        """The journals of its run into events."""
        while True:
            before = json.loads(job.journal)
            reading = await asyncio.to_thread(read_run, folder, before)
            if reading.journal == before and (reading.chosen is None or job.chosen is not None):
                return
            async with self.database.write() as session:
                await work.note_progress(
                    session,
                    OPERATOR,
                    job.id,
                    reading.events,
                    journal=reading.journal,
                    chosen=reading.chosen,
                    got_on=reading.got_on,
                    estimated_finish=reading.estimated_finish,
                )
            job.journal, job.chosen = json.dumps(reading.journal), job.chosen or json.dumps(reading.chosen)
            if reading.got_on:
                job.tries = 0
            self._announce()
            if not reading.more:
                return

    async def _start_waiting(self, jobs: Sequence[Job]) -> None:
        """The first of those that wait, as many as may work at once."""
        if self._stopping:
            return
        checks = sum(child.phase == CHECK for child in self._children.values())
        tunes = len(self._children) - checks
        for job in jobs:
            if job.id in self._children:
                continue
            if job.state == State.VALIDATING and checks < CHECKS_AT_ONCE:
                checks += await self._start(job, CHECK, State.VALIDATING)
            elif job.state == State.QUEUED and tunes < self.settings.max_jobs:
                tunes += await self._start(job, TUNE, State.RUNNING)

    async def _start(self, job: Job, phase: Phase, state: State) -> bool:
        """Start a worker, unless others have failed at the same place; whether one was started."""
        folder = self.folder.job(job.id)
        if job.tries >= MOST_TRIES:
            how = self._endings.pop(job.id, "") or "it is not known how"
            message = (
                f"The process of the job ended {job.tries} times without getting on, the last time like this: {how}."
            )
            await self._fail(job, folder, Failure("worker_died", message))
            log.error("the job %s has failed: what its process wrote lies in %s", job.id, folder.path / LOG)
            return False
        child = await asyncio.to_thread(Child.found, folder)
        if child is None:
            async with self.database.write() as session:
                if not await work.move(session, OPERATOR, job.id, {State(job.state)}, state, again=True):
                    return False
            child = await asyncio.to_thread(Child.start, folder, phase, self._budget())
            log.info("the job %s is being worked at (%s, process %s)", job.id, phase, child.process.pid)
        self._children[job.id] = child
        self._announce()
        return True

    async def _end(self, job: Job, folder: JobFolder, outcome: Outcome) -> None:
        """What came of it."""
        if outcome.succeeded:
            await self._succeed(job, folder)
        else:
            await self._fail(job, folder, Failure(outcome.code, outcome.message, outcome.param))

    async def _succeed(self, job: Job, folder: JobFolder) -> None:
        actor = on_behalf_of_owner(job.user_id)
        try:
            await asyncio.to_thread(open_adapter, folder.adapter)
            run = await asyncio.to_thread(Run.open, folder.run)
        except (ModelNotFoundError, InvalidModelError) as error:
            log.error("the result of the job %s can not be read: %s", job.id, error)
            await self._fail(
                job, folder, Failure("result_unreadable", "The result of this job can not be read any more.")
            )
            return
        file_id = None
        try:
            file_id = await self._results_file(job, folder)
        except NotFoundError:  # its user was removed just now
            return
        except StorageError as error:
            log.warning("the table of results of the job %s could not be kept: %s", job.id, error)
        tokens = await asyncio.to_thread(trained_tokens, run)
        async with self.database.write() as session:
            kept = await work.succeed(session, OPERATOR, job.id, trained_tokens=tokens, result_file_id=file_id)
        if not kept and file_id is not None:  # cancelled in the last moment
            with suppress(NotFoundError):
                await self.files.delete(actor, file_id)
        await asyncio.to_thread(folder.forget_inputs)
        self._announce()

    async def _results_file(self, job: Job, folder: JobFolder) -> str:
        """The id of the table of results; made once, also where the server was killed before it was noted."""
        actor, name = on_behalf_of_owner(job.user_id), f"step_metrics-{job.id}.csv"
        async with self.database.read() as session:
            page = await rows.list_files(session, actor, purpose="fine-tune-results")
        for file in page.files:
            if file.filename == name:
                return file.id
        table = await asyncio.to_thread(results_csv, folder.run)
        return (await self.files.add(actor, Description("fine-tune-results", name), table)).id

    async def _fail(self, job: Job, folder: JobFolder, failure: Failure) -> None:
        async with self.database.write() as session:
            await work.fail(session, OPERATOR, job.id, failure)
        await asyncio.to_thread(folder.forget_inputs)
        self._announce()

    async def _move(self, job: Job, state: State, event: Event) -> None:
        """The row, and what this turn knows of it."""
        async with self.database.write() as session:
            moved = await work.move(session, OPERATOR, job.id, {State(job.state)}, state, event=event)
        if moved:
            job.state = state
            self._announce()

    async def _sweep(self, *, at_start: bool = False) -> None:
        """Folders of users who are no more; at the start also those that never got a row, and what ended jobs do not need."""
        if not (self.files.home_is_ours and await self._is_ours()):
            return
        folders = {folder.id: folder for folder in await asyncio.to_thread(self.folder.jobs)}
        async with self.database.read() as session:
            states = await work.states_of(session, OPERATOR, list(folders))
        strays = [folder for job_id, folder in folders.items() if job_id not in states and job_id not in self._children]
        owners = {folder.id: await asyncio.to_thread(_owner_of, folder) for folder in strays}
        async with self.database.read() as session:
            gone = await work.users_gone(session, OPERATOR, {owner for owner in owners.values() if owner})
        for folder in strays:
            # Of users who are there, and the operator's, only what never began: a database that was put back knows less.
            if owners[folder.id] in gone or (at_start and not folder.run.exists()):
                await asyncio.to_thread(folder.remove)
            elif at_start:
                log.warning("no row knows the job in %s: it is left alone", folder.path)
        if at_start:
            for job_id, state in states.items():
                if state in ENDED and job_id not in self._children:
                    await asyncio.to_thread(folders[job_id].forget_inputs)

    async def _stop_children(self) -> None:
        """Those that train save first, as far as the grace period lasts."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.graceful_timeout_s
        while alive := [child for child in self._children.values() if child.is_alive()]:
            for child in alive:
                if loop.time() > deadline:
                    child.kill()
                elif child.asked_at is None:
                    child.stop(to_keep=True)
            await asyncio.sleep(STOP_POLL_S)
        for job_id in self._children:
            event = Event("The server is shutting down. The job goes on when it is back.")
            with suppress(ChatwrightError):  # then the next start says it
                async with self.database.write() as session:
                    await work.move(session, OPERATOR, job_id, {State.RUNNING}, State.QUEUED, event=event)
        self._children.clear()

    def _budget(self) -> Budget:
        settings = self.settings
        return Budget(
            n_threads=settings.job_threads or max(1, settings.n_threads // 2),
            memory_bytes=settings.job_memory or int(DEFAULT_MEMORY_SHARE * available_memory_bytes()),
            device=settings.device,
        )

    def _announce(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _ending_of(child: Child) -> str:
    """How a worker ended, for people."""
    code = child.exit_code
    if code is None:
        return "it is not known how"
    if code == -9:
        return "it was killed, most likely because memory ran out"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _owner_of(folder: JobFolder) -> str | None:
    try:
        return folder.request().user_id
    except (StorageError, TypeError):
        return None
