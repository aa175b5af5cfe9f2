"""Opening the store of these settings, in the state that this version needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatwright.errors import StoreError
from chatwright.settings import Settings, make_private_folder
from chatwright.store import schema, sqlite_file
from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.url import database_url, file_of, shown


async def open_store(settings: Settings, *, create: bool) -> Database:
    """The database, of this version's schema. `create`: make it where there is none.

    A file is brought up to date here, after a backup. A database of PostgreSQL may serve other machines, which have to be
    updated too: that is left to whoever runs `chatwright db upgrade`. Raises StoreError and its kin, UsageError.
    """
    url = database_url(settings)
    path = file_of(url)
    if path is not None and not sqlite_file.exists(path) and not create:
        raise StoreError("There is no database at {path} yet.", path=path)
    if path is not None and path.parent == settings.home:
        make_private_folder(settings.home)
    database = Database(url)
    try:
        if path is not None and not sqlite_file.exists(path):
            await upgrade(url)
        async with database.connect() as connection:
            state = await connection.run_sync(schema.state_of, url)
        if state is schema.State.BEHIND and path is None:
            raise StoreError(
                "The database {path} is of an older version: bring it up to date with `chatwright db upgrade`.",
                path=shown(url),
            )
        if state is not schema.State.CURRENT:
            if state is schema.State.EMPTY and not create:
                raise StoreError("There is no database at {path} yet.", path=shown(url))
            await upgrade(url)
    except BaseException:
        await database.close()
        raise
    return database


@asynccontextmanager
async def opened(settings: Settings, *, create: bool) -> AsyncIterator[Database]:
    """`open_store` for one errand."""
    database = await open_store(settings, create=create)
    try:
        yield database
    finally:
        await database.close()
