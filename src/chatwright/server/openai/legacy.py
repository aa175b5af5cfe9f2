"""Paths of openai < 1.0 and of Azure: the model is named in the path, `engines` are models, and `edits` still exist."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Literal

from fastapi import APIRouter, Request
from openai.types import CompletionUsage
from pydantic import BaseModel
from starlette.responses import Response

from chatwright.engine.text import TextDelta, TextFinish, TextRequest
from chatwright.server.guard import watch_of
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import bill_of
from chatwright.server.openai import chat, completions, embeddings
from chatwright.server.openai.generation import (
    generate_all,
    on_behalf_of,
    owner_of,
    sampling_params,
    unless_client_leaves,
    usage,
)
from chatwright.server.openai.requests import ChatBody, CompletionBody, EditBody, SamplingBody
from chatwright.server.permission import actor_of
from chatwright.server.state import ServerState, State

EDIT_SLACK_TOKENS = 256

router = APIRouter(route_class=JsonRoute, tags=["legacy"])

EDIT_MODELS = ("text-davinci-edit-001", "code-davinci-edit-001")


class Engine(BaseModel):
    """The engine object of the API's first years."""

    id: str
    object: Literal["engine"] = "engine"
    owner: str = "chatwright"
    permissions: None = None
    ready: bool = True


class Engines(BaseModel):
    """A list of engines."""

    object: Literal["list"] = "list"
    data: list[Engine]


class EditChoice(BaseModel):
    """One edited text."""

    text: str
    index: int


class Edit(BaseModel):
    """The answer of `/v1/edits`."""

    object: Literal["edit"] = "edit"
    created: int
    choices: list[EditChoice]
    usage: CompletionUsage


@router.post("/engines/{name:path}/chat/completions", response_model=None, responses=chat.ANSWERS)
@router.post("/openai/deployments/{name:path}/chat/completions", response_model=None, responses=chat.ANSWERS)
async def chat_of_engine(name: str, body: ChatBody, request: Request, state: State) -> Response:
    """Continue a conversation with the engine named in the path."""
    return await chat.answer(body, name, request, state)


@router.post("/engines/{name:path}/completions", response_model=None, responses=completions.ANSWERS)
@router.post("/engines/{name:path}/generate", response_model=None, responses=completions.ANSWERS)
@router.post("/openai/deployments/{name:path}/completions", response_model=None, responses=completions.ANSWERS)
async def complete_with_engine(name: str, body: CompletionBody, request: Request, state: State) -> Response:
    """Continue prompts with the engine named in the path."""
    return await completions.complete(body, name, request, state)


@router.post("/engines/{name:path}/embeddings", response_model=None, responses=embeddings.ANSWERS)
@router.post("/openai/deployments/{name:path}/embeddings", response_model=None, responses=embeddings.ANSWERS)
async def embed_with_engine(name: str, body: embeddings.EmbeddingBody, request: Request, state: State) -> Response:
    """Turn texts into vectors with the engine named in the path."""
    return await embeddings.embed(body, name, request, state)


@router.post("/engines/{name:path}/edits", response_model_exclude_none=True)
async def edit_with_engine(name: str, body: EditBody, request: Request, state: State) -> Edit:
    """Edit a text with the engine named in the path."""
    return await edit(body, name, request, state)


@router.post("/edits", response_model_exclude_none=True)
async def create_edit(body: EditBody, request: Request, state: State) -> Edit:
    """Edit a text after an instruction."""
    return await edit(body, body.model, request, state)


@router.get("/engines")
async def list_engines(state: State) -> Engines:
    """All served models, as engines."""
    return Engines(data=[Engine(id=model.name) for model in state.models])


@router.get("/engines/{name:path}")
async def retrieve_engine(name: str, request: Request, state: State) -> Engine:
    """One served model, as an engine."""
    await state.model_called(name, actor_of(request))
    return Engine(id=name)


async def edit(body: EditBody, model_name: str | None, request: Request, state: ServerState) -> Edit:
    """The edited text, asked for in the model's chat template."""
    # The edit models had names of their own; any served name or alias will do.
    name = "davinci" if model_name in EDIT_MODELS else model_name
    model = await state.model_for_answer(name, actor_of(request))
    question = f"{body.instruction}\n\n{body.input}" if body.input else body.instruction
    system = "Apply the instruction to the text and answer with the edited text only."
    prompt = await model.encode_chat([{"role": "system", "content": system}, {"role": "user", "content": question}])
    # An edited text is about as long as the text; without a limit a small model may ramble to the end of its context.
    max_tokens = max(1, min(model.max_tokens_left(len(prompt)), 2 * len(prompt) + EDIT_SLACK_TOKENS))
    model.check_length(len(prompt), max_tokens, param="input")
    as_sampling = SamplingBody(temperature=body.temperature, top_p=body.top_p)
    on_behalf_of(as_sampling, request)
    sampling = sampling_params(as_sampling, model, max_tokens=max_tokens, logprobs=None)
    text_request = TextRequest(
        prompt_ids=prompt, sampling=sampling, n=body.n or 1, owner=owner_of(as_sampling), watch=watch_of(state.guard)
    )

    async def run() -> Edit:
        texts = [""] * text_request.n
        n_completion = 0
        bill = bill_of(request)
        if state.guard is not None:
            await state.guard.check([question], param="input")
        async with aclosing(generate_all(model, [text_request], state.cut_off, bill, can_be_shorter=True)) as events:
            async for _, event in events:
                if isinstance(event, TextDelta):
                    texts[event.index] += event.text
                elif isinstance(event, TextFinish):
                    n_completion += event.n_tokens
        return Edit(
            created=int(time.time()),
            choices=[EditChoice(text=text, index=index) for index, text in enumerate(texts)],
            usage=usage(len(prompt), n_completion),
        )

    return await unless_client_leaves(request, run())
