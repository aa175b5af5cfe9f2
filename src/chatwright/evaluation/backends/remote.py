"""Any OpenAI-compatible server: answers by /v1/completions or /v1/chat/completions, likelihoods where /v1/completions echoes
them.

Prompts are sent as text, so nothing but an address is needed. Where the continuation begins is found as everywhere else, by
how many tokens the context has alone: it goes along as a prompt of its own. The first token of a text has nothing before it
on most servers and so no probability: it, and its bytes, are left out of bits per byte, and sentences that are compared whole
are asked behind a line break.

What the server refuses as longer than the context is sent as token ids, in windows or without its beginning as our engine does
it, where the server tells the length of the context (`context_length` in /v1/models) and the ids (/v1/tokenize), as ours does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from chatwright.errors import EvaluationError
from chatwright.evaluation.backends.protocol import (
    Likelihood,
    TextScore,
    check_choice,
    room_for_prompt,
    split_context,
)
from chatwright.evaluation.backends.windows import windows
from chatwright.evaluation.examples import Prompt
from chatwright.evaluation.task import digest

_TRIES = 3
_WAIT_S = 0.5
_TIMEOUT = httpx2.Timeout(300.0, connect=10.0)
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
# Stands where a document begins with a token that the server does not put there.
_NO_TOKEN = -1
Tokens = list[tuple[str, float | None]]


class RemoteWriter:
    """A `Writer` behind an address such as http://127.0.0.1:8000/v1. Make it with `open`."""

    concurrency = 8
    chats = True  # the server says if it is not so

    def __init__(self, url: str, model: str, key: str | None, version: str = "") -> None:
        self.url, self.name = url.rstrip("/"), model
        self.room: int | None = None
        self.fingerprint = f"remote {digest([self.url, model, version])}"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.AsyncClient(headers=headers, timeout=_TIMEOUT)

    @classmethod
    async def open(cls, url: str, model: str, key: str | None) -> RemoteWriter:
        """Asks the server what it has, before anything is evaluated. Raises EvaluationError."""
        found = cls(url, model, key)
        try:
            listed = (await found._ask("GET", "/models")).get("data", [])
        except _StatusError as error:
            if error.status != 404:
                await found.close()
                raise
            listed = []
        except EvaluationError:
            await found.close()
            raise
        if not isinstance(listed, list):
            await found.close()
            raise found._strange()
        names = {str(each.get("id")): each for each in listed if isinstance(each, Mapping)}
        if names and model not in names:
            await found.close()
            raise EvaluationError(
                "{url} has no model {name}; it has {known}.", url=url, name=model, known=", ".join(sorted(names))[:300]
            )
        # A server that says when a model was made says so too when it is another one.
        told = names.get(model, {})
        found.fingerprint = f"remote {digest([found.url, model, told.get('created')])}"
        room = told.get("context_length")
        found.room = room if isinstance(room, int) and room > 1 else None
        return found

    async def likelihoods(self, prompt: Prompt, continuations: Sequence[str]) -> list[Likelihood]:
        """See Writer."""
        if prompt.messages:
            raise EvaluationError(
                "A choice in a chat needs the tokens of the chat template, which a server does not give away: evaluate the"
                " model itself, or take a task without chat = true."
            )
        pairs = [split_context(prompt.text, continuation) for continuation in continuations]
        context = pairs[0][0]
        after_break = not context
        context = context or "\n"
        try:
            alone, *scored = await self._echoed(
                [context, *(context + continuation for _context, continuation in pairs)]
            )
        except _TooLongError as error:
            return await self._cut_likelihoods(
                context, [context + each for _context, each in pairs], after_break, error
            )
        n_scored = (max(1, len(tokens) - len(alone)) for tokens in scored)
        return [self._likelihood(tokens, n, after_break) for tokens, n in zip(scored, n_scored, strict=True)]

    async def _cut_likelihoods(
        self, context: str, texts: Sequence[str], after_break: bool, refusal: _TooLongError
    ) -> list[Likelihood]:
        """The same where the context loses its beginning."""
        room = self._known_room(refusal)
        n_context = len(await self._ids(refusal, prompt=context))
        rows = []
        for text in texts:
            ids = await self._ids(refusal, prompt=text)
            n_cut, n_scored = max(0, len(ids) - room), max(1, len(ids) - n_context)
            check_choice(n_scored, len(ids) - n_cut, self.name, room)
            rows.append((ids[n_cut:], n_scored, n_cut))
        echoed = await self._echoed([ids for ids, _n_scored, _n_cut in rows], max_tokens=0)
        return [
            self._likelihood(tokens, n_scored, after_break, n_cut)
            for tokens, (_ids, n_scored, n_cut) in zip(echoed, rows, strict=True)
        ]

    def _likelihood(self, tokens: Tokens, n_scored: int, after_break: bool, n_cut: int = 0) -> Likelihood:
        own = [logprob for _piece, logprob in tokens[len(tokens) - n_scored :] if logprob is not None]
        if len(own) < n_scored:
            raise self._no_likelihoods()
        return Likelihood(math.fsum(own), n_scored, n_cut, after_break)

    async def score_text(self, text: str) -> TextScore:
        """See Writer."""
        try:
            (tokens,) = await self._echoed([text])
        except _TooLongError as error:
            tokens = await self._read_in_windows(text, error)
        scored = [(piece, logprob) for piece, logprob in tokens if logprob is not None]
        first = sum(len(piece.encode()) for piece, logprob in tokens if logprob is None)
        if not scored:
            raise self._no_likelihoods()
        return TextScore(-math.fsum(logprob for _piece, logprob in scored), len(text.encode()) - first, len(scored))

    async def _read_in_windows(self, text: str, refusal: _TooLongError) -> Tokens:
        """Every token once, in the windows that our engine reads: they begin as if the document's first token were there."""
        room = self._known_room(refusal)
        ids = await self._ids(refusal, prompt=text)
        begins = len(ids) > len(await self._ids(refusal, prompt=text, add_special_tokens=False))
        tokens: Tokens = []
        for window, n_scored in windows(ids if begins else [_NO_TOKEN, *ids], room):
            (echoed,) = await self._echoed([[each for each in window if each != _NO_TOKEN]], max_tokens=0)
            new = echoed[len(echoed) - n_scored :]
            if tokens and any(logprob is None for _piece, logprob in new):
                raise self._no_likelihoods()
            tokens += new
        return tokens

    async def answer(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> str:
        """See Writer."""
        body = {"max_tokens": max_tokens, "temperature": 0, "seed": 0, **_stops(stop)}
        try:
            if prompt.messages:
                given = {"model": self.name, **body, "messages": list(prompt.messages)}
                text = _field(await self._ask("POST", "/chat/completions", given), "choices", 0, "message", "content")
            else:
                text = await self._go_on({**body, "prompt": prompt.text})
        except _TooLongError as error:
            room = room_for_prompt(max_tokens, self.name, self._known_room(error))
            asked = {"messages": list(prompt.messages)} if prompt.messages else {"prompt": prompt.text}
            text = await self._go_on({**body, "prompt": (await self._ids(error, **asked))[-room:]})
        if text is None:
            text = ""  # an answer of no token
        if not isinstance(text, str):
            raise self._strange()
        cuts = [
            place for each in stop if (place := text.find(each)) >= 0
        ]  # of those beyond the four that the API takes
        return text[: min(cuts)] if cuts else text

    async def sample(self, text: str, max_tokens: int, seed: int) -> str:
        """See Writer."""
        body = {"max_tokens": max_tokens, "temperature": 1, "seed": seed}
        try:
            return await self._go_on({**body, "prompt": text})
        except _TooLongError as error:
            room = self._known_room(error)
            body["max_tokens"] = min(max_tokens, room - 1)
            ids = await self._ids(error, prompt=text)
            return await self._go_on({**body, "prompt": ids[-(room - body["max_tokens"]) :]})

    async def recite(self, text: str, n_given: int) -> tuple[str, str]:
        """See Writer. Where a token ends is not known here: the cut is moved back to a blank, where there is one."""
        place = text.rfind(" ", n_given // 2, n_given + 1)
        cut = place if place > 0 else n_given
        rest = text[cut:]
        body = {"prompt": text[:cut], "max_tokens": len(rest.encode()) * 3 // 4 + 2, "temperature": 0, "seed": 0}
        return await self._go_on(body), rest

    async def _go_on(self, body: Mapping[str, Any]) -> str:
        text = _field(await self._ask("POST", "/completions", {"model": self.name, **body}), "choices", 0, "text")
        if text is not None and not isinstance(text, str):
            raise self._strange()
        return text or ""

    async def close(self) -> None:
        """See Writer."""
        await self._client.aclose()

    def _known_room(self, refusal: _TooLongError) -> int:
        if self.room is None:
            raise refusal
        return self.room

    async def _ids(self, refusal: _TooLongError, **asked: Any) -> list[int]:
        """Token ids of a text or a conversation. Raises the refusal where the server does not tell them."""
        try:
            ids = (await self._ask("POST", "/tokenize", {"model": self.name, **asked})).get("tokens")
        except _StatusError as error:
            if error.status in (404, 405, 501):
                raise refusal from error
            raise
        if not isinstance(ids, list) or not all(isinstance(each, int) for each in ids):
            raise self._strange()
        return ids

    async def _echoed(self, prompts: Sequence[str | Sequence[int]], max_tokens: int = 1) -> list[Tokens]:
        """Tokens of each prompt with their log probabilities; what the server wrote behind the prompt is left out. Servers that
        answer without writing anything are rare, so one token is asked for where there is room.
        """
        body = {
            "model": self.name,
            "prompt": list(prompts),
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": 0,
            "logprobs": 1,
            "echo": True,
        }
        answer = await self._ask("POST", "/completions", body)
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != len(prompts):
            raise self._strange()
        try:
            choices = sorted(choices, key=lambda each: each.get("index", 0))
            told = [choice.get("logprobs") for choice in choices]
            if not all(isinstance(each, Mapping) and each.get("token_logprobs") for each in told):
                raise self._no_likelihoods()
            return [_tokens_of(prompt, each) for prompt, each in zip(prompts, told, strict=True)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._strange() from error

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        for attempt in range(1, _TRIES + 1):
            last = attempt == _TRIES
            try:
                response = await self._client.request(method, self.url + path, json=body)
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
                raise EvaluationError(
                    "{url} is no address of a server: write it as http://127.0.0.1:8000/v1.", url=self.url
                ) from error
            except httpx2.HTTPError as error:
                if last:
                    raise EvaluationError(
                        "{url} cannot be reached ({reason}). Start the server or correct --url; what was finished is kept, and the"
                        " same command with --out goes on from there.",
                        url=self.url,
                        reason=str(error) or type(error).__name__,
                    ) from error
            else:
                if response.status_code < 400:
                    try:
                        answer = response.json()
                    except ValueError as error:
                        raise self._strange() from error
                    if not isinstance(answer, dict):
                        raise self._strange()
                    return answer
                if _is_too_long(response):
                    raise _TooLongError(
                        response.status_code,
                        "{url} refuses what is longer than its model's context: {reason} Only where a server tells its tokens"
                        " (context_length in /v1/models, and /v1/tokenize) is it read in pieces, and a prompt cut, as everywhere"
                        " else. Take shorter texts or prompts, or evaluate the model itself, without --url.",
                        url=self.url + path,
                        reason=_reason(response),
                    )
                if last or response.status_code not in _TEMPORARY:
                    raise _StatusError(
                        response.status_code,
                        "{url} answers {status}: {reason}",
                        url=self.url + path,
                        status=response.status_code,
                        reason=_reason(response),
                    )
            await asyncio.sleep(_WAIT_S * 4 ** (attempt - 1))
        raise AssertionError("the last try returns or raises")

    def _no_likelihoods(self) -> EvaluationError:
        return EvaluationError(
            "{url} does not say how likely a given text is (echo with logprobs on /v1/completions), which tasks of kind choice,"
            " classify, perplexity and bias need, and canaries. Tasks of kind generate, instructions and toxicity work with any"
            " server.",
            url=self.url,
        )

    def _strange(self) -> EvaluationError:
        return EvaluationError("{url} answers with something that is not OpenAI's API.", url=self.url)


class _StatusError(EvaluationError):
    """An answer that is an error."""

    def __init__(self, http_status: int, template: str, **params: object) -> None:
        super().__init__(template, **params)
        self.status = http_status


class _TooLongError(_StatusError):
    """A refusal of what is longer than the context."""


def _stops(stop: Sequence[str]) -> dict[str, Any]:
    return {"stop": list(stop[:4])} if stop else {}


def _field(data: Any, *path: str | int) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _tokens_of(prompt: str | Sequence[int], told: Mapping[str, Any]) -> Tokens:
    """The tokens of a prompt and their log probabilities, of what /v1/completions says of one choice. Raises KeyError, TypeError,
    ValueError where that has another form than OpenAI's.
    """
    tokens: Tokens = []
    for piece, logprob in zip(told["tokens"], told["token_logprobs"], strict=True):
        if not isinstance(piece, str) or not isinstance(logprob, float | int | None):
            raise TypeError(f"{piece!r} has the log probability {logprob!r}")
        tokens.append((piece, logprob))
    if not isinstance(prompt, str):
        if len(tokens) < len(prompt):
            raise ValueError(f"{len(tokens)} tokens of {len(prompt)} came back")
        return tokens[: len(prompt)]
    offsets = told.get("text_offset")
    if offsets and len(offsets) == len(tokens):
        return [token for token, offset in zip(tokens, offsets, strict=True) if offset < len(prompt)]
    return tokens[:-1]


def _is_too_long(response: httpx2.Response) -> bool:
    """OpenAI's code, which is ours, or the words of servers that have none, such as vLLM."""
    if response.status_code != 400:
        return False
    try:
        code = response.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        code = None
    return code == "context_length_exceeded" or "context length" in _reason(response)


def _reason(response: httpx2.Response) -> str:
    try:
        return str(response.json()["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or response.reason_phrase
