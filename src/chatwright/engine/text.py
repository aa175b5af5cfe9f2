"""Text above any engine: prompts and chats become token ids, token events become text, stop strings end it.

Every caller (the server, the terminal chat, evaluation) goes through `TextModel`, so that all see the same text for the same
tokens, streamed or not.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from chatwright.engine.protocol import (
    Engine,
    FinishEvent,
    GenerateRequest,
    Grammar,
    PromptEvent,
    SamplingParams,
    TokenEvent,
    TokenLogprobs,
)
from chatwright.engine.stopping import StopMatcher
from chatwright.engine.tool_format import Tool, ToolFormat, as_chat, tool_format_of
from chatwright.errors import EngineError, InvalidRequestError, OverloadedError
from chatwright.tokenizer.chat import ChatTemplate, encode_chat
from chatwright.tokenizer.fim import FimTokens
from chatwright.tokenizer.stream import StreamDecoder
from chatwright.tokenizer.tokenizer import Tokenizer

# Texts of one call of `embed` that are in the engine at the same time: they fill batches, and leave others room in the queue.
TEXTS_AT_ONCE = 32
FULL_QUEUE_PAUSE_S = 0.05

# Entered with the tokens of texts before anything is computed of them; who may not have so many, raises.
Admission = Callable[[int], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have stood here: its text on its own, its exact bytes, its log probability."""

    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token with the text it completed. The texts of all tokens of a choice make up its text: a token that ends inside a
    character has the text "", and the one that completes the character has it whole."""

    id: int
    text: str
    bytes: bytes
    logprob: float | None = None
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptText:
    """The scored prompt, before any delta; only when `TextRequest.prompt_logprobs` asks for it."""

    tokens: tuple[TokenText, ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Choice `index` goes on with `text`, made of `tokens`."""

    index: int
    text: str
    tokens: tuple[TokenText, ...]


@dataclass(frozen=True, slots=True)
class TextFinish:
    """Choice `index` is over. "stop": end token, stop string or complete grammar; "length": max_tokens; "abort": from outside;
    "content_filter": by the request's `watch`.

    `n_tokens` counts the tokens whose text was delivered: neither an end token nor what a stop string or a watch cut off.
    `end_token` is the end token, if one came; its text is "". `reused_tokens`: tokens of the prompt that the engine had in its
    cache. `stop`: the stop string that ended it, if one did.
    """

    index: int
    reason: Literal["stop", "length", "abort", "content_filter"]
    n_tokens: int
    end_token: TokenText | None = None
    reused_tokens: int = 0
    stop: str | None = None


TextEvent = PromptText | TextDelta | TextFinish


