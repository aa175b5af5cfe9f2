"""A model to look inside: its weights in float32, its tokenizer, and how its tokens are shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from chatwright.engine.opened import open_model
from chatwright.errors import InvalidModelError, UsageError
from chatwright.model.encoder import Encoder
from chatwright.model.encoder_checkpoint import is_encoder
from chatwright.model.encoder_hf import load_encoder
from chatwright.model.gpt import GPT
from chatwright.model.head_checkpoint import is_head
from chatwright.model.head_folder import load_head
from chatwright.model.heads import Head, TextClassifier
from chatwright.model.load import load_language_model
from chatwright.model.lora import load_adapter, merge_lora
from chatwright.model.rnn import RNN
from chatwright.settings import Settings
from chatwright.tokenizer.chat import ChatTemplate, encode_chat
from chatwright.tokenizer.encoder_text import EncoderTokenizer
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.tokenizer import Tokenizer

Kind = Literal["decoder", "recurrent", "encoder", "classifier", "tagger"]


@dataclass(frozen=True)
class Subject:
    """A model in eval mode. `base` is what has embeddings and layers: the model itself, or what a head for labels sits on."""

    name: str
    model: GPT | RNN | Encoder | Head
    tokenizer: Tokenizer | EncoderTokenizer
    template: ChatTemplate | None = None
    n_tokens: int = 0  # of the longest text; 0: the context of its configuration

    @property
    def base(self) -> GPT | RNN | Encoder:
        """The model without a head for labels."""
        return self.model.base if isinstance(self.model, Head) else self.model

    @property
    def kind(self) -> Kind:
        """What it does with text."""
        if isinstance(self.model, Head):
            return "classifier" if isinstance(self.model, TextClassifier) else "tagger"
        if isinstance(self.model, GPT):
            return "decoder"
        return "recurrent" if isinstance(self.model, RNN) else "encoder"

    @property
    def writes(self) -> bool:
        """Whether it continues text."""
        return self.kind in ("decoder", "recurrent")

    @property
    def context_length(self) -> int:
        """Tokens that it can read at once."""
        return self.n_tokens or self.base.config.context_length

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.base.embed.weight.device

    def encode(self, text: str) -> list[int]:
        """The ids of a text as the model reads it, with the marks that it wants at its ends."""
        return self.tokenizer.encode(text)

    def encode_answer(self, text: str) -> list[int]:
        """The ids of a text that goes on from a prompt."""
        return (
            self.tokenizer.encode_prompts([[text]], continuing=True)[0] if isinstance(self.tokenizer, Tokenizer) else []
        )

    def encode_message(self, text: str) -> list[int]:
        """The ids of a conversation in which a user said `text` and the answer is to come. Raises UsageError without a
        template."""
        if self.template is None or not isinstance(self.tokenizer, Tokenizer):
            raise UsageError(
                "{name} has no chat template, so it is not said how a message is written for it: leave --chat out, and write the"
                " prompt as the model knows text.",
                name=self.name,
            )
        return encode_chat(self.tokenizer, self.template, [{"role": "user", "content": text}])

    @cached_property
    def _special_names(self) -> dict[int, str]:
        return {token_id: text for text, token_id in self.tokenizer.special_ids.items()}

    def is_control(self, token_id: int) -> bool:
        """Whether a token stands for no text."""
        return token_id in self._special_names

    def text_of(self, token_id: int) -> str:
        """How a token is shown: its text; a control token's name; the bytes of a part of a character, as ⟨E4 BD⟩."""
        if (name := self._special_names.get(token_id)) is not None:
            return name
        raw = self.tokenizer.token_bytes(token_id)
        if not raw:
            return f"⟨{token_id}⟩"
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return _with_bytes(raw)

    def texts_of(self, ids: Sequence[int]) -> list[str]:
        """`text_of` each."""
        return [self.text_of(token_id) for token_id in ids]


def _with_bytes(raw: bytes) -> str:
    """Characters where there are whole ones, numbers for the bytes between."""
    shown = raw.decode("utf-8", "surrogateescape")
    text, pending = "", list[str]()
    for character in shown:
        if 0xDC80 <= ord(character) <= 0xDCFF:
            pending.append(f"{ord(character) - 0xDC00:02X}")
            continue
        text += (f"⟨{' '.join(pending)}⟩" if pending else "") + character
        pending = []
    return text + (f"⟨{' '.join(pending)}⟩" if pending else "")


def open_subject(
    path: Path, name: str, settings: Settings, adapter: Path | None = None, device: torch.device | str = "cpu"
) -> Subject:
    """The model at `path` (a folder or a .gguf file), a LoRA adapter merged into it if one is given; seconds.

    Raises ModelNotFoundError, InvalidModelError, among them for a weight that is not a number.
    """
    subject = _open_head(path, name, device) if is_head(path) else _open(path, name, settings, adapter, device)
    check_finite(subject.model, path)
    return subject


def check_finite(model: nn.Module, path: Path) -> None:
    """Raises InvalidModelError when a weight is NaN or infinite: whatever could be said of such a model would be nonsense."""
    for parameter_name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise InvalidModelError(
                "{path}: the weights {parameter} hold something that is not a number (NaN or infinity), so nothing can be said of"
                " this model. Take the last good checkpoint.",
                path=path,
                parameter=parameter_name,
            )


def _open_head(path: Path, name: str, device: torch.device | str) -> Subject:
    head = load_head(path, device=device)
    tokenizer: Tokenizer | EncoderTokenizer
    tokenizer = EncoderTokenizer.load(path) if isinstance(head.base, Encoder) else load_tokenizer(path)
    if tokenizer.vocab_size > head.base.config.vocab_size:
        raise InvalidModelError(
            "{path}: the tokenizer has {n_tokens} tokens, but the model knows {vocab_size}. They do not belong together.",
            path=path,
            n_tokens=tokenizer.vocab_size,
            vocab_size=head.base.config.vocab_size,
        )
    return Subject(name, head, tokenizer)


def _open(path: Path, name: str, settings: Settings, adapter: Path | None, device: torch.device | str) -> Subject:
    opened = open_model(path, name, settings, adapter)
    model: GPT | RNN | Encoder
    model = load_encoder(path, device=device) if is_encoder(path) else load_language_model(path, device=device)
    if adapter is not None and isinstance(model, GPT):
        load_adapter(model, adapter)
        merge_lora(model)
        model.eval()
    return Subject(name, model, opened.tokenizer, opened.template, opened.info.context_length)
