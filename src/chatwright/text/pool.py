"""Work items on several processes: started anew (never forked), gone when their leader is gone, results as they come."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from chatwright.errors import InvalidDatasetError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pool:
    """A context manager. With one worker everything happens in this process."""

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self.executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.executor is not None:
            self.executor.shutdown(wait=True, cancel_futures=True)

    def run(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in any order. The first exception ends everything; items in work are finished before.

        Raises InvalidDatasetError where memory runs out.
        """
        try:
            yield from self._results(work, items)
        except MemoryError as error:
            raise InvalidDatasetError(
                "Memory ran out. Run the same command again with fewer --workers, or with more memory: it goes on where it stopped."
            ) from error

    def _results(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        if self.n_workers == 1:
            yield from map(work, items)
            return
        if self.executor is None:
            context = multiprocessing.get_context("spawn")
            self.executor = ProcessPoolExecutor(self.n_workers, mp_context=context, initializer=_start_worker)
        queue = iter(items)
        # A few more than there are workers: a million items need not be pickled at once.
        pending: set[Future[Result]] = {self.executor.submit(work, item) for item in islice(queue, self.n_workers * 2)}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                pending |= {self.executor.submit(work, item) for item in islice(queue, len(done))}
        except BrokenProcessPool as error:
            raise InvalidDatasetError(
                "A worker process was killed, most likely because memory ran out. Run the same command again with fewer "
                "--workers: it goes on where it stopped."
            ) from error
        finally:
            for future in pending:
                future.cancel()


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the leader, which ends us
    os.environ["RAYON_NUM_THREADS"] = "1"  # rensa would take all cores in every worker
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A leader killed with -9 closes no pipe that a waiting worker would notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