class Watch(Protocol):
    """Looks at the text of a choice before it goes out: see `moderation.watch.TextWatch.look`."""

    def look(self, piece: str, *, is_last: bool = False) -> Literal["send", "hold", "end"]: ...


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A prompt in token ids (`TextModel.encode…` makes them) and how to continue it.

    `sampling.stop_ids` is filled with the model's end tokens. `owner`: on whose behalf (see `GenerateRequest`).
    `watch`: makes what looks at each choice.
    """

    prompt_ids: Sequence[int]
    sampling: SamplingParams
    stop: Sequence[str] = ()
    n: int = 1
    prompt_logprobs: int | None = None
    owner: str = ""
    grammar: Grammar | None = None
    watch: Callable[[], Watch] | None = None


class TextTokenizer(Protocol):
    """What a model of text needs of its tokenizer: `tokenizer.Tokenizer`, or `EncoderTokenizer` for one that only embeds."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_ids(self) -> frozenset[int]: ...
    @property
    def special_ids(self) -> Mapping[str, int]: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_prompts(self, prompts: Iterable[Iterable[str | int]]) -> list[list[int]]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def stream(self, *, continuing: bool = False) -> StreamDecoder: ...
    def token_bytes(self, token_id: int) -> bytes: ...
    def min_tokens_lower_bound(self, text: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector for each text, and how many tokens the texts had together."""

    vectors: tuple[list[float], ...]
    n_tokens: int


def admit_all(n_tokens: int) -> AbstractAsyncContextManager[None]:
    """An Admission that refuses nothing."""
    return nullcontext()


class TextModel:
    """A model ready to talk: an engine with its tokenizer and chat template.

    adapter: the name of the engine's adapter that answers, or None for the model as it is.
    fim: the control tokens of fill-in-the-middle, for a model that was trained with them. writes_text: whether it does more than
    embed or label. embeds: whether its vectors are of any use. labels: those that it gives texts. takes_instructions: whether a
    plain prompt is what a user says, and not a text to be continued. vector_width: how many numbers its vectors have.
    """

    writes_text = True
    embeds = True
    labels: tuple[str, ...] = ()
    takes_instructions = False

    def __init__(
        self,
        name: str,
        engine: Engine,
        tokenizer: TextTokenizer,
        template: ChatTemplate | None,
        *,
        languages: tuple[str, ...] = (),
        created: int = 0,
        fingerprint: str = "",
        fim: FimTokens | None = None,
        adapter: str | None = None,
        vector_width: int = 0,
    ) -> None:
        self.name = name
        self.engine = engine
        self.tokenizer = tokenizer
        self.template = template
        self.languages = languages
        self.created = created
        self.fingerprint = fingerprint
        self.fim = fim
        self.adapter = adapter
        self.vector_width = vector_width
        self._tool_format: ToolFormat | None = None
        self._end_ids = tokenizer.eos_ids | (fim.all if fim else frozenset())

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer can have together."""
        return self.engine.max_context

    async def encode(self, text: str) -> list[int]:
        """Token ids of a plain prompt, off the event loop. Special-token text in it is ordinary text."""
        self._refuse_hopeless([text], "prompt")
        return await asyncio.to_thread(self.tokenizer.encode, text)

    async def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Tool] = (),
        tool_format: ToolFormat | None = None,
        instruction: str = "",
    ) -> list[int]:
        """Token ids of a conversation in the model's chat template, ready for the assistant's turn.

        tools: what the model may call. tool_format: how it is told, and how calls and results among the messages are written;
        `tool_format()` unless given. instruction: what else it has to know, at the end of the system message.
        """
        template = self._chat_template()
        assert isinstance(self.tokenizer, Tokenizer), "no other has a template"
        texts = [str(message.get("content") or "") for message in messages]
        self._refuse_hopeless([*texts, instruction, *(str(tool.schema()) for tool in tools)], "messages")
        if tool_format is None and any(message.get("tool_calls") or message["role"] == "tool" for message in messages):
            tool_format = await self.tool_format()
        if tools or instruction or tool_format:
            chat, listed = as_chat(messages, tools, tool_format or await self.tool_format(), instruction)
            return await asyncio.to_thread(encode_chat, self.tokenizer, template, chat, tools=listed)
        return await asyncio.to_thread(encode_chat, self.tokenizer, template, messages)

    async def tool_format(self) -> ToolFormat:
        """How the model is told of tools and writes its calls; found out at the first use, off the event loop."""
        if self._tool_format is None:
            self._tool_format = await asyncio.to_thread(tool_format_of, self._chat_template())
        return self._tool_format

    def _chat_template(self) -> ChatTemplate:
        if self.template is None:
            raise InvalidRequestError(
                "The model {name} has no chat template: it is a base model, which continues text. Use /v1/completions.",
                name=self.name,
                param="model",
                code="unsupported_model",
            )
        return self.template

    async def encode_between(self, prompt: str | Sequence[int], suffix: str) -> list[int]:
        """Token ids of a prompt that asks for what stands between `prompt` (text, or ids of text) and `suffix`."""
        if self.fim is None:
            raise InvalidRequestError(
                "The model {name} was not trained to fill in what stands before a suffix. Leave suffix out, or train a model "
                "with `chatwright train --fim 0.5`.",
                name=self.name,
                param="suffix",
                code="unsupported_parameter",
            )
        texts = [prompt, suffix] if isinstance(prompt, str) else [suffix]
        self._refuse_hopeless(texts, "suffix")
        # As in training, without the BOS that some tokenizers put before a text.
        encoded = await asyncio.to_thread(self.tokenizer.encode_prompts, [[text] for text in texts])
        before = encoded[0] if isinstance(prompt, str) else prompt
        return self.fim.prompt(before, encoded[-1])

    async def embed(
        self,
        inputs: Sequence[str | Sequence[int]],
        *,
        max_tokens: int | None = None,
        admitted: Admission = admit_all,
    ) -> Embeddings:
        """Vectors of texts, or of texts in token ids (see `Engine.embed`), those of an encoder in batches. `admitted`: entered with
        the number of tokens before anything is computed. Raises InvalidRequestError for a text that is too long, nothing is ever
        cut, and for more than `max_tokens` together; what `admitted` raises."""
        return await self._embedded(inputs, max_tokens, admitted)

    async def _embedded(
        self, inputs: Sequence[str | Sequence[int]], max_tokens: int | None, admitted: Admission
    ) -> Embeddings:
        """What the engine makes of each text."""
        prompts = await self._embedding_ids(inputs)
        n_tokens = sum(map(len, prompts))
        if max_tokens is not None and n_tokens > max_tokens:
            raise InvalidRequestError(
                "The inputs have {n} tokens together, and one request may have {limit}. Send them in several.",
                n=n_tokens,
                limit=max_tokens,
                param="input",
                code="invalid_value",
            )
        places = asyncio.Semaphore(TEXTS_AT_ONCE)

        async def embed_one(number: int, ids: Sequence[int]) -> list[float]:
            async with places:
                while True:
                    try:
                        return await self.engine.embed(ids)
                    except OverloadedError:
                        # The first text stands for all: without room for it they are refused, later ones wait.
                        if number == 0:
                            raise
                        await asyncio.sleep(FULL_QUEUE_PAUSE_S)

        async with admitted(n_tokens):
            tasks = [asyncio.create_task(embed_one(number, ids)) for number, ids in enumerate(prompts)]
            try:
                vectors = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return Embeddings(tuple(vectors), n_tokens)

    async def _embedding_ids(self, inputs: Sequence[str | Sequence[int]]) -> list[list[int]]:
        """Token ids of each, checked."""
        texts = [text for text in inputs if isinstance(text, str)]
        for text in texts:
            self._refuse_hopeless([text], "input")
        encoded = iter(await asyncio.to_thread(lambda: [self.tokenizer.encode(text) for text in texts]))
        prompts = [next(encoded) if isinstance(given, str) else self._as_encoded(given) for given in inputs]
        for prompt in prompts:
            self.check_length(len(prompt), 0, param="input")
        return prompts

    def _as_encoded(self, ids: Sequence[int]) -> list[int]:
        """Ids of a text as `encode` would give them."""
        return list(ids)

    def max_tokens_left(self, n_prompt: int) -> int:
        """The longest answer that still fits after a prompt of `n_prompt` tokens."""
        return self.context_length - n_prompt

    def check_length(self, n_prompt: int, max_tokens: int, *, param: str) -> None:
        """Raise InvalidRequestError (context_length_exceeded) where prompt and answer do not fit. Nothing is ever cut.

        The sentence is OpenAI's: code of the 0.28 era parses its numbers.
        """
        if n_prompt + max_tokens > self.context_length:
            raise InvalidRequestError(
                "This model's maximum context length is {limit} tokens, however you requested {total} tokens "
                "({prompt} in your prompt; {completion} for the completion). Please reduce your prompt; or completion length.",
                limit=self.context_length,
                total=n_prompt + max_tokens,
                prompt=n_prompt,
                completion=max_tokens,
                param=param,
                code="context_length_exceeded",
            )

    async def generate(self, request: TextRequest) -> AsyncGenerator[TextEvent, None]:
        """Text events of all choices as they come. Closing the iterator aborts what still runs.

        Raises OverloadedError, EngineError, InvalidRequestError for a grammar that cannot be used, or not to the end.
        """
        engine_request = GenerateRequest(
            # Made here and nowhere else: an id that a client could choose would let it end another client's request.
            id=uuid.uuid4().hex,
            prompt_ids=request.prompt_ids,
            sampling=replace(request.sampling, stop_ids=request.sampling.stop_ids | self._end_ids),
            n=request.n,
            prompt_logprobs=request.prompt_logprobs,
            owner=request.owner,
            adapter=self.adapter,
            grammar=request.grammar,
        )
        choices = [
            _Choice(self.tokenizer, index, request.stop, request.watch() if request.watch else None)
            for index in range(request.n)
        ]
        prompt_tokens: list[TokenText] = []
        prompt_decoder = self.tokenizer.stream()
        async with aclosing(self.engine.generate(engine_request)) as events:
            async for event in events:
                if isinstance(event, PromptEvent):
                    ids = request.prompt_ids[event.start : event.start + len(event.scores)]
                    for token_id, scores in zip(ids, event.scores, strict=True):
                        prompt_tokens.append(self._token_text(token_id, prompt_decoder.push(token_id), scores))
                    if len(prompt_tokens) == len(request.prompt_ids):
                        yield PromptText(tuple(prompt_tokens))
                    continue
                choice = choices[event.index]
                if choice.stopped:
                    # The engine's own end of it, a step later at most, knows what came from the cache.
                    if isinstance(event, FinishEvent):
                        yield TextFinish(
                            event.index,
                            "content_filter" if choice.is_filtered else "stop",
                            choice.n_tokens,
                            reused_tokens=event.reused_tokens,
                            stop=choice.matcher.found,
                        )
                    continue
                if isinstance(event, TokenEvent):
                    text_token = self._token_text(event.token_id, choice.decoder.push(event.token_id), event.scores)
                    delta = choice.push(text_token)
                    for shown in choice.shown(delta, is_last=choice.stopped):
                        yield shown
                    if choice.stopped:
                        self.engine.abort(engine_request.id, event.index)
                else:
                    if event.reason == "error":
                        raise EngineError("The engine failed in the middle of an answer: {reason}.", reason=event.error)
                    if event.reason == "grammar":
                        raise InvalidRequestError(
                            "The answer cannot go on in the form that was asked for: {reason}. Ask for a simpler one.",
                            reason=event.error,
                            code="invalid_grammar",
                        )
                    for shown in choice.shown(choice.flush(), is_last=True):
                        yield shown
                    end = event.stop_token
                    end_token = self._token_text(end.token_id, "", end.scores) if end else None
                    reason = "content_filter" if choice.is_filtered else event.reason
                    yield TextFinish(event.index, reason, choice.n_tokens, end_token, event.reused_tokens)

    async def close(self) -> None:
        """Stop the engine."""
        await self.engine.close()

    def _token_text(self, token_id: int, text: str, scores: TokenLogprobs | None) -> TokenText:
        exact = self.tokenizer.token_bytes(token_id)
        if scores is None:
            return TokenText(token_id, text, exact)
        return TokenText(token_id, text, exact, scores.logprob, tuple(self._alternative(i, lp) for i, lp in scores.top))

    def _alternative(self, token_id: int, logprob: float) -> Alternative:
        exact = self.tokenizer.token_bytes(token_id)
        return Alternative(self.token_label(token_id), exact, logprob)

    def token_label(self, token_id: int) -> str:
        """A token's text on its own: "bytes:\\xe4\\xbd" where it is no complete text (OpenAI's notation), the name of a
        control token."""
        exact = self.tokenizer.token_bytes(token_id)
        if not exact:
            return self._control_names().get(token_id, "")
        try:
            return exact.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in exact)

    def _control_names(self) -> dict[int, str]:
        return {token_id: name for name, token_id in self.tokenizer.special_ids.items()}

    def _refuse_hopeless(self, texts: Sequence[str], param: str) -> None:
        """Refuse text that certainly does not fit, without tokenising megabytes of it."""
        n_least = sum(self.tokenizer.min_tokens_lower_bound(text) for text in texts)
        self.check_length(n_least, 0, param=param)


