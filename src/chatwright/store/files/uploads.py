"""Uploads: files that come in parts, each sent on its own, put together in the order that the client names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError, TooLargeError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.database import one_at_a_time
from chatwright.store.files import rows
from chatwright.store.files.describe import Description, check_is_text
from chatwright.store.files.folder import CHUNK_BYTES, START_BYTES, Incoming, explained
from chatwright.store.files.service import Files
from chatwright.store.ids import is_id, new_id
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import File, Upload, UploadPart

LIFE_S = 3600
PART_BYTES = 64 * 2**20
MOST_PARTS = 10_000
MOST_PENDING = 100


class Uploads:
    """One per process, over its files. Methods raise StoreError and its kin besides what they name."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._database = files.database
        self._completing: set[str] = set()

    async def begin(self, actor: Actor, about: Description, size_bytes: int, mime_type: str) -> Upload:
        """An upload to add parts to. Raises TooLargeError."""
        authorize(actor, Action.USE_FILES, Resource(actor.user_id))
        if size_bytes > self._files.upload_limit_bytes:
            raise TooLargeError(
                "The file is larger than {size} MiB, the limit of this server.",
                size=f"{self._files.upload_limit_bytes / 2**20:g}",
                param="bytes",
                code="file_too_large",
            )
        now = clock.now()
        upload = Upload(
            id=new_id("upload"),
            user_id=actor.user_id,
            purpose=about.purpose,
            filename=about.filename,
            size_bytes=size_bytes,
            mime_type=mime_type,
            status="pending",
            file_expires_after_s=about.lives_s,
            file_id=None,
            created_at=now,
            expires_at=now + LIFE_S,
        )
        async with self._database.write() as session:
            await one_at_a_time(session, f"files of {actor.user_id}")
            await rows.check_quota(session, actor, size_bytes, self._files.quota_bytes)
            pending = select(func.count()).select_from(Upload)
            pending = pending.where(
                Upload.user_id == actor.user_id, Upload.status == "pending", Upload.expires_at > now
            )
            if (await session.scalar(pending) or 0) >= MOST_PENDING:
                raise TooLargeError(
                    "There can be {n} unfinished uploads at most: complete or cancel some first.",
                    n=MOST_PENDING,
                    param=None,
                    code="too_many_uploads",
                )
            session.add(upload)
        return upload

    async def check_pending(self, actor: Actor, upload_id: str) -> None:
        """Raise NotFoundError or InvalidRequestError unless parts may be added."""
        async with self._database.read() as session:
            await _pending(session, actor, upload_id)

    async def keep_part(self, actor: Actor, upload_id: str, incoming: Incoming) -> UploadPart:
        """Make what arrived a part. Raises NotFoundError, InvalidRequestError, TooLargeError."""
        await incoming.finish()
        part = UploadPart(
            id=new_id("part"), upload_id=upload_id, size_bytes=incoming.size_bytes, created_at=clock.now()
        )
        place = self._files.folder.part(part.id)
        await self._files.folder.take(incoming, place)
        try:
            async with self._database.write() as session:
                await one_at_a_time(session, f"files of {actor.user_id}")
                await _pending(session, actor, upload_id)
                await rows.check_quota(session, actor, part.size_bytes, self._files.quota_bytes)
                n_parts = select(func.count()).select_from(UploadPart).where(UploadPart.upload_id == upload_id)
                if (await session.scalar(n_parts) or 0) >= MOST_PARTS:
                    raise TooLargeError(
                        "An upload has {n} parts at most.", n=MOST_PARTS, param=None, code="too_many_parts"
                    )
                session.add(part)
        except (InvalidRequestError, NotFoundError):
            await self._files.folder.remove(place)
            raise
        except IntegrityError as error:  # the user was removed while the part arrived
            await self._files.folder.remove(place)
            raise NotFoundError("There is nothing of that id.") from error
        return part

    async def complete(
        self, actor: Actor, upload_id: str, part_ids: Sequence[str], md5: str | None
    ) -> tuple[Upload, File]:
        """Put the parts together, in this order: (upload, file). Asked again, the same answer.

        Raises NotFoundError; InvalidRequestError where parts are missing, foreign or named twice, or size or checksum are others
        than announced: nothing has changed then.
        """
        async with self._database.read() as session:
            upload = await _find(session, actor, upload_id)
            if upload.status == "completed":
                # The client did not hear the first answer, and its library asks again.
                return upload, await rows.get_file(session, actor, upload.file_id or "")
            upload = await _pending(session, actor, upload_id)
            found = await session.scalars(select(UploadPart).where(UploadPart.upload_id == upload.id))
            parts = {part.id: part for part in found}
        _check_parts(upload, parts, part_ids)
        if upload.id in self._completing:
            raise InvalidRequestError("The upload is being completed already.", code="upload_in_use")
        self._completing.add(upload.id)
        try:
            async with self._files.folder.incoming(upload.size_bytes, upload.size_bytes) as incoming:
                for part_id in part_ids:
                    await self._append(incoming, part_id)
                await incoming.finish()
                if md5 is not None and incoming.md5 != md5.lower():
                    raise InvalidRequestError(
                        "The MD5 of the parts together is {found}, not {md5} as was announced.",
                        found=incoming.md5,
                        md5=md5.lower()[:64],
                        param="md5",
                        code="checksum_mismatch",
                    )
                upload, file = await self._make_file(actor, upload, incoming)
        finally:
            self._completing.discard(upload.id)
        await self._files.folder.remove(*(self._files.folder.part(part_id) for part_id in parts))
        return upload, file

    async def cancel(self, actor: Actor, upload_id: str) -> Upload:
        """Give it up. Raises NotFoundError, InvalidRequestError for one that is not pending."""
        async with self._database.write() as session:
            await one_at_a_time(session, f"files of {actor.user_id}")
            upload = await _pending(session, actor, upload_id)
            upload.status = "cancelled"
            part_ids = list(await session.scalars(select(UploadPart.id).where(UploadPart.upload_id == upload.id)))
            await session.execute(delete(UploadPart).where(UploadPart.upload_id == upload.id))
        await self._files.folder.remove(*(self._files.folder.part(part_id) for part_id in part_ids))
        return upload

    async def _append(self, incoming: Incoming, part_id: str) -> None:
        path = self._files.folder.part(part_id)
        with explained(path), await asyncio.to_thread(path.open, "rb") as stream:
            while chunk := await asyncio.to_thread(stream.read, CHUNK_BYTES):
                await incoming.write(chunk)

    async def _make_file(self, actor: Actor, upload: Upload, incoming: Incoming) -> tuple[Upload, File]:
        about = Description(upload.purpose, upload.filename, upload.file_expires_after_s)
        check_is_text(incoming.start, about.purpose, is_whole=incoming.size_bytes <= START_BYTES)
        file = rows.new_file(actor, about, incoming.size_bytes, incoming.sha256)
        place = self._files.folder.content(file.id)
        await self._files.folder.take(incoming, place)
        try:
            async with self._database.write() as session:
                await one_at_a_time(session, f"files of {actor.user_id}")
                # Looked at again: it may have been cancelled, or the user removed, while the parts were put together.
                upload = await _pending(session, actor, upload.id)
                await session.execute(delete(UploadPart).where(UploadPart.upload_id == upload.id))
                await rows.add_file(session, actor, file, self._files.quota_bytes)
                upload.status, upload.file_id = "completed", file.id
        except (InvalidRequestError, NotFoundError):
            await self._files.folder.remove(place)
            raise
        return upload, file


