"""What a model expected, where it looked, and what its layers would have said: `chatwright explain --json` for the web app."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response

from chatwright.engine.text import TextModel
from chatwright.errors import InvalidRequestError, OverloadedError
from chatwright.inspection.looking import MOST_TOKENS
from chatwright.inspection.wire import Look
from chatwright.server.console.wire import Body, Text
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.generation import unless_client_leaves
from chatwright.server.permission import Permit
from chatwright.server.state import State
from chatwright.store.policy import Action
from chatwright.tokenizer.tokenizer import Tokenizer

T = TypeVar("T")

router = APIRouter(route_class=JsonRoute, tags=["explain"], dependencies=[Depends(Permit(Action.GENERATE))])

# Far more than MOST_TOKENS tokens of any language; what is too long is told in tokens.
Words = Annotated[str, StringConstraints(min_length=1, max_length=16 * 1024)]


class ExplainBody(Body):
    """A text to look at: a prompt, and an answer, which is given or the model's own."""

    model: Text
    prompt: Words
    answer: Words | None = Field(None, description="An answer to look at, instead of the model's.")
    max_tokens: Annotated[int, Field(ge=0, le=64)] = Field(
        16,
        description="Let the model answer with at most so many tokens; 0: the prompt alone. Of no use beside answer.",
    )
    chat: bool = Field(False, description="The prompt is a message in a conversation.")
    attribution: Literal["gradient", "occlusion", "none"] = Field(
        "gradient",
        description="How input tokens are weighed. occlusion reads the whole text once for each of its tokens: seconds.",
    )
    attention: Literal["heads", "mean", "none"] = Field(
        "heads",
        description="Attention of every head, or the mean of each layer's; the mean too where all would be too large.",
    )
    top: Annotated[int, Field(ge=1, le=20)] = Field(5, description="Alternatives and neighbours of each token.")


class AlternativeObject(BaseModel):
    """A token that could stand at a place."""

    id: int
    text: str
    probability: float


class ExplainedTokenObject(BaseModel):
    """A token of the text. `logprob` is natural; `rank` 1 is the likeliest; all are null where the model expected nothing."""

    position: int
    id: int
    text: str
    is_answer: bool
    is_control: bool
    logprob: float | None
    rank: int | None
    entropy_bits: float | None
    alternatives: list[AlternativeObject]
    probability: float | None


class LensCellObject(BaseModel):
    """At one layer and place: the likeliest tokens, and how likely the one that really comes next is."""

    top: list[AlternativeObject]
    next_probability: float | None


class LensRowObject(BaseModel):
    """What a layer would have said at each place. Layer 0 is the embedding."""

    layer: int
    cells: list[LensCellObject]


class AttributionObject(BaseModel):
    """How much each token before `position` spoke for the prediction there, in nats."""

    method: Literal["gradient", "occlusion"]
    position: int
    text: str
    scores: list[float]


class NeighbourObject(BaseModel):
    """A token near another."""

    id: int
    text: str
    cosine: float


class NeighbourhoodObject(BaseModel):
    """A token and those nearest to it."""

    id: int
    text: str
    nearest: list[NeighbourObject]


class MapPointObject(BaseModel):
    """A token on the map."""

    id: int
    text: str
    x: float
    y: float
    kind: Literal["seen", "near", "other"]


class EmbeddingMapObject(BaseModel):
    """Two principal components, and the share of the variance that each shows."""

    points: list[MapPointObject]
    explained: Annotated[list[float], Field(min_length=2, max_length=2)]


class LabelObject(BaseModel):
    """A label of a model that has a head for them."""

    label: str
    probability: float


class ExplanationObject(BaseModel):
    """The same as `chatwright explain --json`. `n_prompt`: tokens before the answer. `next`: what would come after the last token.
    `attention`: layers, heads, queries, keys. `notes`: why something is missing, in English."""

    model: str
    kind: Literal["decoder", "recurrent", "encoder", "classifier", "tagger"]
    n_prompt: int
    tokens: list[ExplainedTokenObject]
    next: list[AlternativeObject]
    attention: list[list[list[list[float]]]]
    lens: list[LensRowObject]
    attributions: list[AttributionObject]
    neighbours: list[NeighbourhoodObject]
    map: EmbeddingMapObject | None
    labels: list[LabelObject]
    token_labels: list[LabelObject]
    notes: list[str]


# It comes as finished JSON from the process that looked: megabytes, which FastAPI does not look into again.
ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": ExplanationObject}}


@router.post("/explain", response_model=None, responses=ANSWERS)
async def explain(body: ExplainBody, request: Request, state: State) -> Response:
    """Look inside a model: probabilities, attention, layers, attribution, embeddings of one text."""
    state.check_open()
    model = state.find_model(body.model)
    opened = state.adapters.opened_as(model.name)
    if opened is None:
        raise InvalidRequestError(
            "The model {name} cannot be looked into: its files are not those of this server.",
            name=model.name,
            param="model",
            code="unsupported_model",
        )
    look = await _look_at(body, model, min(MOST_TOKENS, opened.info.context_length))
    work = _unless_cut_off(state.cut_off, state.looking.look(opened, look))
    return Response(await unless_client_leaves(request, work), media_type="application/json")


async def _look_at(body: ExplainBody, model: TextModel, most: int) -> Look:
    """The question in token ids, `most` at most. Raises InvalidRequestError."""
    if body.answer is not None and "max_tokens" in body.model_fields_set:
        raise InvalidRequestError(
            "Give either answer or max_tokens: an answer that is given is not written by the model.",
            param="max_tokens",
            code="invalid_value",
        )
    if body.answer is not None and not model.writes_text:
        raise InvalidRequestError(
            "{name} writes no text, so it cannot be given an answer: leave answer out.",
            name=model.name,
            param="answer",
            code="invalid_value",
        )
    if body.chat:
        prompt_ids = await model.encode_chat([{"role": "user", "content": body.prompt}])
    else:
        prompt_ids = await model.encode(body.prompt)
    if not prompt_ids:
        raise InvalidRequestError("The prompt is empty: give a text to look at.", param="prompt", code="invalid_value")
    answer_ids = None
    if body.answer is not None:
        assert isinstance(model.tokenizer, Tokenizer), "a model that writes has one"
        encode = model.tokenizer.encode_prompts
        [answer_ids] = await asyncio.to_thread(encode, [[body.answer]], continuing=True)
    n_tokens = len(prompt_ids) + len(answer_ids or ())
    if n_tokens > most:
        raise InvalidRequestError(
            "The text has {n} tokens; looking inside {name} takes at most {most} here. Shorten it.",
            n=n_tokens,
            most=most,
            name=model.name,
            param="prompt" if len(prompt_ids) > most else "answer",
            code="context_length_exceeded",
        )
    return Look(
        prompt_ids,
        answer_ids,
        max_tokens=min(body.max_tokens, most - n_tokens),
        method=None if body.attribution == "none" else body.attribution,
        top=body.top,
        attention=body.attention,
    )


async def _unless_cut_off(cut_off: asyncio.Event, work: Awaitable[T]) -> T:
    """The result of `work`. Raises OverloadedError when the server leaves before it is there."""
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(cut_off.wait())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise OverloadedError("The server is shutting down and ended this answer early. Send it again.")
        return task.result()
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
