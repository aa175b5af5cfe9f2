"""`/v1/models`: what is served. Aliases are not listed, but can be retrieved under the name asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from openai.types import Model, ModelDeleted
from pydantic import BaseModel

from chatwright.engine.text import TextModel
from chatwright.jobs.names import is_result_name
from chatwright.server.errors import WireError
from chatwright.server.fine_tuned import Listed
from chatwright.server.permission import Permit, actor_of
from chatwright.server.state import ServerState, State
from chatwright.store.actor import Actor
from chatwright.store.policy import Action

router = APIRouter(tags=["models"])
# Who may see models may not delete them.
delete_router = APIRouter(tags=["models"])


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
async def list_models(request: Request, state: State) -> ServedModels:
    """All served models, and the results of one's training jobs."""
    data = [model_object(state, model, model.name) for model in state.models]
    if state.fine_tuned is not None:
        data += [result_object(listed, state) for listed in await state.fine_tuned.list(actor_of(request))]
    return ServedModels(data=data)


@router.get("/models/{name:path}", response_model_exclude_none=True)
async def retrieve_model(name: str, request: Request, state: State) -> ServedModel:
    """One model, or the one that an alias stands for."""
    if state.fine_tuned is not None and is_result_name(name):
        return result_object(await state.fine_tuned.look(name, actor_of(request)), state)
    return model_object(state, state.find_model(name), name)


@delete_router.delete("/models/{name:path}")
async def delete_model(
    name: str, actor: Annotated[Actor, Depends(Permit(Action.USE_JOBS))], state: State
) -> ModelDeleted:
    """Delete the result of one of one's training jobs, or a checkpoint. Answers under way end with it."""
    if state.fine_tuned is not None and is_result_name(name):
        await state.fine_tuned.delete(name, actor)
        return ModelDeleted(id=name, object="model", deleted=True)
    state.find_model(name)
    raise WireError(
        403,
        "Only results of training jobs can be deleted: models are chosen when the server starts.",
        code="not_deletable",
    )


def result_object(listed: Listed, state: ServerState) -> ServedModel:
    """The result of a job as the wire shows it."""
    return ServedModel(
        id=listed.name,
        object="model",
        created=listed.created,
        owned_by=state.settings.organization,
        context_length=listed.base.context_length,
        languages=list(listed.base.languages),
        chat=True,
        parent=listed.base.name,
    )


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
