"""`/v1/rerank`, in the form of Jina, Cohere and vLLM: documents in the order in which they answer a query.

A cross-encoder (a head with one label over an encoder) reads query and document together; any other model that embeds compares
their vectors.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from chatwright.engine.classifier import ClassifierModel
from chatwright.engine.text import Admission, TextModel
from chatwright.errors import InvalidRequestError
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import bill_of
from chatwright.server.openai.embeddings import MAX_TOKENS, unit_vector
from chatwright.server.openai.generation import computed, reading
from chatwright.server.openai.requests import refuse_unsupported
from chatwright.server.permission import actor_of
from chatwright.server.state import State
from chatwright.tokenizer.encoder_text import EncoderTokenizer

MAX_DOCUMENTS = 1000

router = APIRouter(route_class=JsonRoute, tags=["rerank"])


def _text(document: Any) -> Any:
    """A document is a text, or an object with one."""
    return document.get("text") if isinstance(document, dict) else document


Query = Annotated[str, StringConstraints(min_length=1)]
Document = Annotated[Annotated[str, StringConstraints(min_length=1)], BeforeValidator(_text)]


class RerankBody(BaseModel):
    """`POST /v1/rerank`."""

    model_config = ConfigDict(strict=True)
    # Cohere's and vLLM's: a document has one text, of which nothing is cut → values that ask for nothing, and so may be sent.
    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = {
        "rank_fields": (["text"], []),
        "max_tokens_per_doc": (),
        "max_chunks_per_doc": (),
        "truncate_prompt_tokens": (),
    }

    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    query: Query
    documents: Annotated[
        list[Document],
        Field(
            fail_fast=True,
            min_length=1,
            max_length=MAX_DOCUMENTS,
            json_schema_extra={
                "items": {
                    "anyOf": [
                        {"type": "string", "minLength": 1},
                        {
                            "type": "object",
                            "properties": {"text": {"type": "string", "minLength": 1}},
                            "required": ["text"],
                        },
                    ]
                }
            },
        ),
    ]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = True

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        refuse_unsupported(body, cls.unsupported)
        return body


class RankedDocument(BaseModel):
    """The text of a document."""

    text: str


class Ranked(BaseModel):
    """Document number `index` of the request. `relevance_score`: the cosine of the vectors, -1 to 1, or what the cross-encoder
    says, 0 to 1. Scores of different models can not be compared."""

    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RerankUsage(BaseModel):
    """Tokens that were read."""

    total_tokens: int


class Reranked(BaseModel):
    """The best first."""

    id: str
    model: str
    usage: RerankUsage
    results: list[Ranked]


@router.post("/rerank", response_model_exclude_none=True)
async def rerank(body: RerankBody, request: Request, state: State) -> Reranked:
    """Order documents by how well they answer a query."""
    model = await state.model_for_answer(body.model, actor_of(request))
    work = _scores(model, body.query, body.documents, reading(bill_of(request), model))
    try:
        scores, n_tokens = await computed(request, work, state.cut_off)
    except InvalidRequestError as error:
        if error.param == "input":  # as embeddings call it
            error.param = "query" if await _is_too_long(model, body.query) else "documents"
        raise
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    return Reranked(
        id=f"rerank-{uuid.uuid4().hex}",
        model=body.model or model.name,
        usage=RerankUsage(total_tokens=n_tokens),
        results=[
            Ranked(
                index=index,
                relevance_score=scores[index],
                document=RankedDocument(text=body.documents[index]) if body.return_documents else None,
            )
            for index in order
        ],
    )


async def _is_too_long(model: TextModel, query: str) -> bool:
    return len(await asyncio.to_thread(model.tokenizer.encode, query)) > model.context_length


async def _scores(
    model: TextModel, query: str, documents: Sequence[str], admitted: Admission
) -> tuple[list[float], int]:
    """(a score for each document, tokens). Raises InvalidRequestError."""
    if isinstance(model, ClassifierModel) and model.scores_pairs:
        tokenizer = model.tokenizer
        assert isinstance(tokenizer, EncoderTokenizer)
        pairs = await asyncio.to_thread(lambda: [tokenizer.encode_pair(query, document) for document in documents])
        labelled = await model.classify(pairs, max_tokens=MAX_TOKENS, admitted=admitted)
        return [probabilities[0] for probabilities in labelled.probabilities], labelled.n_tokens
    if not model.embeds:
        raise InvalidRequestError(
            "The model {name} gives labels, which order nothing. Name an encoder, or a model with one label that reads pairs.",
            name=model.name,
            param="model",
            code="unsupported_model",
        )
    embedded = await model.embed([query, *documents], max_tokens=MAX_TOKENS, admitted=admitted)
    return await asyncio.to_thread(_cosines, embedded.vectors), embedded.n_tokens


def _cosines(vectors: Sequence[Sequence[float]]) -> list[float]:
    """Of the first vector with each of the others; rounding takes none beyond 1."""
    asked, *others = (unit_vector(vector, len(vector)) for vector in vectors)
    return [max(-1.0, min(1.0, sum(a * b for a, b in zip(asked, other, strict=True)))) for other in others]
