"""The rows of files: added, found, listed, deleted. What has expired is not there, also before it is swept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import NotFoundError, TooLargeError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.database import one_at_a_time
from chatwright.store.files.describe import Description
from chatwright.store.ids import is_id, new_id
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import File, Upload, UploadPart

# A row and a directory entry are cheap; a million of them are not.
MOST_FILES = 50_000
LONGEST_LIST = 10_000


@dataclass(frozen=True)
class FilePage:
    """`has_more`: there are more behind the last one."""

    files: Sequence[File]
    has_more: bool


def new_file(actor: Actor, about: Description, size_bytes: int, sha256: str) -> File:
    """A row that is not in the database yet; its id says where the content has to lie before it is."""
    now = clock.now()
    return File(
        id=new_id("file"),
        user_id=actor.user_id,
        purpose=about.purpose,
        filename=about.filename,
        size_bytes=size_bytes,
        sha256=sha256,
        status="processed",
        status_details=None,
        created_at=now,
        expires_at=None if about.lives_s is None else now + about.lives_s,
    )


async def add_file(session: AsyncSession, actor: Actor, file: File, quota_bytes: int | None) -> None:
    """Add it, its content being there. `quota_bytes`: of all of its owner's files; None: it is no upload, and counts only.

    Raises TooLargeError.
    """
    authorize(actor, Action.USE_FILES, Resource(file.user_id))
    await one_at_a_time(session, f"files of {file.user_id}")
    if quota_bytes is not None:
        await check_quota(session, actor, file.size_bytes, quota_bytes)
        n_files = await session.scalar(select(func.count()).select_from(File).where(File.user_id == file.user_id)) or 0
        if n_files >= MOST_FILES:
            raise TooLargeError(
                "There can be {n} files at most: delete some first.", n=MOST_FILES, param=None, code="too_many_files"
            )
    session.add(file)
    await session.flush()


async def get_file(session: AsyncSession, actor: Actor, file_id: str) -> File:
    """One file. Raises NotFoundError, also for those of others and for expired ones."""
    authorize(actor, Action.USE_FILES)
    file = await session.get(File, file_id) if is_id(file_id) else None
    if file is None or (file.expires_at is not None and file.expires_at <= clock.now()):
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_FILES, Resource(file.user_id))
    return file


async def list_files(
    session: AsyncSession,
    actor: Actor,
    *,
    purpose: str | None = None,
    limit: int = LONGEST_LIST,
    after: str | None = None,
    oldest_first: bool = False,
) -> FilePage:
    """One's own files. `after`: those that come behind that one. Raises NotFoundError for an `after` that is not there."""
    authorize(actor, Action.USE_FILES, Resource(actor.user_id))
    query = select(File).where(File.user_id == actor.user_id, not_expired(clock.now()))
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    place: Any = tuple_(File.created_at, File.id)
    if after is not None:
        last = await get_file(session, actor, after)
        here = tuple_(last.created_at, last.id)
        query = query.where(place > here if oldest_first else place < here)
    order = (File.created_at, File.id) if oldest_first else (File.created_at.desc(), File.id.desc())
    rows = (await session.scalars(query.order_by(*order).limit(limit + 1))).all()
    return FilePage(rows[:limit], len(rows) > limit)


async def delete_file(session: AsyncSession, actor: Actor, file_id: str) -> File:
    """Delete the row; the content is deleted when that is committed. Raises NotFoundError."""
    file = await get_file(session, actor, file_id)
    await session.delete(file)
    await session.flush()
    return file


async def stored_bytes(session: AsyncSession, actor: Actor) -> int:
    """How much the actor's files, and the parts of uploads that are not finished, take."""
    authorize(actor, Action.USE_FILES, Resource(actor.user_id))
    files = select(func.sum(File.size_bytes)).where(File.user_id == actor.user_id)
    parts = (
        select(func.sum(UploadPart.size_bytes))
        .join(Upload, Upload.id == UploadPart.upload_id)
        .where(Upload.user_id == actor.user_id)
    )
    return int(await session.scalar(files) or 0) + int(await session.scalar(parts) or 0)


async def check_quota(session: AsyncSession, actor: Actor, more_bytes: int, quota_bytes: int) -> int:
    """How much is stored. Raises TooLargeError unless there is room for more. `quota_bytes`: 0 for no limit."""
    stored = await stored_bytes(session, actor)
    if quota_bytes and stored + more_bytes > quota_bytes:
        raise over_quota(quota_bytes)
    return stored


def over_quota(quota_bytes: int) -> TooLargeError:
    """The sentence for it."""
    return TooLargeError(
        "All your files together can take {size} MiB at most: delete some first.",
        size=f"{quota_bytes / 2**20:g}",
        param="file",
        code="storage_quota_exceeded",
    )


def not_expired(now: int) -> ColumnElement[bool]:
    """A file that is still there."""
    return or_(File.expires_at.is_(None), File.expires_at > now)