class _Choice:
    """The text of one choice as it grows: tokens wait until their text is safe from stop strings."""

    def __init__(self, tokenizer: TextTokenizer, index: int, stop: Sequence[str], watch: Watch | None = None) -> None:
        self.index = index
        self.watch = watch
        self.held: list[TextDelta] = []
        self.is_filtered = False
        self.decoder = tokenizer.stream(continuing=True)
        self.matcher = StopMatcher(stop)
        self.pending: list[TokenText] = []
        self.n_delivered = 0  # characters
        self.n_tokens = 0
        self.stopped = False

    def push(self, token: TokenText) -> TextDelta | None:
        """Add a token; what can be shown now, in whole tokens, except that a stop string may cut the last one."""
        self.pending.append(token)
        n_safe, self.stopped = self.matcher.push(token.text)
        ready: list[TokenText] = []
        n_chars = self.n_delivered
        while self.pending and n_chars + len(self.pending[0].text) <= n_safe:
            ready.append(self.pending.pop(0))
            n_chars += len(ready[-1].text)
        if self.stopped:
            # Tokens without text of their own before the stop string belong to the character that it cut off.
            while ready and not ready[-1].text:
                ready.pop()
            if n_chars < n_safe:
                text = self.pending[0].text[: n_safe - n_chars]
                ready.append(replace(self.pending[0], text=text, bytes=text.encode()))
            self.pending.clear()
        elif not any(token.text for token in ready):
            # An incomplete character: wait for the rest, so that every delta has text.
            self.pending = ready + self.pending
            return None
        return self._deliver(ready)

    def flush(self) -> TextDelta | None:
        """The end: what was held back for a stop string that never came."""
        ready, self.pending = self.pending, []
        if ready and (tail := self.decoder.flush()):
            ready[-1] = replace(ready[-1], text=ready[-1].text + tail)
        return self._deliver(ready)

    def shown(self, delta: TextDelta | None, *, is_last: bool) -> Sequence[TextDelta]:
        """What may go out when the choice goes on with `delta`; where the watch ends it, it is stopped."""
        if self.watch is None:
            return () if delta is None else (delta,)
        if delta is not None:
            self.held.append(delta)
        elif not is_last:
            return ()
        look = self.watch.look("" if delta is None else delta.text, is_last=is_last)
        if look == "hold":
            return ()
        held, self.held = self.held, []
        if look == "send":
            return held
        self.is_filtered = self.stopped = True
        self.n_tokens -= sum(len(other.tokens) for other in held)
        return ()

    def _deliver(self, tokens: list[TokenText]) -> TextDelta | None:
        if not tokens:
            return None
        text = "".join(token.text for token in tokens)
        self.n_delivered += len(text)
        self.n_tokens += len(tokens)
        return TextDelta(self.index, text, tuple(tokens))


def random_seed() -> int:
    """A seed for a request that names none."""
    return random.SystemRandom().getrandbits(63)
