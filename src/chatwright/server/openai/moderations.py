"""`/v1/moderations`: which of OpenAI's categories of harmful content each text falls into."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from openai.types import Moderation, ModerationCreateResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from chatwright.errors import InvalidRequestError, ModelNotFoundError
from chatwright.moderation.categories import CATEGORIES
from chatwright.moderation.classifier import Verdict
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import bill_of
from chatwright.server.openai.generation import computed
from chatwright.server.state import State
from chatwright.store.usage.admission import Wanted

LATEST = "omni-moderation-latest"
MODELS = (
    LATEST,
    "omni-moderation-2024-09-26",
    "text-moderation-latest",
    "text-moderation-stable",
    "text-moderation-007",
)
MAX_INPUTS = 2048
# Of all inputs together: seconds of a core, and no model is in between that would have a queue.
MAX_CHARACTERS = 500_000

router = APIRouter(route_class=JsonRoute, tags=["moderations"])

# What the route answers, for the API's description: it returns finished responses, which FastAPI does not look into.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ModerationCreateResponse,
        "description": "One result for each string; one for all parts of a list of parts.",
    }
}


class TextInput(BaseModel):
    """A part of an input: text is the only kind that is read."""

    model_config = ConfigDict(strict=True)

    type: Literal["text"]
    text: str


def check_input(value: Any) -> Any:
    """One plain sentence for an input of the wrong kind or size, where the union would give one per kind that it is not."""
    items = value if isinstance(value, list) else ()
    if any(isinstance(item, dict) and item.get("type") == "image_url" for item in items):
        raise InvalidRequestError(
            "Moderation reads text only: the input has an image. Leave it out.",
            param="input",
            code="unsupported_content",
        )
    if not isinstance(value, str) and {type(item) for item in items} not in ({str}, {dict}):
        raise ValueError("an input is a string, a list of strings, or a list of parts of the type text")
    if len(items) > MAX_INPUTS:
        raise ValueError(f"at most {MAX_INPUTS} inputs are allowed in one request, not {len(items)}")
    return value


class ModerationBody(BaseModel):
    """`POST /v1/moderations`."""

    model_config = ConfigDict(strict=True)

    input: Annotated[
        str
        | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[TextInput], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)],
        BeforeValidator(check_input),
    ]
    model: Annotated[str, StringConstraints(max_length=200)] | None = None

    def texts(self) -> list[str]:
        """What gets a result of its own."""
        if isinstance(self.input, str):
            return [self.input]
        parts = [part.text for part in self.input if isinstance(part, TextInput)]
        return ["\n".join(parts)] if parts else [part for part in self.input if isinstance(part, str)]


@router.post("/moderations", response_model=None, responses=ANSWERS)
async def create_moderation(body: ModerationBody, request: Request, state: State) -> Response:
    """Classify texts. It costs no tokens, as at OpenAI; it is a request like others to those whose requests are limited."""
    state.check_open()
    name = body.model or LATEST
    if name not in MODELS:
        raise ModelNotFoundError(
            "The model '{name}' does not exist here. Moderation goes by the names {served}, which all mean the same classifier.",
            name=name[:100],
            served=", ".join(MODELS),
        )
    texts = body.texts()
    if (n_characters := sum(map(len, texts))) > MAX_CHARACTERS:
        raise InvalidRequestError(
            "The inputs have {n} characters together, and one request may have {limit}. Send them in several.",
            n=n_characters,
            limit=MAX_CHARACTERS,
            param="input",
            code="string_above_max_length",
        )

    async def judged() -> list[Verdict]:
        async with bill_of(request).charge(LATEST, Wanted(0), "moderations"):
            return await state.moderator.judge(texts)

    verdicts = await computed(request, judged(), state.cut_off)
    answer = ModerationCreateResponse(
        id=f"modr-{uuid.uuid4().hex}", model=name, results=[_result(verdict) for verdict in verdicts]
    )
    return Response(answer.model_dump_json(by_alias=True), media_type="application/json")


def _result(verdict: Verdict) -> Moderation:
    """OpenAI's form of it."""
    return Moderation.model_validate(
        {
            "flagged": bool(verdict.flagged),
            "categories": {name: name in verdict.flagged for name in CATEGORIES},
            "category_scores": dict(verdict.scores),
            "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
        }
    )
