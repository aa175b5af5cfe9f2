"""Loading and unloading adapters: vLLM's paths and fields, but `lora_path` is a name (see `chatwright.hub.adapters`)."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from chatwright.errors import (
    ChatwrightError,
    InUseError,
    InvalidModelError,
    InvalidRequestError,
    ModelNotFoundError,
    StorageError,
    UsageError,
)
from chatwright.i18n import describe_error
from chatwright.server.errors import WireError, as_wire_error, language_of
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import Permit
from chatwright.server.state import ServerState, State
from chatwright.store.policy import Action

MAX_NAME = 300

router = APIRouter(route_class=JsonRoute, tags=["adapters"], dependencies=[Depends(Permit(Action.CHANGE_MODELS))])


class LoadAdapterBody(BaseModel):
    """Which adapter to load, and under which name."""

    lora_name: str = Field(max_length=MAX_NAME, description="What the adapter shall be called as a model.")
    lora_path: str | None = Field(
        None,
        max_length=4096,
        description="The name of its folder in adapters, runs or models of the server's home folder; lora_name, where it is not"
        " said. Never a path.",
    )
    base_model_name: str | None = Field(
        None,
        max_length=MAX_NAME,
        description="The model it is for, where several are served and it does not say so itself.",
    )
    load_inplace: bool = Field(False, description="Not supported: unload the old one first.")


class UnloadAdapterBody(BaseModel):
    """Which adapter to unload."""

    lora_name: str = Field(max_length=MAX_NAME, description="What the adapter is called as a model.")


class AdapterObject(BaseModel):
    """An adapter. `loaded`: it answers as the model `id`. `source`: the name of its folder, where it was loaded through the API."""

    id: str
    object: Literal["lora_adapter"] = "lora_adapter"
    loaded: bool
    base_model: str | None = None
    source: str | None = None


class AdapterObjects(BaseModel):
    """Those that are loaded, then those that could be."""

    object: Literal["list"] = "list"
    data: list[AdapterObject]


class AdapterUnloaded(BaseModel):
    """It takes no new requests."""

    id: str
    object: Literal["lora_adapter"] = "lora_adapter"
    loaded: Literal[False] = False


@router.get("/lora_adapters", response_model_exclude_none=True)
async def list_adapters(state: State) -> AdapterObjects:
    """Adapters that answer, and those in the home folder that could."""
    loaded = [adapter_object(state, model.name) for model in state.models if model.adapter is not None]
    sources = {adapter.source for adapter in loaded}
    others = [name for name in await state.adapters.installed() if name not in sources]
    return AdapterObjects(data=[*loaded, *(AdapterObject(id=name, loaded=False) for name in others)])


@router.post("/load_lora_adapter", response_model_exclude_none=True)
async def load_adapter(body: LoadAdapterBody, request: Request, state: State) -> AdapterObject:
    """Put an adapter beside its base; from then on it answers as a model of its own. What runs goes on meanwhile."""
    if body.load_inplace:
        raise WireError(
            400,
            "load_inplace is not supported: unload the adapter first, or load the new one under another name.",
            param="load_inplace",
            code="unsupported_parameter",
        )
    state.check_open()
    try:
        await state.adapters.load(body.lora_name, body.lora_path or body.lora_name, body.base_model_name)
    except ChatwrightError as error:
        raise _refusal(error, request, "lora_path") from error
    return adapter_object(state, body.lora_name)


@router.post("/unload_lora_adapter")
async def unload_adapter(body: UnloadAdapterBody, request: Request, state: State) -> AdapterUnloaded:
    """Take an adapter away. New requests are refused from now on, answers under way end with it."""
    state.check_open()
    try:
        await state.adapters.unload(body.lora_name)
    except ChatwrightError as error:
        raise _refusal(error, request, "lora_name") from error
    return AdapterUnloaded(id=body.lora_name)


def adapter_object(state: ServerState, name: str) -> AdapterObject:
    """An adapter that is loaded, as the wire shows it."""
    base = state.base_of(state.find_model(name))
    return AdapterObject(id=name, loaded=True, base_model=base, source=state.adapters.source_of(name))


def _refusal(error: ChatwrightError, request: Request, param: str) -> WireError:
    """Why not, in the language that the client asks for: this is read by whoever runs the server."""
    message = describe_error(error, language_of(request))
    match error:
        case InvalidRequestError():
            return WireError(400, message, param=error.param, code=error.code)
        case ModelNotFoundError():
            return WireError(404, message, param=param, code="adapter_not_found")
        case InUseError():
            return WireError(409, message, param=param, code="adapter_in_use")
        case InvalidModelError() | UsageError() | StorageError():
            return WireError(400, message, param=param, code="invalid_adapter")
        case _:
            wire = as_wire_error(error)
            return WireError(wire.status_code, message, param=wire.param, code=wire.code, headers=wire.headers)
