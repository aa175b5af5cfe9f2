"""`/v1/organization/usage/…` and `/costs` of OpenAI's administration API: who used how much, for administrators.

Buckets are of UTC and whole: the first one begins at or before `start_time`, but counts from there on. There are no projects and no
prices: `project_id` is null everywhere, and everything costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from openai.types.admin.organization.usage_completions_response import (
    Data,
    DataResultOrganizationCostsResult,
    DataResultOrganizationCostsResultAmount,
    DataResultOrganizationUsageCompletionsResult,
    DataResultOrganizationUsageEmbeddingsResult,
    DataResultOrganizationUsageModerationsResult,
    UsageCompletionsResponse,
)
from pydantic import BaseModel
from starlette.responses import Response

from chatwright.errors import InvalidRequestError
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import Permit
from chatwright.server.state import NeedDatabase
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.policy import Action
from chatwright.store.usage.payer import Kind
from chatwright.store.usage.report import Group, Question, Used, usage_of_all

router = APIRouter(route_class=JsonRoute, tags=["organization"])

Reader = Annotated[Actor, Depends(Permit(Action.READ_USAGE))]
# Some time after which nothing is counted in seconds any more: the year 9999.
END_OF_TIME = 253_402_300_799
# Bucket width → its seconds, buckets of a page unless asked for, and at most.
WIDTHS = {"1m": (60, 60, 1440), "1h": (3600, 24, 168), "1d": (86_400, 7, 31)}
COST_DAYS = (86_400, 7, 180)
PAGE = "page_"
NAMES: dict[str, Group] = {"user_id": "user_id", "api_key_id": "key_id", "model": "model"}

Groups = Literal["project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "api_source", "line_item"]
Texts = Annotated[list[str], Query(max_length=100)]

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": UsageCompletionsResponse, "description": "A page of buckets, each with a result for each group."}
}


class Filter(BaseModel):
    """The parameters that all of these have. Lists come as `models=a&models=b` or, from the official client, `models[]=a&…`."""

    start_time: Annotated[int, Query(ge=0, le=END_OF_TIME)]
    end_time: Annotated[int | None, Query(ge=0, le=END_OF_TIME)] = None
    bucket_width: Literal["1m", "1h", "1d"] = "1d"
    limit: Annotated[int | None, Query(ge=1, le=1440)] = None
    page: Annotated[str | None, Query(max_length=40)] = None
    batch: bool | None = None
    group_by: Annotated[list[Groups] | None, Query(max_length=20)] = None
    group_by_of_client: Annotated[
        list[Groups] | None, Query(alias="group_by[]", max_length=20, include_in_schema=False)
    ] = None
    models: Texts | None = None
    models_of_client: Annotated[list[str] | None, Query(alias="models[]", max_length=100, include_in_schema=False)] = (
        None
    )
    user_ids: Texts | None = None
    user_ids_of_client: Annotated[
        list[str] | None, Query(alias="user_ids[]", max_length=100, include_in_schema=False)
    ] = None
    api_key_ids: Texts | None = None
    api_key_ids_of_client: Annotated[
        list[str] | None, Query(alias="api_key_ids[]", max_length=100, include_in_schema=False)
    ] = None
    project_ids: Texts | None = None
    project_ids_of_client: Annotated[
        list[str] | None, Query(alias="project_ids[]", max_length=100, include_in_schema=False)
    ] = None

    @property
    def groups(self) -> list[Group]:
        """By what the answer shall be told apart, of what we know."""
        return [NAMES[name] for name in _both(self.group_by, self.group_by_of_client) or () if name in NAMES]

    @property
    def is_of_nobody(self) -> bool:
        """Whether it asks for what does not exist here: projects, and batches of their own."""
        return bool(_both(self.project_ids, self.project_ids_of_client)) or bool(self.batch)

    def question(self, span: Span, kind: Kind) -> Question:
        """What to ask the store for a page."""
        return Question(
            max(self.start_time, span.starts.start),
            min(span.end, span.starts.stop),
            span.width_s,
            self.groups,
            kind,
            _both(self.user_ids, self.user_ids_of_client),
            _both(self.api_key_ids, self.api_key_ids_of_client),
            _both(self.models, self.models_of_client),
        )


Asked = Annotated[Filter, Query()]


@dataclass(frozen=True)
class Span:
    """The buckets of a page by their starts, and where the whole answer ends."""

    starts: range
    end: int
    width_s: int

    @classmethod
    def of(cls, asked: Filter, sizes: tuple[int, int, int]) -> Span:
        """Raises InvalidRequestError."""
        width, usual, most = sizes
        end = asked.end_time if asked.end_time is not None else clock.now() + 1
        if end <= asked.start_time and asked.end_time is not None:
            raise InvalidRequestError("end_time must be later than start_time.", param="end_time", code="invalid_value")
        limit = asked.limit or usual
        if limit > most:
            raise InvalidRequestError(
                "With buckets of {width} seconds a page has at most {most} of them.",
                width=width,
                most=most,
                param="limit",
                code="invalid_value",
            )
        first = asked.start_time - asked.start_time % width
        if asked.page is not None:
            number = asked.page.removeprefix(PAGE)
            if not (asked.page.startswith(PAGE) and number.isascii() and number.isdigit()) or int(number) % width:
                raise InvalidRequestError(
                    "This page does not exist: take next_page of an answer to the same question.",
                    param="page",
                    code="invalid_value",
                )
            first = max(first, int(number))
        stop = min(first + limit * width, end + -end % width)
        return cls(range(first, max(first, stop), width), end, width)

    def answer(self, results: dict[int, list[Any]]) -> Response:
        """A page: every bucket, also those in which nothing was."""
        has_more = self.starts.stop < self.end
        page = UsageCompletionsResponse(
            object="page",
            data=[
                Data(object="bucket", start_time=start, end_time=start + self.width_s, results=results.get(start, []))
                for start in self.starts
            ],
            has_more=has_more,
            next_page=f"{PAGE}{self.starts.stop}" if has_more else None,
        )
        return Response(page.model_dump_json(), media_type="application/json")


@router.get("/organization/usage/completions", response_model=None, responses=ANSWERS)
async def usage_of_completions(asked: Asked, actor: Reader, database: NeedDatabase) -> Response:
    """Tokens and requests of everything that writes text."""

    def result(used: Used) -> Any:
        return DataResultOrganizationUsageCompletionsResult(
            object="organization.usage.completions.result",
            num_model_requests=used.requests,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            input_cached_tokens=used.cached_tokens,
            input_uncached_tokens=used.input_tokens - used.cached_tokens,
            input_text_tokens=used.input_tokens,
            output_text_tokens=used.output_tokens,
            **_names(used),
        )

    return await _usage(asked, actor, database, "completions", result)


@router.get("/organization/usage/embeddings", response_model=None, responses=ANSWERS)
async def usage_of_embeddings(asked: Asked, actor: Reader, database: NeedDatabase) -> Response:
    """Tokens and requests of embeddings."""

    def result(used: Used) -> Any:
        return DataResultOrganizationUsageEmbeddingsResult(
            object="organization.usage.embeddings.result",
            num_model_requests=used.requests,
            input_tokens=used.input_tokens,
            **_names(used),
        )

    return await _usage(asked, actor, database, "embeddings", result)


@router.get("/organization/usage/moderations", response_model=None, responses=ANSWERS)
async def usage_of_moderations(asked: Asked, actor: Reader, database: NeedDatabase) -> Response:
    """Requests of moderations. They have no tokens."""

    def result(used: Used) -> Any:
        return DataResultOrganizationUsageModerationsResult(
            object="organization.usage.moderations.result",
            num_model_requests=used.requests,
            input_tokens=used.input_tokens,
            **_names(used),
        )

    return await _usage(asked, actor, database, "moderations", result)


@router.get("/organization/costs", response_model=None, responses=ANSWERS)
async def costs(asked: Asked, actor: Reader) -> Response:
    """What it cost: nothing, as models of one's own do."""
    span = Span.of(asked, COST_DAYS)
    nothing = DataResultOrganizationCostsResult(
        object="organization.costs.result",
        amount=DataResultOrganizationCostsResultAmount(value=0.0, currency="usd"),
    )
    return span.answer({start: [nothing] for start in span.starts})


async def _usage(asked: Filter, actor: Actor, database: Any, kind: Kind, result: Any) -> Response:
    span = Span.of(asked, WIDTHS[asked.bucket_width])
    rows: Sequence[Used] = ()
    if span.starts and not asked.is_of_nobody:
        async with database.read() as session:
            rows = await usage_of_all(session, actor, asked.question(span, kind))
    results: dict[int, list[Any]] = {}
    for row in rows:
        results.setdefault(row.start, []).append(result(row))
    return span.answer(results)


def _names(used: Used) -> dict[str, Any]:
    return {"user_id": used.user_id or None, "api_key_id": used.key_id or None, "model": used.model or None}


def _both(given: Collection[Any] | None, of_client: Collection[Any] | None) -> list[Any] | None:
    return None if given is None and of_client is None else [*(given or ()), *(of_client or ())]
