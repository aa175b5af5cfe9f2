"""Which revision of the schema a database has, beside those that this version of Chatwright knows."""

from __future__ import annotations

from enum import Enum
from functools import cache
from importlib.resources import files
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.engine import URL, Connection

from chatwright.errors import StoreError
from chatwright.store.url import shown


class State(Enum):
    """What a database is to this version."""

    EMPTY = "empty"
    CURRENT = "current"
    BEHIND = "behind"


@cache
def scripts() -> ScriptDirectory:
    """The migrations."""
    return ScriptDirectory(str(Path(str(files("chatwright.store"))) / "migrations"))


def head() -> str:
    """The newest revision."""
    found = scripts().get_current_head()
    assert found is not None
    return found


def revisions() -> list[str]:
    """All of them, the oldest first."""
    return [script.revision for script in scripts().walk_revisions()][::-1]


def revision_of(connection: Connection) -> str | None:
    """The database's revision; None when it has none."""
    heads = MigrationContext.configure(connection).get_current_heads()
    return heads[0] if heads else None


def state_of(connection: Connection, url: URL) -> State:
    """Raises StoreError for a database newer than this version, or of another program."""
    revision = revision_of(connection)
    if revision is None:
        if inspect(connection).get_table_names():
            raise StoreError(
                "The database {path} belongs to another program: name another one in CHATWRIGHT_DATABASE_URL.",
                path=shown(url),
            )
        return State.EMPTY
    if revision not in revisions():
        raise StoreError(
            "The database {path} was written by a newer Chatwright (revision {revision}, this one knows {head}): install that"
            " version again, or restore an older backup.",
            path=shown(url),
            revision=revision,
            head=head(),
        )
    return State.CURRENT if revision == head() else State.BEHIND
