"""`/v1/files`: sent, listed, read, deleted. A file goes from the socket to the disk; no memory holds it whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from openai.types import FileDeleted, FileObject
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from chatwright.errors import InvalidRequestError, StorageError
from chatwright.server.form import FORM_BYTES, Form, read_form
from chatwright.server.permission import Permit
from chatwright.server.state import NeedFiles
from chatwright.store.actor import Actor
from chatwright.store.files import rows
from chatwright.store.files.describe import Description
from chatwright.store.files.service import missing_content
from chatwright.store.policy import Action
from chatwright.store.tables import File

router = APIRouter(tags=["files"])
Owner = Annotated[Actor, Depends(Permit(Action.USE_FILES))]
Cursor = Annotated[str, Query(max_length=64)]

PIECE_BYTES = 256 * 1024


class FileInfo(FileObject):
    """OpenAI's object; its own client does not list a purpose that its own service knows."""

    purpose: Literal[  # type: ignore[assignment]
        "assistants",
        "assistants_output",
        "batch",
        "batch_output",
        "evals",
        "fine-tune",
        "fine-tune-results",
        "user_data",
        "vision",
    ]


class FileList(BaseModel):
    """A page of files. `has_more`: ask again, with `after` the last id."""

    object: Literal["list"] = "list"
    data: list[FileInfo]
    first_id: str | None
    last_id: str | None
    has_more: bool


# Read as it arrives, so FastAPI does not know of it.
FILE_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "title": "CreateFileForm",
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {
                            "type": "string",
                            "enum": ["assistants", "batch", "evals", "fine-tune", "user_data"],
                        },
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
                    },
                }
            }
        },
    }
}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The content, byte by byte.", "content": {"application/octet-stream": {}}}
}


@router.post("/files", openapi_extra=FILE_FORM)
async def create_file(request: Request, actor: Owner, files: NeedFiles) -> FileInfo:
    """Send a file."""
    async with files.receive(actor, announced_bytes=announced_bytes(request)) as incoming:
        form = await read_form(request, "file", incoming.write)
        about = Description.of_upload(form.fields.get("purpose"), form.filename, _life_s(form))
        return file_info(await files.keep(actor, incoming, about))


@router.get("/files")
async def list_files(
    actor: Owner,
    files: NeedFiles,
    purpose: Annotated[str, Query(pattern="^[a-z_-]{1,32}$")] | None = None,
    limit: Annotated[int, Query(ge=1, le=rows.LONGEST_LIST)] = rows.LONGEST_LIST,
    after: Cursor | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> FileList:
    """One's files, the newest first."""
    async with files.database.read() as session:
        page = await rows.list_files(
            session, actor, purpose=purpose, limit=limit, after=after, oldest_first=order == "asc"
        )
    data = [file_info(file) for file in page.files]
    return FileList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.has_more,
    )


@router.get("/files/{file_id}")
async def retrieve_file(file_id: str, actor: Owner, files: NeedFiles) -> FileInfo:
    """One file. 404 for those of others."""
    return file_info(await files.get(actor, file_id))


@router.delete("/files/{file_id}")
async def delete_file(file_id: str, actor: Owner, files: NeedFiles) -> FileDeleted:
    """Delete a file for good."""
    await files.delete(actor, file_id)
    return FileDeleted(id=file_id, object="file", deleted=True)


@router.get("/files/{file_id}/content", response_class=Response, responses=CONTENT)
async def retrieve_content(file_id: str, actor: Owner, files: NeedFiles) -> Response:
    """The content of a file, whatever it is: to be saved, never to be shown by a browser."""
    file, path = await files.content(actor, file_id)
    try:
        return Download(file, await asyncio.to_thread(path.open, "rb"))
    except FileNotFoundError as error:
        raise missing_content(file.id) from error
    except OSError as error:
        raise StorageError(
            "The file {path} cannot be written or read ({reason}).", path=path, reason=error.strerror or error
        ) from error


class Download(StreamingResponse):
    """An open file, so that deleting it meanwhile takes nothing from who reads it; closed in every case."""

    def __init__(self, file: File, content: BinaryIO) -> None:
        self._content = content
        super().__init__(
            self._pieces(),
            media_type="application/octet-stream",
            headers={
                "Content-Length": str(file.size_bytes),
                # The plain name is for clients that cannot read the other one.
                "Content-Disposition": f"attachment; filename=\"{file.id}\"; filename*=UTF-8''{quote(file.filename, safe='')}",
                "Cache-Control": "private, no-store",
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._content.close()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        while piece := await asyncio.to_thread(self._content.read, PIECE_BYTES):
            yield piece


def announced_bytes(request: Request) -> int:
    """How large a file is at least, as far as the client said."""
    announced = request.headers.get("content-length", "")
    return max(0, int(announced) - FORM_BYTES) if announced.isdigit() else 0


def file_info(file: File) -> FileInfo:
    """A file as the wire shows it."""
    return FileInfo.model_validate(
        {
            "id": file.id,
            "object": "file",
            "bytes": file.size_bytes,
            "created_at": file.created_at,
            "expires_at": file.expires_at,
            "filename": file.filename,
            "purpose": file.purpose,
            "status": file.status,
            "status_details": file.status_details,
        }
    )


def _life_s(form: Form) -> int | None:
    """`expires_after[anchor]` and `expires_after[seconds]`. Raises InvalidRequestError."""
    anchor, seconds = form.fields.get("expires_after[anchor]"), form.fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at" or seconds is None or not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10):
        raise InvalidRequestError(
            "expires_after has an anchor, which is created_at, and whole seconds.",
            param="expires_after",
            code="invalid_value",
        )
    return int(seconds)