def status_of(upload: Upload) -> str:
    """`pending`, `completed`, `cancelled` or `expired`, at this moment."""
    return "expired" if upload.status == "pending" and upload.expires_at <= clock.now() else upload.status


async def _find(session: AsyncSession, actor: Actor, upload_id: str) -> Upload:
    authorize(actor, Action.USE_FILES)
    upload = await session.get(Upload, upload_id) if is_id(upload_id) else None
    if upload is None:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_FILES, Resource(upload.user_id))
    return upload


async def _pending(session: AsyncSession, actor: Actor, upload_id: str) -> Upload:
    upload = await _find(session, actor, upload_id)
    if status_of(upload) != "pending":
        raise InvalidRequestError(
            "The upload is {status}: nothing can be done with it.", status=status_of(upload), code="upload_not_pending"
        )
    return upload


def _check_parts(upload: Upload, parts: dict[str, UploadPart], part_ids: Sequence[str]) -> None:
    unknown = [part_id for part_id in part_ids if part_id not in parts]
    if unknown or len(set(part_ids)) < len(part_ids):
        raise InvalidRequestError(
            "part_ids names each part of this upload once, in order.", param="part_ids", code="invalid_value"
        )
    size_bytes = sum(parts[part_id].size_bytes for part_id in part_ids)
    if size_bytes != upload.size_bytes:
        raise InvalidRequestError(
            "The parts together have {n} bytes, and the upload was announced with {announced}.",
            n=size_bytes,
            announced=upload.size_bytes,
            param="part_ids",
            code="size_mismatch",
        )
