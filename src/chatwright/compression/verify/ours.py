"""Our own decoder on PyTorch, and our engine with whatever runs it (the compiled kernels, where they are)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from chatwright.compression.source import Source
from chatwright.compression.verify.side import Logits, Message, Precision
from chatwright.engine.load import load_text_model
from chatwright.engine.protocol import GenerateRequest, PromptEvent, SamplingParams, TokenEvent
from chatwright.engine.tokenizers import load_text_side
from chatwright.evaluation.generate import generate_answers
from chatwright.model.checkpoint import GGUFCheckpoint
from chatwright.model.gpt import GPT
from chatwright.settings import Settings
from chatwright.tokenizer.chat import encode_chat

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TextSide:
    """Tokenizer and template of our own, of a model at a path."""

    def __init__(self, path: Path, adapter: Path | None = None) -> None:
        self.source = Source.open(path, adapter)
        self.tokenizer, self.template = load_text_side(path)
        if adapter is not None and self.source.template is not None:
            self.template = self.source.template

    @property
    def vocab_size(self) -> int:
        """See Side."""
        return self.source.config.vocab_size

    @property
    def context_length(self) -> int:
        """See Side."""
        return self.source.config.context_length

    @property
    def has_template(self) -> bool:
        """See Side."""
        return self.template is not None

    def pieces(self) -> list[bytes]:
        """See Side."""
        control = {i: text.encode() for text, i in self.tokenizer.special_ids.items()}
        return [control.get(i) or self.tokenizer.token_bytes(i) for i in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        """See Side."""
        return self.tokenizer.encode(text)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """See Side."""
        assert self.template is not None
        return encode_chat(self.tokenizer, self.template, messages)

    def close(self) -> None:
        """See Side."""
        if self.template is not None:
            self.template.close()


class TorchSide(TextSide):
    """The decoder as training sees it: all tokens at once, in one precision."""

    normalised = False

    def __init__(self, label: str, path: Path, precision: Precision = "fp32", adapter: Path | None = None) -> None:
        super().__init__(path, adapter)
        self.label, self.precision = label, precision
        self.model: GPT = self.source.model(DTYPES[precision])

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> Logits:
        """See Side."""
        found: Logits = self.model(torch.tensor([list(ids)]))[0].float().numpy()
        return found

    def greedy(self, ids: Sequence[int], n: int) -> list[int]:
        """See Side."""
        [answer] = generate_answers(self.model, [list(ids)], max_tokens=n)
        return list(answer.ids)


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    # Whoever compares two forms of a model has no use for what the engine says as it starts.
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class EngineSide(TextSide):
    """The engine of `serve` in this process. It reports log probabilities."""

    normalised = True

    def __init__(self, label: str, path: Path, settings: Settings, adapter: Path | None = None) -> None:
        super().__init__(path, adapter)
        self.label = label
        self._loop = asyncio.new_event_loop()
        with _silent(logging.getLogger("chatwright.engine")):
            self._model = load_text_model(path, label, settings, adapter)
        self._adapter = self._model.adapter
        kind = settings.quantization
        quantised = isinstance(self.source.checkpoint, GGUFCheckpoint) and self.source.info.quantization.startswith("Q")
        declared: dict[str, Precision] = {
            "fp32": "fp32",
            "bf16": "bf16",
            "fp16": "fp16",
            "int8": "int8",
            "int4": "int4",
        }
        # whatever "auto" takes, activations are of eight bits beside quantised weights
        self.precision: Precision = declared.get(kind, "int8" if quantised else "fp32")
        self._n = 0

    def _request(self, ids: Sequence[int], sampling: SamplingParams, scores: int | None) -> GenerateRequest:
        self._n += 1
        return GenerateRequest(str(self._n), list(ids), sampling, prompt_logprobs=scores, adapter=self._adapter)

    def logits(self, ids: Sequence[int]) -> Logits:
        """See Side. Token by token as answers are made: the scores at each place name the whole vocabulary."""
        rows = np.full((len(ids), self.vocab_size), -np.inf, np.float32)

        async def collect() -> None:
            sampling = SamplingParams(max_tokens=1, temperature=0.0, logprobs=self.vocab_size)
            async for event in self._model.engine.generate(self._request(ids, sampling, self.vocab_size)):
                if isinstance(event, PromptEvent):
                    for place, scores in enumerate(event.scores, event.start):
                        if scores is not None:
                            _fill(rows[place - 1], scores.top)
                if isinstance(event, TokenEvent) and event.scores is not None:
                    _fill(rows[-1], event.scores.top)

        self._loop.run_until_complete(collect())
        return rows

    def greedy(self, ids: Sequence[int], n: int) -> list[int]:
        """See Side."""
        found: list[int] = []

        async def collect() -> None:
            async for event in self._model.engine.generate(
                self._request(ids, SamplingParams(max_tokens=n, temperature=0.0), None)
            ):
                if isinstance(event, TokenEvent):
                    found.append(event.token_id)

        self._loop.run_until_complete(collect())
        return found

    def close(self) -> None:
        """See Side."""
        self._loop.run_until_complete(self._model.close())
        self._loop.close()
        super().close()


def _fill(row: Logits, top: Sequence[tuple[int, float]]) -> None:
    ids, values = zip(*top, strict=True)
    row[list(ids)] = values


def with_quantization(settings: Settings, quantization: str | None) -> Settings:
    """The user's settings, for an engine with other weights."""
    return settings if quantization is None else settings.model_copy(update={"quantization": quantization})
