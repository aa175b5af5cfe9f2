"""`/v1/uploads`: large files in parts, each of which can be sent again when the line breaks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Request
from openai.types import Upload as UploadObject
from openai.types.uploads import UploadPart as PartObject
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from chatwright.server.form import read_form
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.files import FileInfo, Owner, announced_bytes, file_info
from chatwright.server.state import NeedFiles, NeedUploads
from chatwright.store.files.describe import Description
from chatwright.store.files.uploads import MOST_PARTS, PART_BYTES, status_of
from chatwright.store.tables import File, Upload

router = APIRouter(route_class=JsonRoute, tags=["uploads"])
parts_router = APIRouter(tags=["uploads"])  # its body is a form

PartId = Annotated[str, StringConstraints(max_length=64)]


class ExpiresAfter(BaseModel):
    """When a file is deleted by itself."""

    model_config = ConfigDict(strict=True)

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class CreateUploadBody(BaseModel):
    """What will come. `bytes`: exactly so many."""

    model_config = ConfigDict(strict=True)

    filename: Annotated[str, StringConstraints(max_length=1000)]
    purpose: Annotated[str, StringConstraints(max_length=64)]
    bytes: Annotated[int, Field(ge=1, lt=2**53)]
    mime_type: Annotated[str, StringConstraints(pattern=r"^[!-~ ]{1,255}$")]
    expires_after: ExpiresAfter | None = None


class CompleteUploadBody(BaseModel):
    """`md5`: of the whole file, in hexadecimal."""

    model_config = ConfigDict(strict=True)

    part_ids: Annotated[list[PartId], Field(fail_fast=True, min_length=1, max_length=MOST_PARTS)]
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$")] | None = None


class UploadInfo(UploadObject):
    """OpenAI's object. `file`: what a completed one became."""

    file: FileInfo | None = None


PART_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "title": "AddUploadPartForm",
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.post("/uploads")
async def create_upload(body: CreateUploadBody, actor: Owner, uploads: NeedUploads) -> UploadInfo:
    """Announce a file that comes in parts. It expires within the hour."""
    lives_s = body.expires_after.seconds if body.expires_after else None
    about = Description.of_upload(body.purpose, body.filename, lives_s)
    return upload_info(await uploads.begin(actor, about, body.bytes, body.mime_type))


@parts_router.post("/uploads/{upload_id}/parts", openapi_extra=PART_FORM)
async def add_upload_part(
    upload_id: str, request: Request, actor: Owner, files: NeedFiles, uploads: NeedUploads
) -> PartObject:
    """Add a part, of at most 64 MiB."""
    await uploads.check_pending(actor, upload_id)
    async with files.receive(actor, announced_bytes=announced_bytes(request), limit_bytes=PART_BYTES) as incoming:
        await read_form(request, "data", incoming.write)
        part = await uploads.keep_part(actor, upload_id, incoming)
    return PartObject(id=part.id, object="upload.part", created_at=part.created_at, upload_id=part.upload_id)


@router.post("/uploads/{upload_id}/complete")
async def complete_upload(upload_id: str, body: CompleteUploadBody, actor: Owner, uploads: NeedUploads) -> UploadInfo:
    """Make the file, of these parts in this order."""
    return upload_info(*await uploads.complete(actor, upload_id, body.part_ids, body.md5))


@parts_router.post("/uploads/{upload_id}/cancel")
async def cancel_upload(upload_id: str, actor: Owner, uploads: NeedUploads) -> UploadInfo:
    """Give an upload up; its parts are deleted."""
    return upload_info(await uploads.cancel(actor, upload_id))


def upload_info(upload: Upload, file: File | None = None) -> UploadInfo:
    """An upload as the wire shows it."""
    return UploadInfo(
        id=upload.id,
        object="upload",
        bytes=upload.size_bytes,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        filename=upload.filename,
        purpose=upload.purpose,
        status=cast(Any, status_of(upload)),
        file=file_info(file) if file is not None else None,
    )
