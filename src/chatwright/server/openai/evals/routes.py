"""`/v1/evals`, their runs, and the items of those."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.server.address import own_address
from chatwright.server.errors import no_such_file
from chatwright.server.evals.criteria import Criterion, named
from chatwright.server.evals.items import Collected, add_completions, add_lines, add_rows
from chatwright.server.evals.kept_responses import add_responses
from chatwright.server.evals.runner import EvalRunner
from chatwright.server.evals.sampling import Sampler
from chatwright.server.evals.sources import FileContentBody, FileIdBody, StoredResponsesBody
from chatwright.server.evals.work import encoder_of, no_encoder
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.evals import wire
from chatwright.server.openai.evals.requests import CreateEvalBody, CreateRunBody, UpdateEvalBody
from chatwright.server.openai.lists import After, Limit, Order, json_response, page
from chatwright.server.permission import Permit
from chatwright.server.state import NeedDatabase, NeedFiles, ServerState, State, need_evals
from chatwright.store.actor import Actor
from chatwright.store.evals import definitions, runs
from chatwright.store.evals.runs import NewItem, NewRun
from chatwright.store.files import Files
from chatwright.store.files.folder import explained
from chatwright.store.kept import check_room, size_of
from chatwright.store.policy import Action, authorize
from chatwright.store.tables import Eval, EvalRun

router = APIRouter(route_class=JsonRoute, tags=["evals"])
# A POST without a body.
bare_router = APIRouter(tags=["evals"])
Owner = Annotated[Actor, Depends(Permit(Action.USE_EVALS))]
NeedEvals = Annotated[EvalRunner, Depends(need_evals)]
RunStatus = Literal["queued", "in_progress", "completed", "canceled", "failed"]


def _answers(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}}


@router.post("/evals", status_code=201, response_model=None, responses={201: {"model": wire.DescribedEval}})
async def create_eval(body: CreateEvalBody, actor: Owner, state: State, database: NeedDatabase) -> Response:
    """Say what answers shall be measured by."""
    criteria = named(body.testing_criteria)
    _check_encoder(criteria, state)
    config, kept = body.data_source_config.model_dump_json(), orjson.dumps(criteria).decode()
    async with database.write() as session:
        await check_room(session, actor, Eval, size_of(config, kept), state.settings.kept_quota)
        row = await definitions.add_eval(session, actor, body.name, config, kept, body.metadata)
    return _created(wire.eval_object(row))


@router.get("/evals", response_model=None, responses=_answers(wire.EvalPage))
async def list_evals(
    actor: Owner,
    database: NeedDatabase,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
    order_by: Literal["created_at", "updated_at"] = "created_at",
) -> Response:
    """One's own."""
    async with database.read() as session:
        found = await definitions.list_evals(
            session,
            actor,
            limit=limit,
            after=after,
            newest_first=order == "desc",
            by_change=order_by == "updated_at",
        )
    return json_response(page([wire.eval_object(row) for row in found.evals], found.has_more))


@router.get("/evals/{eval_id}", response_model=None, responses=_answers(wire.DescribedEval))
async def retrieve_eval(eval_id: str, actor: Owner, database: NeedDatabase) -> Response:
    """One of them. 404 for those of others."""
    async with database.read() as session:
        return json_response(wire.eval_object(await definitions.get_eval(session, actor, eval_id)))


@router.post("/evals/{eval_id}", response_model=None, responses=_answers(wire.DescribedEval))
async def update_eval(eval_id: str, body: UpdateEvalBody, actor: Owner, database: NeedDatabase) -> Response:
    """Change its name, its metadata, and nothing else: runs stay comparable."""
    async with database.write() as session:
        row = await definitions.get_eval(session, actor, eval_id)
        if body.name is not None:
            row = await definitions.rename_eval(session, actor, eval_id, body.name)
        if "metadata" in body.model_fields_set:
            row = await definitions.label_eval(session, actor, eval_id, body.metadata)
    return json_response(wire.eval_object(row))


