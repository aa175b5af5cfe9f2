"""`/v1/batches`: many requests in a file, answered when there is time for them, and never at the cost of a conversation."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal, cast

import orjson
from fastapi import APIRouter, Depends, Query
from openai.types import Batch as BatchObject
from openai.types import BatchError, BatchRequestCounts
from openai.types.batch import Errors
from openai.types.batch_usage import BatchUsage, InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel, ConfigDict, StringConstraints

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.server.batches.lines import MOST_BYTES
from chatwright.server.batches.runner import BatchRunner
from chatwright.server.errors import no_such_file
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.metadata import Metadata
from chatwright.server.openai.uploads import ExpiresAfter
from chatwright.server.permission import Permit
from chatwright.server.state import NeedFiles, need_batches
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.batches import WINDOW_S, add_batch, cancel_batch, get_batch, list_batches, metadata_of
from chatwright.store.ids import new_id
from chatwright.store.policy import Action, authorize
from chatwright.store.tables import Batch

router = APIRouter(route_class=JsonRoute, tags=["batches"])
bodiless_router = APIRouter(tags=["batches"])
Owner = Annotated[Actor, Depends(Permit(Action.USE_BATCHES))]
NeedBatches = Annotated[BatchRunner, Depends(need_batches)]


class CreateBatchBody(BaseModel):
    """Which file, and which route answers its lines."""

    model_config = ConfigDict(strict=True)

    input_file_id: Annotated[str, StringConstraints(max_length=64)]
    endpoint: Annotated[str, StringConstraints(max_length=64)]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchList(BaseModel):
    """A page of batches. `has_more`: ask again, with `after` the last id."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


@router.post("/batches")
async def create_batch(body: CreateBatchBody, actor: Owner, files: NeedFiles, batches: NeedBatches) -> BatchObject:
    """Have the requests of a file answered."""
    authorize(actor, Action.GENERATE)
    if body.endpoint not in batches.endpoints:
        raise InvalidRequestError(
            "A batch cannot ask for {endpoint}. It can for: {endpoints}.",
            endpoint=body.endpoint,
            endpoints=", ".join(batches.endpoints),
            param="endpoint",
            code="invalid_value",
        )
    try:
        file, content = await files.content(actor, body.input_file_id)
    except NotFoundError:
        raise no_such_file("input_file_id") from None
    if file.purpose != "batch":
        raise InvalidRequestError(
            "The file {name} was not uploaded for a batch: its purpose is {purpose}.",
            name=file.id,
            purpose=file.purpose,
            param="input_file_id",
            code="invalid_value",
        )
    if file.size_bytes > MOST_BYTES:
        raise InvalidRequestError(
            "The file of a batch has {size} MiB at most.",
            size=MOST_BYTES // 2**20,
            param="input_file_id",
            code="file_too_large",
        )
    now = clock.now()
    batch = Batch(
        id=new_id("batch"),
        user_id=actor.user_id,
        endpoint=body.endpoint,
        input_file_id=file.id,
        output_lives_s=body.output_expires_after.seconds if body.output_expires_after else None,
        user_metadata=orjson.dumps(body.metadata).decode() if body.metadata is not None else None,
        status="validating",
        n_total=0,
        n_completed=0,
        n_failed=0,
        input_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        created_at=now,
        expires_at=now + WINDOW_S,
    )
    # The folder before the row: a row without one could not be worked on.
    folder = batches.folder(batch.id)
    await asyncio.to_thread(folder.create, content)
    try:
        async with files.database.write() as session:
            await add_batch(session, actor, batch)
    except InvalidRequestError:
        await asyncio.to_thread(folder.remove)
        raise
    batches.wake()
    return batch_object(batch)


@router.get("/batches")
async def list_all_batches(
    actor: Owner,
    files: NeedFiles,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str, Query(max_length=64)] | None = None,
) -> BatchList:
    """One's batches, the newest first."""
    async with files.database.read() as session:
        page = await list_batches(session, actor, limit, after)
    data = [batch_object(batch) for batch in page.batches]
    return BatchList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.has_more,
    )


@router.get("/batches/{batch_id}")
async def retrieve_batch(batch_id: str, actor: Owner, files: NeedFiles) -> BatchObject:
    """One batch. 404 for those of others."""
    async with files.database.read() as session:
        return batch_object(await get_batch(session, actor, batch_id))


@bodiless_router.post("/batches/{batch_id}/cancel")
async def cancel(batch_id: str, actor: Owner, files: NeedFiles, batches: NeedBatches) -> BatchObject:
    """End a batch; what was answered is kept."""
    async with files.database.write() as session:
        batch = batch_object(await cancel_batch(session, actor, batch_id))
    batches.wake()
    return batch


def batch_object(batch: Batch) -> BatchObject:
    """A batch as the wire shows it."""
    errors = None
    if batch.errors is not None:
        errors = Errors(object="list", data=[BatchError(**mistake) for mistake in orjson.loads(batch.errors)])
    usage = BatchUsage(
        input_tokens=batch.input_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=batch.cached_tokens),
        output_tokens=batch.output_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=batch.input_tokens + batch.output_tokens,
    )
    return BatchObject(
        id=batch.id,
        object="batch",
        endpoint=batch.endpoint,
        model=batch.model,
        errors=errors,
        input_file_id=batch.input_file_id,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        completion_window="24h",
        status=cast(Any, batch.status),
        created_at=batch.created_at,
        in_progress_at=batch.in_progress_at,
        expires_at=batch.expires_at,
        finalizing_at=batch.finalizing_at,
        completed_at=batch.completed_at,
        failed_at=batch.failed_at,
        expired_at=batch.expired_at,
        cancelling_at=batch.cancelling_at,
        cancelled_at=batch.cancelled_at,
        request_counts=BatchRequestCounts(total=batch.n_total, completed=batch.n_completed, failed=batch.n_failed),
        usage=usage,
        metadata=metadata_of(batch),
    )
