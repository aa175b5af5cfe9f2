"""`/v1/models`: what is served. Aliases are not listed, but can be retrieved under the name asked for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from chatwright.engine.text import TextModel
from chatwright.server.state import State

router = APIRouter(tags=["models"])


@router.get("/models")
async def list_models(state: State) -> dict[str, Any]:
    """All served models."""
    return {"object": "list", "data": [model_object(model, model.name) for model in state.models]}


@router.get("/models/{name:path}")
async def retrieve_model(name: str, state: State) -> dict[str, Any]:
    """One model, or the one that an alias stands for."""
    return model_object(state.find_model(name), name)


def model_object(model: TextModel, name: str) -> dict[str, Any]:
    """OpenAI's object, with what our web app wants to know beside it."""
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "chatwright",
        "context_length": model.context_length,
        "languages": list(model.languages),
        "chat": model.template is not None,
    }