@router.delete("/evals/{eval_id}")
async def delete_eval(eval_id: str, actor: Owner, database: NeedDatabase, evals: NeedEvals) -> wire.DeletedEval:
    """Delete it with its runs, also those that are under way."""
    async with database.write() as session:
        await definitions.delete_eval(session, actor, eval_id)
    evals.wake()
    return wire.DeletedEval(eval_id=eval_id)


@router.post(
    "/evals/{eval_id}/runs", status_code=201, response_model=None, responses={201: {"model": wire.DescribedRun}}
)
async def create_run(
    eval_id: str, body: CreateRunBody, actor: Owner, state: State, files: NeedFiles, evals: NeedEvals
) -> Response:
    """Measure: begin in the background."""
    async with files.database.read() as session:
        its_eval = await definitions.get_eval(session, actor, eval_id)
    source = body.data_source.model_dump(exclude_none=True)
    sampler = Sampler.of(source)
    if sampler is not None:
        authorize(actor, Action.GENERATE)
        sampler.check()
        state.check_open()
        await state.model_called(sampler.model, actor)
    items = await _items(body, its_eval, actor, files)
    _check_criteria(its_eval, items, state, has_sampler=sampler is not None)
    if isinstance(body.data_source.source, FileContentBody):
        source["source"]["content"] = []  # they are rows
    model = sampler.model if sampler is not None else None
    new = NewRun(body.name, orjson.dumps(source).decode(), model, body.metadata, evals.server)
    size = sum(size_of(item.content, item.given) for item in items)
    async with files.database.write() as session:
        await check_room(session, actor, EvalRun, size, state.settings.kept_quota)
        run = await runs.add_run(session, actor, eval_id, new, items)
    evals.wake()
    return _created(_run_object(run, its_eval, state, items))


@router.get("/evals/{eval_id}/runs", response_model=None, responses=_answers(wire.RunPage))
async def list_runs(
    eval_id: str,
    actor: Owner,
    state: State,
    database: NeedDatabase,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
    status: RunStatus | None = None,
) -> Response:
    """Its runs. The rows of `file_content` are left out; a single run has them."""
    async with database.read() as session:
        its_eval = await definitions.get_eval(session, actor, eval_id)
        found = await runs.list_runs(
            session, actor, eval_id, limit=limit, after=after, newest_first=order == "desc", status=status
        )
    return json_response(page([_run_object(run, its_eval, state, None) for run in found.runs], found.has_more))


@router.get("/evals/{eval_id}/runs/{run_id}", response_model=None, responses=_answers(wire.DescribedRun))
async def retrieve_run(eval_id: str, run_id: str, actor: Owner, state: State, database: NeedDatabase) -> Response:
    """One of them, as far as it is."""
    async with database.read() as session:
        run = await runs.get_run(session, actor, eval_id, run_id)
        values = await _whole(session, run, actor, state)
    return await asyncio.to_thread(json_response, values)


# The newest clients say /cancel, those before it did not.
@bare_router.post("/evals/{eval_id}/runs/{run_id}/cancel", response_model=None, responses=_answers(wire.DescribedRun))
@bare_router.post("/evals/{eval_id}/runs/{run_id}", response_model=None, responses=_answers(wire.DescribedRun))
async def cancel_run(
    eval_id: str, run_id: str, actor: Owner, state: State, database: NeedDatabase, evals: NeedEvals
) -> Response:
    """End one that is under way; what it found is kept."""
    async with database.write() as session:
        run = await runs.cancel_run(session, actor, eval_id, run_id)
    evals.wake()
    async with database.read() as session:
        values = await _whole(session, run, actor, state)
    return await asyncio.to_thread(json_response, values)


@router.delete("/evals/{eval_id}/runs/{run_id}")
async def delete_run(
    eval_id: str, run_id: str, actor: Owner, database: NeedDatabase, evals: NeedEvals
) -> wire.DeletedRun:
    """Delete it with what it found, also while it is under way."""
    async with database.write() as session:
        await runs.delete_run(session, actor, eval_id, run_id)
    evals.wake()
    return wire.DeletedRun(run_id=run_id)


