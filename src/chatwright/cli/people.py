"""What `users` and `keys` share: one errand in the store, and finding whom is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from chatwright.cli.output import Output, read_settings

if TYPE_CHECKING:
    from chatwright.settings import Settings
    from chatwright.store.accounts.service import Accounts

T = TypeVar("T")


def with_accounts(output: Output, work: Callable[[Accounts], Awaitable[T]], *, create: bool = False) -> T:
    """Do something in the database of the settings. `create`: make it where there is none. Raises StoreError and its kin."""
    from chatwright.cli.db import warn_of_network
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.opening import opened
    from chatwright.store.url import database_url

    settings = read_settings()
    warn_of_network(database_url(settings), output)

    async def errand() -> T:
        async with opened(settings, create=create) as database:
            return await work(Accounts(database))

    return asyncio.run(errand())


def server_address(settings: Settings) -> str:
    """Where people reach the server: CHATWRIGHT_PUBLIC_URL, the one that runs on this home folder, or the one that would."""
    from chatwright.cli.home import running_server

    running = running_server(settings.home).url
    if settings.public_url:
        return settings.public_url
    return running if running.startswith("http") else f"http://127.0.0.1:{settings.port}"


def welcome_link(address: str, token: str) -> str:
    """The page on which a password is chosen. Behind a #, so that no log of a proxy keeps the token."""
    return f"{address}/#welcome={token}"


def shown_time(seconds: int | None) -> str:
    """A time as people read it, in the machine's time zone."""
    from datetime import datetime

    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds is not None else "-"
