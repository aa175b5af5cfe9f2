"""Any OpenAI-compatible server: answers by /v1/completions or /v1/chat/completions, likelihoods where /v1/completions echoes
them.

Prompts are sent as text, so nothing but an address is needed. Where the continuation begins is found as everywhere else, by
how many tokens the context has alone: it goes along as a prompt of its own. The first token of a text has nothing before it
on most servers and so no probability: it, and its bytes, are left out of bits per byte, and sentences that are compared whole
are asked behind a line break.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from chatwright.errors import EvaluationError
from chatwright.evaluation.backends.protocol import Likelihood, TextScore, split_context
from chatwright.evaluation.examples import Prompt
from chatwright.evaluation.task import digest

_TRIES = 3
_WAIT_S = 0.5
_TIMEOUT = httpx2.Timeout(300.0, connect=10.0)
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})


class RemoteWriter:
    """A `Writer` behind an address such as http://127.0.0.1:8000/v1. Make it with `open`."""

    concurrency = 8
    chats = True  # the server says if it is not so
    room = None  # as it does here

    def __init__(self, url: str, model: str, key: str | None, version: str = "") -> None:
        self.url, self.name = url.rstrip("/"), model
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
        names = {str(each.get("id")): each for each in listed if isinstance(each, Mapping)}
        if names and model not in names:
            await found.close()
            raise EvaluationError(
                "{url} has no model {name}; it has {known}.", url=url, name=model, known=", ".join(sorted(names))[:300]
            )
        # A server that says when a model was made says so too when it is another one.
        found.fingerprint = f"remote {digest([found.url, model, names.get(model, {}).get('created')])}"
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
        scored = await self._echo([context, *(context + continuation for _context, continuation in pairs)])
        n_context = len(scored[0])
        found = []
        for logprobs in scored[1:]:
            own = logprobs[min(n_context, len(logprobs) - 1) :]
            if any(each is None for each in own):
                raise self._no_likelihoods()
            logprob = math.fsum(each for each in own if each is not None)
            found.append(Likelihood(logprob, len(own), after_break=after_break))
        return found

    async def score_text(self, text: str) -> TextScore:
        """See Writer."""
        (tokens,) = await self._echoed([text])
        scored = [(piece, logprob) for piece, logprob in tokens if logprob is not None]
        first = sum(len(piece.encode()) for piece, logprob in tokens if logprob is None)
        if not scored:
            raise self._no_likelihoods()
        return TextScore(-math.fsum(logprob for _piece, logprob in scored), len(text.encode()) - first, len(scored))

    async def answer(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> str:
        """See Writer."""
        body: dict[str, Any] = {"model": self.name, "max_tokens": max_tokens, "temperature": 0, "seed": 0}
        if prompt.messages:
            answer = await self._ask(
                "POST", "/chat/completions", {**body, "messages": list(prompt.messages), **_stops(stop)}
            )
            text = _field(answer, "choices", 0, "message", "content")
        else:
            answer = await self._ask("POST", "/completions", {**body, "prompt": prompt.text, **_stops(stop)})
            text = _field(answer, "choices", 0, "text")
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
        return await self._go_on({"prompt": text, "max_tokens": max_tokens, "temperature": 1, "seed": seed})

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

    async def _echo(self, prompts: Sequence[str]) -> list[list[float | None]]:
        return [[logprob for _piece, logprob in tokens] for tokens in await self._echoed(prompts)]

    async def _echoed(self, prompts: Sequence[str]) -> list[list[tuple[str, float | None]]]:
        """Tokens of each prompt with their log probabilities; what the server wrote behind the prompt is left out."""
        body = {
            "model": self.name,
            "prompt": list(prompts),
            "max_tokens": 1,
            "temperature": 0,
            "seed": 0,
            "logprobs": 1,
            "echo": True,
        }
        answer = await self._ask("POST", "/completions", body)
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != len(prompts):
            raise self._strange()
        found = []
        for prompt, choice in zip(prompts, sorted(choices, key=lambda each: each.get("index", 0)), strict=True):
            told = choice.get("logprobs")
            if not isinstance(told, Mapping) or not told.get("token_logprobs"):
                raise self._no_likelihoods()
            tokens = list(zip(told["tokens"], told["token_logprobs"], strict=True))
            offsets = told.get("text_offset")
            if offsets and len(offsets) == len(tokens):
                tokens = [token for token, offset in zip(tokens, offsets, strict=True) if offset < len(prompt)]
            else:
                tokens = tokens[:-1]
            found.append(tokens)
        return found

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


def _stops(stop: Sequence[str]) -> dict[str, Any]:
    return {"stop": list(stop[:4])} if stop else {}


def _field(data: Any, *path: str | int) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _reason(response: httpx2.Response) -> str:
    try:
        return str(response.json()["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or response.reason_phrase
