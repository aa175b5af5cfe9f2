"""`/v1/models`: what is served. Aliases are not listed, but can be retrieved under the name asked for."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from openai.types import Model
from pydantic import BaseModel

from chatwright.engine.text import TextModel
from chatwright.server.state import ServerState, State

router = APIRouter(tags=["models"])


class ServedModel(Model):
    """OpenAI's object, with what our web app wants to know beside it. `context_length`: tokens; `chat`: has a template; `labels`:
    those that a model for /v1/classify gives; `parent`: the model that an adapter is put on (vLLM's name for it)."""

    context_length: int
    languages: list[str]
    chat: bool
    labels: list[str] | None = None
    parent: str | None = None


class ServedModels(BaseModel):
    """A list of models."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


@router.get("/models", response_model_exclude_none=True)
async def list_models(state: State) -> ServedModels:
    """All served models."""
    return ServedModels(data=[model_object(state, model, model.name) for model in state.models])


@router.get("/models/{name:path}", response_model_exclude_none=True)
async def retrieve_model(name: str, state: State) -> ServedModel:
    """One model, or the one that an alias stands for."""
    return model_object(state, state.find_model(name), name)


def model_object(state: ServerState, model: TextModel, name: str) -> ServedModel:
    """The model as the wire shows it, under the name asked for."""
    return ServedModel(
        id=name,
        object="model",
        created=model.created,
        owned_by="chatwright",
        context_length=model.context_length,
        languages=list(model.languages),
        chat=model.template is not None,
        labels=list(model.labels) or None,
        parent=state.base_of(model),
    )
