"""One batch, from where the last server left off to the files with its results.

The database says what is to be done, the batch's folder what was done. At any moment a batch may be cancelled, expire, or lose its
owner; then it ends with what it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from chatwright.errors import ChatwrightError, StorageError
from chatwright.server.batches.answering import LONGEST_PAUSE_S, Answering
from chatwright.server.batches.folder import BatchFolder, Results, Tally, is_success
from chatwright.server.batches.lines import Line, Mistake, check, mistakes_json, read
from chatwright.server.errors import log_crash
from chatwright.store import clock
from chatwright.store.actor import on_behalf_of_owner
from chatwright.store.batches import OpenBatch
from chatwright.store.files import Description, Files, rows
from chatwright.store.files.folder import explained
from chatwright.store.ids import random_text
from chatwright.store.tables import Batch, File

log = logging.getLogger(__name__)

NOTE_EVERY_S = 2.0
EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}
SUSPENDED = Mistake("user_suspended", "The batch was ended, as its user was suspended.")


class Work:
    """Run once; where it fails for a reason that may pass, it is begun again."""

    def __init__(self, batch: OpenBatch, folder: BatchFolder, files: Files, answering: Answering) -> None:
        self._id = batch.id
        self._actor = on_behalf_of_owner(batch.user_id, batch.key_id)
        self._folder = folder
        self._files = files
        self._answering = answering
        self._results = Results()
        # "cancelled", "expired" or "failed", where it ends before its last line.
        self._end = ""
        self._ended = asyncio.Event()
        self.end_if_due(batch)

    def end_if_due(self, batch: OpenBatch) -> None:
        """Look at what the database says of it."""
        if not self._end and batch.status != "finalizing":
            if batch.status == "cancelling":
                self._end = "cancelled"
            elif not batch.owner_is_active:
                self._end = "failed"
            elif batch.expires_at <= clock.now():
                self._end = "expired"
        if self._end:
            self._ended.set()

    async def run(self) -> None:
        """Until the batch is over. What is raised by a disk or a database ends this try only."""
        try:
            await self._run()
        except ChatwrightError as error:
            log.warning("the batch %s waits: %s", self._id, error)
            await asyncio.sleep(LONGEST_PAUSE_S)
        except Exception as error:  # noqa: BLE001  an edge: other batches go on
            log_crash(f"the batch {self._id} failed", error)
            await asyncio.sleep(LONGEST_PAUSE_S)
        finally:
            await self._folder.close()

    async def _run(self) -> None:
        async with self._files.database.read() as session:
            batch = await session.get(Batch, self._id)
        if batch is None:
            return
        if batch.status == "validating" and not self._end:
            checked = await self._in_thread(check, self._folder.input, batch.endpoint, self._answering.most_line_bytes)
            if checked.mistakes:
                await self._finish(batch, "failed", checked.mistakes)
                return
            values = {"n_total": checked.n_lines, "model": checked.model, "in_progress_at": clock.now()}
            await self._update("in_progress", **values)
        self._results = await asyncio.to_thread(self._folder.open)
        if not self._end:
            await self._answer_all(batch)
        if not self._end:
            await self._update("finalizing", finalizing_at=clock.now())
        await self._finish(batch, self._end or "completed", [SUSPENDED] if self._end == "failed" else [])

    async def _answer_all(self, batch: Batch) -> None:
        """Answer what was not answered before; return when that is done, or when the batch shall end."""
        lines = read(self._folder.input, batch.endpoint, self._answering.most_line_bytes)
        turn = asyncio.Lock()

        async def go_on() -> None:
            while True:
                async with turn:
                    line = await self._in_thread(self._next, lines)
                if line is None:
                    return
                answer = await self._answering.answer(self._actor, self._id, batch.endpoint, line.body)
                response = {"status_code": answer.status, "request_id": answer.request_id, "body": answer.body}
                await self._keep({**_head(line), "response": response, "error": None})

        async def note() -> None:
            while True:
                await asyncio.sleep(NOTE_EVERY_S)
                try:
                    await self._update(None, **vars(self._results.tally))
                except ChatwrightError as error:  # only a figure
                    log.warning("%s", error)

        workers = [asyncio.create_task(go_on()) for _ in range(self._answering.at_once)]
        finished = asyncio.create_task(asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION))
        ended, noting = asyncio.create_task(self._ended.wait()), asyncio.create_task(note())
        try:
            await asyncio.wait({finished, ended}, return_when=asyncio.FIRST_COMPLETED)
            for worker in workers:
                if worker.done():
                    worker.result()
        finally:
            for task in (*workers, finished, ended, noting):
                task.cancel()
            await asyncio.gather(*workers, finished, ended, noting, return_exceptions=True)

    async def _keep(self, result: dict[str, Any]) -> None:
        """Write an answer down, however long the disk is full: it has cost something."""
        while True:
            try:
                await self._folder.append(result)
                break
            except StorageError as error:
                log.error("the batch %s waits: %s", self._id, error)
                await asyncio.sleep(LONGEST_PAUSE_S)
        self._results.done.add(result["custom_id"])
        self._results.tally.add(result)

    def _next(self, lines: Iterator[Line]) -> Line | None:
        return next((line for line in lines if line.custom_id not in self._results.done), None)

    async def _finish(self, batch: Batch, status: str, mistakes: list[Mistake]) -> None:
        """Make the files of what there is, and the batch what it has become, in one step."""
        await self._folder.close()
        tally, output, errors = await self._in_thread(self._write_files, batch, status)
        made: dict[str, File] = {}
        for field, path in (("output_file_id", output), ("error_file_id", errors)):
            if path is not None:
                name = f"{batch.id}_{field.partition('_')[0]}.jsonl"
                about = Description("batch_output", name, batch.output_lives_s)
                made[field] = await self._files.stage(self._actor, about, path)
        async with self._files.database.write() as session:
            row = await session.get(Batch, batch.id, with_for_update=True)
            if row is None:  # with its owner; the contents go with the next sweep
                return
            for field, file in made.items():
                await rows.add_file(session, self._actor, file, None)
                setattr(row, field, file.id)
            for field, value in vars(tally).items():
                setattr(row, field, value)
            row.n_total = max(row.n_total, tally.n_completed + tally.n_failed)
            # All was done, but somebody had asked for its end.
            status = "cancelled" if status == "completed" and row.status == "cancelling" else status
            row.status = status
            row.errors = mistakes_json(mistakes) if mistakes else None
            setattr(row, f"{status}_at", clock.now())
        await asyncio.to_thread(self._folder.remove)

    def _write_files(self, batch: Batch, status: str) -> tuple[Tally, Path | None, Path | None]:
        """(sums, answers, errors), the latter None where there are none."""
        results, tally = self._folder.open(), Tally()
        with explained(self._folder.path):
            places = [self._folder.path / name for name in ("output.jsonl", "error.jsonl")]
            with places[0].open("wb") as output, places[1].open("wb") as errors:
                for result in self._folder.results():
                    tally.add(result)
                    (output if is_success(result) else errors).write(orjson.dumps(result) + b"\n")
                if status == "expired":
                    for line in read(self._folder.input, batch.endpoint, self._answering.most_line_bytes):
                        if line.custom_id not in results.done:
                            result = {**_head(line), "response": None, "error": EXPIRED}
                            tally.add(result)
                            errors.write(orjson.dumps(result) + b"\n")
            output_path, error_path = (path if path.stat().st_size else None for path in places)
        return tally, output_path, error_path

    async def _update(self, status: str | None, **values: Any) -> None:
        async with self._files.database.write() as session:
            batch = await session.get(Batch, self._id, with_for_update=True)
            if batch is None or batch.status == "cancelling":
                return  # what was asked for meanwhile is not overwritten
            for name, value in values.items():
                setattr(batch, name, value)
            batch.status = status or batch.status

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        with explained(self._folder.path):
            return await asyncio.to_thread(function, *arguments)


def _head(line: Line) -> dict[str, str]:
    return {"id": f"batch_req_{random_text(24)}", "custom_id": line.custom_id}
