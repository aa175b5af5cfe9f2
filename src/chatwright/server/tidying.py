"""While the server runs: files that expired are deleted, keys and sessions that did are closed for good, and what a kill or a
removed user left behind goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatwright.errors import ChatwrightError
from chatwright.server.errors import log_crash
from chatwright.store.accounts.service import Accounts
from chatwright.store.files import Files

log = logging.getLogger(__name__)

EVERY_S = 600.0


@asynccontextmanager
async def kept_tidy(files: Files | None, accounts: Accounts | None = None) -> AsyncIterator[None]:
    """Once before anything arrives, then every few minutes until the block ends."""
    if files is None:
        yield
        return
    await _sweep(files, accounts, at_start=True)
    task = asyncio.create_task(_go_on(files, accounts))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _go_on(files: Files, accounts: Accounts | None) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        await _sweep(files, accounts)


async def _sweep(files: Files, accounts: Accounts | None, *, at_start: bool = False) -> None:
    try:
        if accounts is not None:
            await accounts.close_what_is_over()
        n_removed = await files.sweep(at_start=at_start)
    except ChatwrightError as error:  # the database is away: the next time, then
        log.warning("%s", error)
    except Exception as error:  # noqa: BLE001  an edge: what is left over is no reason not to serve
        log_crash("files were not swept", error)
    else:
        if n_removed:
            log.info("contents of files that are no more, deleted: %d", n_removed)
