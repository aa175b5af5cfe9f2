"""`/v1/classify`, in the form of vLLM: the label of each text, by a model with a head (`chatwright tune --method classify`)."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from openai.types import CompletionUsage
from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from chatwright.engine.classifier import ClassifierModel
from chatwright.errors import InvalidRequestError
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import bill_of
from chatwright.server.openai.embeddings import MAX_TOKENS, Input, as_inputs
from chatwright.server.openai.generation import computed, reading, usage
from chatwright.server.openai.requests import refuse_unsupported
from chatwright.server.permission import actor_of
from chatwright.server.state import State

router = APIRouter(route_class=JsonRoute, tags=["classify"])


class ClassifyBody(BaseModel):
    """`POST /v1/classify`."""

    model_config = ConfigDict(strict=True)
    # vLLM's: nothing is cut, and what is told are probabilities → values that ask for nothing, and so may be sent.
    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = {
        "activation": (True,),
        "use_activation": (True,),
        "truncate_prompt_tokens": (),
    }

    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    input: Input

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        refuse_unsupported(body, cls.unsupported)
        return body


class Classification(BaseModel):
    """A text's likeliest label, and the probabilities of all, in the order of the model's own `labels` (GET /v1/models/NAME)."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Classifications(BaseModel):
    """One for each text."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Classification]
    usage: CompletionUsage


@router.post("/classify", response_model_exclude_none=True)
async def classify(body: ClassifyBody, request: Request, state: State) -> Classifications:
    """Label texts."""
    model = await state.model_for_answer(body.model, actor_of(request))
    if not isinstance(model, ClassifierModel):
        raise InvalidRequestError(
            "The model {name} has no head for labels. Make one with `chatwright tune MODEL DATASET --method classify`.",
            name=model.name,
            param="model",
            code="unsupported_model",
        )
    inputs = as_inputs(body.input, model)
    work = model.classify(inputs, max_tokens=MAX_TOKENS, admitted=reading(bill_of(request), model))
    labelled = await computed(request, work, state.cut_off)
    return Classifications(
        id=f"classify-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=body.model or model.name,
        data=[
            Classification(
                index=index,
                label=model.labels[probabilities.index(max(probabilities))],
                probs=probabilities,
                num_classes=len(probabilities),
            )
            for index, probabilities in enumerate(labelled.probabilities)
        ],
        usage=usage(labelled.n_tokens, 0),
    )
