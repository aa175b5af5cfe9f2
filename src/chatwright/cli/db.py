"""`db`: bring the database up to date, back it up, restore it, move it to PostgreSQL."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from chatwright.cli.output import Output, read_settings
from chatwright.i18n import _

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


def upgrade(context: typer.Context) -> None:
    """Bring the database up to date, or make it. A file of SQLite is backed up first."""
    import asyncio

    from chatwright.settings import make_private_folder
    from chatwright.store import migrate
    from chatwright.store.url import database_url, file_of, shown

    output: Output = context.obj
    settings = read_settings()
    url = database_url(settings)
    if file_of(url) is not None:
        make_private_folder(settings.home)
    warn_of_network(url, output)
    done = asyncio.run(migrate.upgrade(url))
    if done.before is None:
        output.say(_("Made the database {path} (revision {revision}).", path=shown(url), revision=done.after))
    elif done.before == done.after:
        output.say(_("The database {path} is up to date (revision {revision}).", path=shown(url), revision=done.after))
    else:
        output.say(
            _(
                "Brought the database {path} from revision {before} to {after}.",
                path=shown(url),
                before=done.before,
                after=done.after,
            )
        )
    if done.backup is not None:
        output.say(_("What it was before lies in {path}.", path=done.backup))


def backup(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Where to. Default: a new file under backups in the home folder."),
    ] = None,
) -> None:
    """Write the database into one file. A running server goes on meanwhile."""
    import asyncio
    from pathlib import Path

    from chatwright.settings import make_private_folder
    from chatwright.store import sqlite_file
    from chatwright.store.backup import back_up
    from chatwright.store.url import database_url

    output: Output = context.obj
    settings = read_settings()
    if file is None:
        folder = settings.home / sqlite_file.BACKUPS
        make_private_folder(folder)
        target = folder / f"chatwright-{sqlite_file.stamp()}.db"
    else:
        target = Path(file).expanduser().absolute()
    asyncio.run(back_up(database_url(settings), target))
    output.say(_("The backup is whole and checked. It holds accounts: keep it as safe as the database."))
    output.data(str(target))


def restore(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file that `chatwright db backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the database that is there aside and take the backup in its place.")
    ] = False,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Let no key, session or link of the backup open anything; passwords do.")
    ] = False,
) -> None:
    """Make the database what a backup holds. The server must be stopped."""
    import asyncio
    from pathlib import Path

    from chatwright.cli.home import stopped_server
    from chatwright.store import backup as backups
    from chatwright.store.url import database_url, shown

    output: Output = context.obj
    settings = read_settings()
    url = database_url(settings)
    with stopped_server(settings.home, "chatwright db restore"):
        done = asyncio.run(
            backups.restore(Path(file).expanduser().absolute(), url, settings.home, replace=replace, revoke=revoke)
        )
    output.say(
        _(
            "The database {path} is what the backup holds (revision {revision}).",
            path=shown(url),
            revision=done.revision,
        )
    )
    if done.replaced is not None:
        output.say(_("What it was before lies in {path}.", path=done.replaced))
    if done.n_aside:
        output.say(
            _(
                "{n} contents of files and batches that the backup does not know were moved to {path}; restoring what lies"
                " there brings them back.",
                n=done.n_aside,
                path=done.aside,
            )
        )
    if done.n_back:
        output.say(_("{n} contents of files and batches that lay aside are back.", n=done.n_back))
    if revoke:
        output.say(_("All its keys are revoked, sessions and links have ended; passwords are as they were."))
    else:
        output.say(
            _(
                "Keys that were revoked, and users who were suspended or removed, after the backup was made are in force again:"
                " look at `chatwright keys ls` and `chatwright users ls`. --revoke would have ended all keys, sessions and links."
            )
        )


def migrate_to(
    context: typer.Context,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="An empty database: postgresql://USER:PASSWORD@HOST/NAME, or - to read the URL from standard input.",
        ),
    ],
) -> None:
    """Copy everything into another database, such as PostgreSQL. The server must be stopped."""
    import asyncio

    from chatwright.cli.home import stopped_server
    from chatwright.store import backup as backups
    from chatwright.store.url import database_url, parse_url, shown

    output: Output = context.obj
    settings = read_settings()
    # Others can read a command line: a password is better piped in.
    target = parse_url(sys.stdin.readline().strip() if url == "-" else url)
    source = database_url(settings)
    with stopped_server(settings.home, "chatwright db migrate-to"):
        counts = asyncio.run(backups.move(source, target))
    output.say(
        _(
            "Copied {n} rows to {path}, and read them back. Set CHATWRIGHT_DATABASE_URL to use it; the old database stays as it"
            " was.",
            n=sum(counts.values()),
            path=shown(target),
        )
    )


def warn_of_network(url: URL, output: Output) -> None:
    """SQLite's locks do not hold on network file systems, whatever those say."""
    from chatwright.store.sqlite_file import network_file_system
    from chatwright.store.url import file_of

    path = file_of(url)
    kind = network_file_system(path) if path is not None else None
    if kind:
        output.say(
            _(
                "The database {path} lies on a network file system ({kind}), where SQLite can be damaged: keep it on a disk of this"
                " machine, or use PostgreSQL (CHATWRIGHT_DATABASE_URL).",
                path=path,
                kind=kind,
            )
        )
