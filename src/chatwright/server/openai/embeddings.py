"""`/v1/embeddings`: texts become vectors of length one, by an encoder or as the mean of a decoder's hidden states."""

from __future__ import annotations

import asyncio
import base64
import math
import sys
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from openai.types import CreateEmbeddingResponse, Embedding
from openai.types.create_embedding_response import Usage
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from chatwright.engine.text import Embeddings, TextModel
from chatwright.errors import InvalidRequestError
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import bill_of
from chatwright.server.openai.aliases import is_embedding_alias
from chatwright.server.openai.generation import check_ids, computed, reading
from chatwright.server.openai.requests import TokenIds
from chatwright.server.permission import actor_of
from chatwright.server.state import ServerState, State

MAX_INPUTS = 2048
MAX_TOKENS = 300_000

router = APIRouter(route_class=JsonRoute, tags=["embeddings"])


class EncodedEmbedding(Embedding):
    """A vector as text, which the client library's type does not know: it decodes it before anybody sees it."""

    embedding: str  # type: ignore[assignment]


class EmbeddingsAnswer(CreateEmbeddingResponse):
    """Vectors, each in the format that was asked for."""

    data: list[Embedding | EncodedEmbedding]


# What the routes answer, for the API's description: they return finished responses, which FastAPI does not look into.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": EmbeddingsAnswer,
        "description": "The vectors; with encoding_format base64, which official clients ask for, as text: little-endian float32.",
    }
}


def check_input(value: Any) -> Any:
    """One plain sentence for an input of the wrong kind or size, where the union would give one per kind that it is not."""
    kinds = {type(item) for item in value} if isinstance(value, list) else set()
    if not isinstance(value, str) and kinds not in ({str}, {int}, {list}):
        raise ValueError("an input is a string, a list of strings, a list of token ids, or a list of such lists")
    if value == "" or (kinds == {str} and "" in value):
        raise ValueError("an input must not be an empty string")
    if kinds != {int} and isinstance(value, list) and len(value) > MAX_INPUTS:
        raise ValueError(f"at most {MAX_INPUTS} inputs are allowed in one request, not {len(value)}")
    return value


Input = Annotated[
    str
    | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)]
    | TokenIds
    | Annotated[list[TokenIds], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)],
    BeforeValidator(check_input),
]


class EmbeddingBody(BaseModel):
    """`POST /v1/embeddings`."""

    model_config = ConfigDict(strict=True)

    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    user: str | None = None


@router.post("/embeddings", response_model=None, responses=ANSWERS)
async def create_embeddings(body: EmbeddingBody, request: Request, state: State) -> Response:
    """Turn texts into vectors."""
    return await embed(body, body.model, request, state)


async def embed(body: EmbeddingBody, model_name: str | None, request: Request, state: ServerState) -> Response:
    """Answer an embedding request for the model of that name (from the body, or from a legacy path)."""
    model = await state.model_for_answer(model_name, actor_of(request))
    inputs = as_inputs(body.input, model)
    if (
        is_embedding_alias(model_name or "")
        and model.name != model_name
        and any(not isinstance(text, str) for text in inputs)
    ):
        # LangChain sends such ids by default; read in another vocabulary they are other words, and nobody would notice.
        raise InvalidRequestError(
            "Token ids for {name} are of OpenAI's vocabulary, which {model} does not have. Send texts (LangChain does with "
            "check_embedding_ctx_length=False), or ids of /v1/tokenize to {model} by its own name.",
            name=str(model_name),
            model=model.name,
            param="input",
            code="invalid_value",
        )
    if body.dimensions is not None and model.embeds and body.dimensions > model.vector_width:
        raise InvalidRequestError(
            "The vectors of {name} have {width} dimensions; dimensions can be 1 to that.",
            name=model.name,
            width=model.vector_width,
            param="dimensions",
            code="invalid_value",
        )
    work = model.embed(inputs, max_tokens=MAX_TOKENS, admitted=reading(bill_of(request), model))
    embedded = await computed(request, work, state.cut_off)
    # Off the event loop: two thousand vectors are megabytes of digits.
    text = await asyncio.to_thread(
        _written,
        embedded,
        model_name or model.name,
        body.dimensions or model.vector_width,
        body.encoding_format == "base64",
    )
    return Response(text, media_type="application/json")


def as_inputs(given: str | list[str] | list[int] | list[list[int]], model: TextModel) -> list[str | list[int]]:
    """The texts of a request, each a string or a list of token ids. Raises InvalidRequestError for an id that is no token."""
    inputs: list[str | list[int]]
    single = isinstance(given, str) or isinstance(given[0], int)
    inputs = [given] if single else given  # type: ignore[list-item,assignment]
    for text in inputs:
        if not isinstance(text, str):
            check_ids(text, model, param="input")
    return inputs


def unit_vector(vector: Sequence[float], dimensions: int) -> array[float]:
    """The first `dimensions` numbers of a vector, scaled to length one (a vector of zeros stays one), as float32.

    OpenAI's have that length, and programs rely on it when they take the dot product for the cosine.
    """
    cut = vector[:dimensions]
    length = math.hypot(*cut) or 1.0
    return array("f", [number / length for number in cut])


def base64_of(vector: array[float]) -> str:
    """Its bytes as text, little-endian on every machine."""
    if sys.byteorder == "big":
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()


def _written(embedded: Embeddings, name: str, dimensions: int, as_base64: bool) -> str:
    data: list[Any] = []
    for index, whole in enumerate(embedded.vectors):
        vector = unit_vector(whole, dimensions)
        if as_base64:
            data.append(EncodedEmbedding(index=index, object="embedding", embedding=base64_of(vector)))
        else:
            data.append(Embedding.construct(index=index, object="embedding", embedding=vector.tolist()))
    usage = Usage(prompt_tokens=embedded.n_tokens, total_tokens=embedded.n_tokens)
    # `construct`: the vectors are what they are, and checking each number again costs more than writing it.
    answer = CreateEmbeddingResponse.construct(object="list", data=data, model=name, usage=usage)
    return answer.model_dump_json(exclude_unset=True, warnings=False)
