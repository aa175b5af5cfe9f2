"""The model that tuning begins with: its files, what they say of it, its tokenizer, and how a text becomes ids for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from chatwright.errors import InvalidModelError, TrainingError
from chatwright.model.checkpoint import GGUFCheckpoint, open_checkpoint, read_json_object
from chatwright.model.config import ModelConfig
from chatwright.model.encoder import Encoder, EncoderConfig
from chatwright.model.encoder_hf import encoder_config_from_hf, load_encoder
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from chatwright.tokenizer.chat import ChatTemplate, load_chat_template
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.save import copy_tokenizer
from chatwright.tokenizer.supervision import encode_supervised
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.tokenizer.wordpiece import load_wordpiece
from chatwright.training.chat_rows import EncodeChat
from chatwright.training.head_rows import EncodeText
from chatwright.training.spans import Range, token_ranges

ENCODERS = ("bert",)
_PADS = ("<|pad|>", "<pad>", "[PAD]", "<|endoftext|>")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class BaseModel:
    """A decoder or an encoder on disk. `name`: how the user called it, or its path; adapters and cards name it.

    `metadata`: of a GGUF file, which has its tokenizer there.
    """

    path: Path
    name: str
    kind: Literal["decoder", "encoder"]
    config: ModelConfig | EncoderConfig
    metadata: Mapping[str, Any] | None = None

    @classmethod
    def open(cls, path: Path, name: str) -> BaseModel:
        """The model in a folder or GGUF file. Raises ModelNotFoundError, InvalidModelError."""
        path = Path(path)
        if path.is_dir() and (path / "config.json").is_file():
            raw = read_json_object(path / "config.json")
            if raw.get("model_type") in ENCODERS:
                return cls(path, name, "encoder", encoder_config_from_hf(raw))
        checkpoint = open_checkpoint(path)
        if isinstance(checkpoint, GGUFCheckpoint):
            return cls(checkpoint.path, name, "decoder", checkpoint.config, checkpoint.file.metadata)
        return cls(path, name, "decoder", checkpoint.config)

    @property
    def context_length(self) -> int:
        """Tokens that it can read."""
        return self.config.context_length

    @property
    def folder(self) -> Path:
        """Where its tokenizer lies."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def reference(self) -> str:
        """What an adapter calls its base: the name of a model in the models folder, else the path."""
        return self.name if self.name and "/" not in self.name and self.name != self.path.name else str(self.path)

    def pad_id(self) -> int | None:
        """The token that fills rows of a decoder's batch for Transformers; an encoder knows its own."""
        if self.kind == "encoder":
            return None
        tokenizer = self.tokenizer()
        named = (tokenizer.special_ids[text] for text in _PADS if text in tokenizer.special_ids)
        return next(named, min(tokenizer.eos_ids, default=None))

    def tokenizer(self) -> Tokenizer:
        """A decoder's. Raises InvalidModelError."""
        return load_tokenizer(self.folder, self.metadata)

    def chat(self) -> tuple[Tokenizer, ChatTemplate, EncodeChat]:
        """Tokenizer, template, and conversations as rows. Raises InvalidModelError for a model that cannot chat."""
        if self.kind == "encoder":
            raise InvalidModelError(
                "{name} is an encoder, which reads text and writes none. Tune a model that writes for --method full, lora or dpo;"
                " this one takes --method classify or tag.",
                name=self.name,
            )
        tokenizer = self.tokenizer()
        template = load_chat_template(self.folder, self.metadata)
        if template is None:
            raise InvalidModelError(
                "{name} has no chat template, so it is not said how a conversation is written for it. Put a chat_template.jinja"
                " into {folder} (models that `chatwright train` makes have one), or tune a model that has one.",
                name=self.name,
                folder=self.folder,
            )
        return tokenizer, template, partial(encode_supervised, tokenizer, template)

    def encode_text(self) -> EncodeText:
        """How a text becomes ids for a head, and which characters each id stands for."""
        if self.kind == "encoder":
            wordpiece = load_wordpiece(self.folder)

            def encode_pieces(text: str) -> tuple[list[int], list[Range] | None]:
                pieces = wordpiece.encode(text)
                return pieces.ids, pieces.offsets

            return encode_pieces
        tokenizer = self.tokenizer()

        def encode(text: str) -> tuple[list[int], list[Range] | None]:
            ids = tokenizer.encode(text)
            return ids, token_ranges(text, [tokenizer.token_bytes(token_id) for token_id in ids])

        return encode

    def load_decoder(self, device: torch.device, dropout: float, *, trainable: bool) -> GPT:
        """The weights of a decoder, in float32."""
        return load_model(self.path, device=device, dropout=dropout, trainable=trainable)

    def load(self, device: torch.device, dropout: float) -> GPT | Encoder:
        """The weights of either kind, all to be trained, in float32."""
        if self.kind == "decoder":
            return self.load_decoder(device, dropout, trainable=True)
        return load_encoder(self.path, device=device, dropout=dropout, trainable=True)

    def write_tokenizer(self, folder: Path) -> None:
        """The files of the tokenizer, in HF's layout, also where the model is a GGUF file."""
        copy_tokenizer(self.path, folder, self.metadata)

    def fingerprint(self) -> str:
        """SHA-256 of the weights: another model under the same path is noticed before a resume."""
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.safetensors"))
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        return digest.hexdigest()

    def check(self, fingerprint: str) -> None:
        """Raises TrainingError when the weights are not those that a run began with."""
        if self.fingerprint() != fingerprint:
            raise TrainingError(
                "The model at {path} is not the one that this run began with: its weights have changed. Put the old ones back, or"
                " start a new run.",
                path=self.path,
            )
