"""Files with their contents: what is written first, the row or the content, so that a kill at any moment leaves no lie.

A content comes before its row and goes after it. Between the two it belongs to nobody; the sweep takes it away.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from chatwright.errors import ContentMissingError, InvalidRequestError, NotFoundError
from chatwright.settings import Settings
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.database import Database
from chatwright.store.files import rows
from chatwright.store.files.aside import FILES, JOBS, Known, put_aside, take_back
from chatwright.store.files.describe import Description, check_is_text
from chatwright.store.files.folder import CHUNK_BYTES, PARTS, START_BYTES, FilesFolder, Incoming, explained
from chatwright.store.files.moment import MARGIN_S, Moment, draw_anew, mark_of
from chatwright.store.ids import is_id
from chatwright.store.policy import Action, authorize
from chatwright.store.sqlite_file import replaced_folder
from chatwright.store.tables import File, Upload, UploadPart
from chatwright.store.url import shown

log = logging.getLogger(__name__)

# Between a content and its row lies a transaction: what is older than this has none to come.
SETTLED_AFTER_S = 3600.0
UPLOADS_KEPT_S = 30 * 86_400


class Files:
    """One per process. Methods raise StoreError and its kin besides what they name."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.folder = FilesFolder(settings.home, shown(database.url))
        self.limit_bytes = settings.file_limit
        self.upload_limit_bytes = settings.upload_limit
        self.quota_bytes = settings.file_quota
        # Whether the last sweep found that what lies in the home folder goes with this database: nobody deletes any of it before.
        self.home_is_ours = False
        self._arriving: Counter[str | None] = Counter()

    @asynccontextmanager
    async def receive(
        self, actor: Actor, *, announced_bytes: int = 0, limit_bytes: int | None = None
    ) -> AsyncIterator[Incoming]:
        """A content that a client sends; gone when the block ends, unless it was kept.

        Raises TooLargeError as soon as it is larger than a file may be, or all of the owner's files than their quota, counting
        what arrives at the same time; DiskFullError, StorageError.
        """
        authorize(actor, Action.USE_FILES)
        async with self.database.read() as session:
            stored = await rows.check_quota(session, actor, announced_bytes, self.quota_bytes)
        owner, grown = actor.user_id, 0

        def grow(n_bytes: int) -> None:
            nonlocal grown
            grown += n_bytes
            self._arriving[owner] += n_bytes
            if self.quota_bytes and stored + self._arriving[owner] > self.quota_bytes:
                raise rows.over_quota(self.quota_bytes)

        try:
            async with self.folder.incoming(limit_bytes or self.limit_bytes, announced_bytes, grow) as incoming:
                yield incoming
        finally:
            self._arriving[owner] -= grown
            if not self._arriving[owner]:
                del self._arriving[owner]

    async def keep(self, actor: Actor, incoming: Incoming, about: Description) -> File:
        """Make what arrived a file. Raises InvalidRequestError for what cannot be of its purpose, TooLargeError, StorageError."""
        check_is_text(incoming.start, about.purpose, is_whole=incoming.size_bytes <= START_BYTES)
        file = await self._place(actor, incoming, about)
        try:
            async with self.database.write() as session:
                await rows.add_file(session, actor, file, self.quota_bytes)
        except InvalidRequestError:
            # Not after any error: a commit whose answer was lost may have happened. The sweep knows.
            await self.folder.remove(self.folder.content(file.id))
            raise
        except IntegrityError as error:  # the user was removed while the file arrived
            await self.folder.remove(self.folder.content(file.id))
            raise NotFoundError("There is nothing of that id.") from error
        return file

    async def add(self, actor: Actor, about: Description, source: Path | bytes) -> File:
        """A file that the server made, for the actor (`on_behalf_of_owner`): copied. No quota stands in its way."""
        file = await self.stage(actor, about, source)
        async with self.database.write() as session:
            await rows.add_file(session, actor, file, None)
        return file

    async def stage(self, actor: Actor, about: Description, source: Path | bytes) -> File:
        """The first half of `add`, for who adds the row (`rows.add_file`) together with others. Without that the sweep takes the
        content away again."""
        async with self.folder.incoming(limit_bytes=2**62) as incoming:
            if isinstance(source, bytes):
                await incoming.write(source)
            else:
                with explained(source), source.open("rb") as stream:
                    while chunk := await asyncio.to_thread(stream.read, CHUNK_BYTES):
                        await incoming.write(chunk)
            return await self._place(actor, incoming, about)

    async def get(self, actor: Actor, file_id: str) -> File:
        """One file. Raises NotFoundError."""
        async with self.database.read() as session:
            return await rows.get_file(session, actor, file_id)

    async def content(self, actor: Actor, file_id: str) -> tuple[File, Path]:
        """(file, where its content lies), to be read only. Raises NotFoundError, ContentMissingError."""
        file = await self.get(actor, file_id)
        path = self.folder.content(file.id)
        if not path.is_file():
            raise missing_content(file.id)
        return file, path

    async def delete(self, actor: Actor, file_id: str) -> None:
        """Delete a file and its content. Raises NotFoundError."""
        place = self.folder.content((await self.get(actor, file_id)).id)
        async with self.folder.leaving(place):
            async with self.database.write() as session:
                await rows.delete_file(session, actor, file_id)
            await self.folder.remove(place)

    @asynccontextmanager
    async def leaving_with(self, user_id: str) -> AsyncIterator[None]:
        """While the block removes a user: their contents are deleted when it ends well, not by some later sweep."""
        if not is_id(user_id):  # whoever removes says that there is nobody of that name
            yield
            return
        async with self.database.read() as session:
            file_ids = (await session.scalars(select(File.id).where(File.user_id == user_id))).all()
            theirs = select(UploadPart.id).join(Upload, Upload.id == UploadPart.upload_id)
            part_ids = (await session.scalars(theirs.where(Upload.user_id == user_id))).all()
        yield
        await self.folder.remove(*map(self.folder.content, file_ids), *map(self.folder.part, part_ids))

    async def sweep(self, *, at_start: bool = False) -> int:
        """Delete what has expired, and contents without a row: of users who were removed, and what a kill left behind.

        Not those that another moment of the database may know: they are put aside. Returns how many contents were deleted.
        `at_start`: nothing arrives yet, so nothing is spared for being young.
        """
        now = clock.now()
        async with self.database.write() as session:
            await session.execute(delete(File).where(File.expires_at <= now))
            dead = select(Upload.id).where((Upload.status != "pending") | (Upload.expires_at <= now))
            await session.execute(delete(UploadPart).where(UploadPart.upload_id.in_(dead)))
            await session.execute(delete(Upload).where(Upload.expires_at <= now - UPLOADS_KEPT_S))
        if not self.folder.path.is_dir():
            self.home_is_ours = True
            return 0
        async with self.database.read() as session:
            known = await Known.read(session)
        if at_start:  # of a restore that was killed, or of a database that was put back by hand
            await asyncio.to_thread(take_back, self.folder.path.parent, known)
        is_first, self.home_is_ours = not self.home_is_ours, False
        if not await asyncio.to_thread(self.folder.is_ours, known.names[FILES]):
            log.warning(
                "the contents in %s go with another database: those without a row here are left alone", self.folder.path
            )
            return 0
        age = 0.0 if at_start else SETTLED_AFTER_S
        noted = await asyncio.to_thread(Moment.noted_in, self.folder.path)
        await self._put_aside(known, noted, is_first=is_first, until=math.inf if at_start else time.time() - age)
        n_removed = await asyncio.to_thread(self.folder.sweep, known.names[FILES], known.names[f"{FILES}/{PARTS}"], age)
        if is_first or noted is None or await asyncio.to_thread(self.folder.has_news_since, noted.at - MARGIN_S):
            await asyncio.to_thread((await draw_anew(self.database)).note, self.folder.path)
        self.home_is_ours = True
        return n_removed

    async def _put_aside(self, known: Known, noted: Moment | None, *, is_first: bool, until: float) -> None:
        """Put aside what this database does not know, and another moment of it may. Raises StorageError."""
        if noted is None and not is_first:
            return  # the folder is younger than this server
        if noted is None or noted.mark != await mark_of(self.database):
            since = -math.inf  # another moment, or nobody knows
        elif is_first and self.database.is_sqlite:
            # A copy of after that moment, and before these came, has the same mark. Jobs of users who are not there are much
            # more likely those of users who were removed.
            since, known = noted.at - MARGIN_S, known.but(JOBS)
        else:
            return
        home = self.folder.path.parent
        aside = replaced_folder(home)
        owner = shown(self.database.url)
        n_aside = await asyncio.to_thread(put_aside, home, owner, known, aside, since=since, until=until)
        if n_aside:
            log.warning(
                "the database %s is not at the moment at which it was left: %d contents that it has no rows of lie in %s now,"
                " and come back with a database that has them. Delete them when nobody needs them",
                owner,
                n_aside,
                aside,
            )

    async def _place(self, actor: Actor, incoming: Incoming, about: Description) -> File:
        """Give the content its name. Returns the row, which is not in the database yet."""
        await incoming.finish()
        file = rows.new_file(actor, about, incoming.size_bytes, incoming.sha256)
        await self.folder.take(incoming, self.folder.content(file.id))
        return file


def missing_content(file_id: str) -> ContentMissingError:
    """The sentence for it."""
    return ContentMissingError(
        "The content of {name} is not on this server: its database came here, or was restored, without it. Delete the file and"
        " send it again.",
        name=file_id,
    )