@router.get("/evals/{eval_id}/runs/{run_id}/output_items", response_model=None, responses=_answers(wire.OutputItemPage))
async def list_output_items(
    eval_id: str,
    run_id: str,
    actor: Owner,
    database: NeedDatabase,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
    status: Literal["pass", "fail", "error"] | None = None,
) -> Response:
    """What became of its items, in their order."""
    async with database.read() as session:
        run = await runs.get_run(session, actor, eval_id, run_id)
        found = await runs.list_items(
            session, actor, eval_id, run_id, limit=limit, after=after, newest_first=order == "desc", status=status
        )
    return json_response(page([wire.item_object(item, run) for item in found.items], found.has_more))


@router.get(
    "/evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}",
    response_model=None,
    responses=_answers(wire.DescribedOutputItem),
)
async def retrieve_output_item(
    eval_id: str, run_id: str, output_item_id: str, actor: Owner, database: NeedDatabase
) -> Response:
    """One of them."""
    async with database.read() as session:
        run = await runs.get_run(session, actor, eval_id, run_id)
        return json_response(
            wire.item_object(await runs.get_item(session, actor, eval_id, run_id, output_item_id), run)
        )


def _created(values: dict[str, Any]) -> Response:
    response = json_response(values)
    response.status_code = 201
    return response


async def _items(body: CreateRunBody, its_eval: Eval, actor: Actor, files: Files) -> list[NewItem]:
    """What is measured. Raises InvalidRequestError, NotFoundError, ForbiddenError."""
    config = orjson.loads(its_eval.source)
    collected = Collected(config.get("item_schema"))
    source = body.data_source.source
    if isinstance(source, FileContentBody):
        await asyncio.to_thread(add_rows, collected, source)
    elif isinstance(source, FileIdBody):
        try:
            file, path = await files.content(actor, source.id)
        except NotFoundError:
            raise no_such_file("data_source") from None
        if file.purpose != "evals":
            raise InvalidRequestError(
                "The file {name} was not uploaded for evals: its purpose is {purpose}.",
                name=file.id,
                purpose=file.purpose,
                param="data_source",
                code="invalid_value",
            )
        with explained(path):
            await asyncio.to_thread(add_lines, collected, path)
    elif isinstance(source, StoredResponsesBody):
        authorize(actor, Action.USE_RESPONSES)
        await add_responses(collected, files.database, actor, source, config)
    else:
        authorize(actor, Action.USE_RESPONSES)
        await add_completions(collected, files.database, actor, source, config)
    if not collected.items:
        raise InvalidRequestError("There are no items to measure.", param="data_source", code="no_items")
    return collected.items


def _check_criteria(its_eval: Eval, items: list[NewItem], state: ServerState, *, has_sampler: bool) -> None:
    """Raise InvalidRequestError where no item could be graded."""
    kept = orjson.loads(its_eval.criteria)
    _check_encoder(kept, state)
    wants_sample = [each["name"] for each in kept if Criterion.of(each).wants_sample]
    if wants_sample and not has_sampler and all(item.given is None for item in items):
        raise InvalidRequestError(
            "The criterion '{name}' names a sample, but no item has one and no model is to answer: use a data_source of the"
            " type completions or responses, or send samples with the items.",
            name=wants_sample[0],
            param="data_source",
            code="missing_sample",
        )


def _check_encoder(criteria: list[dict[str, Any]], state: ServerState) -> None:
    if encoder_of(state.models) is None and any(Criterion.of(each).wants_vectors for each in criteria):
        raise no_encoder()


async def _whole(session: AsyncSession, run: EvalRun, actor: Actor, state: ServerState) -> dict[str, Any]:
    """A run with the rows that came with its request."""
    its_eval = await definitions.get_eval(session, actor, run.eval_id)
    came_along = orjson.loads(run.source)["source"]["type"] == "file_content"
    items = await runs.given_items(session, run) if came_along else None
    return await asyncio.to_thread(_run_object, run, its_eval, state, items)  # they may be megabytes


def _run_object(run: EvalRun, its_eval: Eval, state: ServerState, items: list[NewItem] | None) -> dict[str, Any]:
    criteria = [each["id"] for each in orjson.loads(its_eval.criteria)]
    came_along = orjson.loads(run.source)["source"]["type"] == "file_content"
    return wire.run_object(run, criteria, own_address(state.settings), items if came_along else None)
