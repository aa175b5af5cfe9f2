"""What the tests of tuning share: a tiny model folder that talks, its tokenizer and template, and small datasets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.tokenizer import ChatTemplate, Tokenizer, load_chat_template, load_tokenizer
from chatwright.tokenizer.supervision import encode_supervised
from chatwright.training.chat_rows import EncodeChat, Example, Notes, examples_of


def tiny_gpt(vocab_size: int, *, seed: int = 0, context_length: int = 256, n_layer: int = 2, **changes: Any) -> GPT:
    """Qwen3-shaped, random, in train mode with gradients."""
    values: dict[str, Any] = {
        "family": "qwen3",
        "vocab_size": vocab_size,
        "n_layer": n_layer,
        "d_model": 64,
        "n_head": 4,
        "n_kv_head": 2,
        "head_dim": 16,
        "d_ff": 96,
        "context_length": context_length,
        "norm": "rmsnorm",
        "norm_eps": 1e-6,
        "positions": "rotary",
        "activation": "silu",
        "gated": True,
        "qk_norm": True,
        "tied": True,
    }
    torch.manual_seed(seed)
    model = GPT(ModelConfig(**values | changes))
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.08)
    return model


def load_chat(folder: Path) -> tuple[Tokenizer, ChatTemplate, EncodeChat]:
    tokenizer, template = load_tokenizer(folder), load_chat_template(folder)
    assert template is not None
    return tokenizer, template, partial(encode_supervised, tokenizer, template)


def chat(*turns: str, system: str = "") -> list[dict[str, Any]]:
    """Messages: what the user says and what the assistant answers, in turn."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    return messages + [
        {"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(turns)
    ]


def conversation_rows(conversations: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {"id": f"c{number}", "source": "chats.jsonl", "language": "en", "cluster": number, "messages": messages}
        for number, messages in enumerate(conversations)
    ]


def make_examples(
    folder: Path, conversations: Sequence[list[dict[str, Any]]], context_length: int = 256, notes: Notes | None = None
) -> list[Example]:
    tokenizer, _template, encode = load_chat(folder)
    n_bytes = lambda row: sum(  # noqa: E731
        len(tokenizer.token_bytes(i)) for i, own in zip(row.ids, row.supervised, strict=True) if own
    )
    rows = conversation_rows(conversations)
    return examples_of(rows, encode, n_bytes, context_length, Notes() if notes is None else notes)
