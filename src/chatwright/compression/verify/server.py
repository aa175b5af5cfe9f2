"""A server with OpenAI's API, ours or another's: of its answers, the likeliest tokens and their log probabilities."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from chatwright.compression.verify.side import Answered, Message, Token
from chatwright.errors import EngineError, UsageError

TOP = 5


class ServerSide:
    """`url`: the API's base, with or without /v1; a model may be named behind a #, else the first that the server lists."""

    def __init__(self, label: str, url: str) -> None:
        import openai

        base, _, model = url.partition("#")
        base = base.rstrip("/")
        self.label = label
        self._client: Any = openai.OpenAI(
            base_url=base if base.endswith("/v1") else f"{base}/v1",
            api_key=os.environ.get("OPENAI_API_KEY", "none"),
            max_retries=0,
            timeout=300,
        )
        self._model = model or self._first_model()

    def _first_model(self) -> str:
        models = self._ask(self._client.models.list).data
        if not models:
            raise UsageError("{url} serves no model.", url=self.label)
        return str(models[0].id)

    def _ask(self, call: Any, **options: Any) -> Any:
        import openai

        try:
            return call(**options)
        except openai.APIConnectionError as error:
            raise EngineError("{url} does not answer: {reason}", url=self.label, reason=error) from error
        except openai.APIStatusError as error:
            raise EngineError(
                "{url} refused what it was asked: {reason}", url=self.label, reason=error.message[:200]
            ) from error

    def complete(self, text: str, n: int) -> Answered:
        """See AnswerSide. With `echo` the prompt's tokens come too; a server that refuses that tells their number alone."""
        options = {"model": self._model, "prompt": text, "max_tokens": n, "temperature": 0, "logprobs": TOP}
        try:
            answer = self._ask(self._client.completions.create, echo=True, **options)
            echoed = True
        except EngineError:
            answer = self._ask(self._client.completions.create, **options)
            echoed = False
        tokens = _tokens(answer.choices[0].logprobs)
        n_prompt = answer.usage.prompt_tokens if answer.usage else None
        n_echoed = n_prompt if echoed and n_prompt is not None else 0
        return Answered(n_prompt, tokens[:n_echoed], tokens[n_echoed:])

    def chat(self, messages: Sequence[Message], n: int) -> Answered:
        """See AnswerSide."""
        answer = self._ask(
            self._client.chat.completions.create,
            model=self._model,
            messages=[dict(message) for message in messages],
            max_tokens=n,
            temperature=0,
            logprobs=True,
            top_logprobs=TOP,
        )
        entries = (answer.choices[0].logprobs.content or []) if answer.choices[0].logprobs else []
        tokens = tuple(
            Token.told(entry.token, entry.logprob, [(top.token, top.logprob) for top in entry.top_logprobs])
            for entry in entries
        )
        return Answered(answer.usage.prompt_tokens if answer.usage else None, (), tokens)

    def close(self) -> None:
        """See AnswerSide."""
        self._client.close()


def _tokens(logprobs: Any) -> tuple[Token, ...]:
    if logprobs is None:
        return ()
    tops: Sequence[Mapping[str, float] | None] = logprobs.top_logprobs or [None] * len(logprobs.tokens)
    rows = zip(logprobs.tokens, logprobs.token_logprobs, tops, strict=True)
    return tuple(Token.told(text, logprob, (top or {}).items()) for text, logprob, top in rows)
