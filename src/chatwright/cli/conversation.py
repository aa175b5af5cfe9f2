"""A conversation kept in memory: its messages, how answers are sampled, and the next answer as a stream of text."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, fields
from typing import Any

from chatwright.cli.complete import sampling_params
from chatwright.cli.output import number
from chatwright.engine.text import TextDelta, TextFinish, TextModel, TextRequest
from chatwright.errors import UsageError


@dataclass
class Sampling:
    """What /set changes. `max_tokens` None: as much as the context holds.

    Temperature and top_p are what the default model's card recommends.
    """

    temperature: float = 0.2
    top_p: float = 0.9
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None
    seed: int | None = None


# name → (least, most, whole number)
_RANGES: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, 2, False),
    "top_p": (0, 1, False),
    "top_k": (0, 1_000_000, True),
    "repetition_penalty": (0.1, 10, False),
    "max_tokens": (1, 1_000_000, True),
    "seed": (-(2**63), 2**63 - 1, True),
}


class Conversation:
    """Messages in the OpenAI form. An answer that was stopped stays, as far as it came."""

    def __init__(self, model: TextModel, system: str | None = None) -> None:
        self.model = model
        self.system = system
        self.turns: list[dict[str, str]] = []
        self.sampling = Sampling()
        self.finish_reason = ""

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the model sees."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + self.turns

    def set(self, name: str, value: str) -> None:
        """Change how answers are sampled; the value `default` takes the change back. Raises UsageError."""
        if name not in _RANGES:
            raise UsageError("There is no {name} to set: choose one of {names}.", name=name, names=", ".join(_RANGES))
        if value == "default":
            setattr(self.sampling, name, getattr(Sampling(), name))
            return
        least, most, whole = _RANGES[name]
        setattr(self.sampling, name, number(value, name, least=least, most=most, whole=whole))

    def settings(self) -> dict[str, Any]:
        """The sampling as it is."""
        return asdict(self.sampling)

    def forget_answer(self) -> bool:
        """Take back the last answer, so that `answer` gives another one; False when there is nothing to answer."""
        if self.turns and self.turns[-1]["role"] == "assistant":
            self.turns.pop()
        return bool(self.turns)

    def say(self, text: str) -> None:
        """The user's next message."""
        self.turns.append({"role": "user", "content": text})

    async def answer(self) -> AsyncGenerator[str, None]:
        """The model's answer to the messages, piece by piece; kept as a message also when it is broken off.

        Raises InvalidRequestError when the conversation has outgrown the context; the user's message is taken back then.
        """
        try:
            prompt_ids = await self.model.encode_chat(self.messages)
            room = self.model.max_tokens_left(len(prompt_ids))
            self.model.check_length(len(prompt_ids), 1, param="messages")
        except BaseException:
            self.turns.pop()
            raise
        options = {f.name: getattr(self.sampling, f.name) for f in fields(Sampling) if f.name != "max_tokens"}
        max_tokens = min(room, self.sampling.max_tokens or room)
        request = TextRequest(prompt_ids, sampling_params(max_tokens, options))
        pieces: list[str] = []
        self.finish_reason = "abort"
        try:
            async with aclosing(self.model.generate(request)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        pieces.append(event.text)
                        yield event.text
                    elif isinstance(event, TextFinish):
                        self.finish_reason = event.reason
        finally:
            self.turns.append({"role": "assistant", "content": "".join(pieces)})
