"""`/v1/tokenize`, `/v1/detokenize`, `/v1/tokenizer_info`, in the form of vLLM: texts and chats as the model's tokens, and back.

Nothing is generated: the model need not be loaded.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, ClassVar

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from starlette.responses import Response

from chatwright.engine.text import TextModel
from chatwright.errors import InvalidRequestError
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.chat import ChatPrompt
from chatwright.server.openai.generation import check_ids
from chatwright.server.openai.requests import (
    MAX_MESSAGES,
    MAX_PROMPT_TOKENS,
    ChatBody,
    Message,
    TokenId,
    refuse_unsupported,
)
from chatwright.server.openai.tools import Tools
from chatwright.server.permission import actor_of
from chatwright.server.state import ServerState, State
from chatwright.store.actor import Actor

# Counting the tokens of a text that fits into no context is legitimate; a second of work is enough for it.
MAX_CHARACTERS = 2**20

router = APIRouter(route_class=JsonRoute, tags=["tokens"])

ModelName = Annotated[str, StringConstraints(max_length=200)]


class TokenizeBody(BaseModel):
    """`POST /v1/tokenize`: a text, or a conversation as it would be sent to the model. Without a model it is the first."""

    model_config = ConfigDict(strict=True)
    # vLLM's, of which each would make other tokens of a conversation → values that ask for nothing, and so may be sent.
    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = {
        "add_generation_prompt": (True,),
        "continue_final_message": (False,),
        "chat_template": (),
        "chat_template_kwargs": ({},),
    }

    model: ModelName | None = None
    prompt: Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)] | None = None
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)] | None = None
    tools: Tools | None = None
    add_special_tokens: bool = Field(
        True,
        description="Whether what the tokenizer puts around every text (BOS, [CLS], [SEP]) is there too. Without it a prompt "
        "that is nothing but the name of a control token is this token, so that programs can ask for its id.",
    )
    return_token_strs: bool = Field(False, description="Whether the text of each token is wanted as well.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        refuse_unsupported(body, cls.unsupported)
        return body

    @model_validator(mode="after")
    def _check_one(self) -> TokenizeBody:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequestError(
                "Send either prompt, a text, or messages, a conversation.", param="prompt", code="invalid_value"
            )
        return self


class Tokenized(BaseModel):
    """`count` ids in `tokens`; `max_model_len`: how many fit into the model's context."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeBody(BaseModel):
    """`POST /v1/detokenize`."""

    model_config = ConfigDict(strict=True)

    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(fail_fast=True, max_length=MAX_PROMPT_TOKENS)]


class Detokenized(BaseModel):
    """The text of the tokens; control tokens have none."""

    prompt: str


class TokenizerInfo(BaseModel):
    """`GET /v1/tokenizer_info`: what lm-evaluation-harness asks a server for whose tokens it counts.

    There is no `chat_template`, which vLLM has: that program would put control tokens into a text with it, where they are ordinary
    text here. Conversations go to chat, or as `messages` to `tokenize`.
    """

    model: str
    bos_token: str | None
    eos_token: str | None
    model_max_length: int


@router.get("/tokenizer_info")
async def tokenizer_info(
    request: Request, state: State, model: Annotated[str | None, Query(max_length=200)] = None
) -> TokenizerInfo:
    """The tokens that texts of a model begin and end with. Without a model it is the first."""
    found = await _model(state, model, actor_of(request))
    tokenizer = found.tokenizer
    names = {token_id: text for text, token_id in tokenizer.special_ids.items()}
    ends = [names[token_id] for token_id in sorted(tokenizer.eos_ids) if token_id in names]
    return TokenizerInfo(
        model=found.name,
        bos_token=names.get(tokenizer.bos_id) if tokenizer.bos_id is not None else None,
        eos_token=ends[0] if ends else None,
        model_max_length=found.context_length,
    )


@router.post("/tokenize", response_model=None, responses={200: {"model": Tokenized}})
async def tokenize(body: TokenizeBody, request: Request, state: State) -> Response:
    """The tokens of a text or a conversation."""
    model = await _model(state, body.model, actor_of(request))
    if body.messages is not None:
        ids = (await ChatPrompt.of(ChatBody(messages=body.messages, tools=body.tools), model)).ids
    else:
        assert body.prompt is not None
        text = body.prompt
        ids = await asyncio.to_thread(_encode, model, text, marks=body.add_special_tokens)
    return Response(
        await asyncio.to_thread(_written, model, ids, body.return_token_strs), media_type="application/json"
    )


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, request: Request, state: State) -> Detokenized:
    """The text of tokens."""
    model = await _model(state, body.model, actor_of(request))
    if body.tokens:
        check_ids(body.tokens, model, param="tokens")
    return Detokenized(prompt=await asyncio.to_thread(model.tokenizer.decode, body.tokens))


async def _model(state: ServerState, name: str | None, actor: Actor) -> TextModel:
    state.check_open()
    return await state.model_called(name, actor) if name else state.models[0]


def _written(model: TextModel, ids: list[int], with_strings: bool) -> bytes:
    """The answer. Not on the event loop: a million tokens take it a second."""
    answer: dict[str, Any] = {"count": len(ids), "max_model_len": model.context_length, "tokens": ids}
    if with_strings:
        answer["token_strs"] = [model.token_label(token_id) for token_id in ids]
    return orjson.dumps(answer)


def _encode(model: TextModel, text: str, *, marks: bool) -> list[int]:
    if marks:
        return model.tokenizer.encode(text)
    control = model.tokenizer.special_ids.get(text)
    return [control] if control is not None else model.tokenizer.encode_prompts([[text]])[0]
