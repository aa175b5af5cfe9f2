"""The model that tuning begins with: its files, what they say of it, its tokenizer, and how a text becomes ids for it."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from chatwright.engine.tokenizers import copy_tokenizer, load_text_side
from chatwright.errors import InvalidModelError, TrainingError
from chatwright.model.checkpoint import GGUFCheckpoint, open_checkpoint, read_json_object
from chatwright.model.config import ModelConfig
from chatwright.model.encoder import Encoder
from chatwright.model.encoder_config import EncoderConfig, encoder_config_from_hf
from chatwright.model.encoder_hf import load_encoder
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from chatwright.model.text_files import text_fingerprint
from chatwright.tokenizer.chat import ChatTemplate
from chatwright.tokenizer.chat_formats import ChatFormat, format_for, lend
from chatwright.tokenizer.save import write_json
from chatwright.tokenizer.supervision import encode_supervised
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.tokenizer.wordpiece import load_wordpiece
from chatwright.training.chat_rows import EncodeChat
from chatwright.training.head_rows import EncodeText
from chatwright.training.run import CONFIG, RESULT
from chatwright.training.spans import Range, token_ranges

ENCODERS = ("bert",)
_PADS = ("<|pad|>", "<pad>", "[PAD]", "<|endoftext|>")
_WORDPIECE_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ChatSide:
    """How conversations are written for a model. `lent`: the format of a base model that has no template of its own; what is
    made of it must bring that along."""

    tokenizer: Tokenizer
    template: ChatTemplate
    encode: EncodeChat
    lent: ChatFormat | None = None

    def write_lent(self, folder: Path) -> None:
        """The template, and which tokens end an answer, beside what is written of the model in a folder."""
        if self.lent is not None:
            (folder / "chat_template.jinja").write_text(self.lent.source + "\n", encoding="utf-8", newline="\n")
            write_json(folder / "generation_config.json", {"eos_token_id": sorted(self.tokenizer.eos_ids)})


@dataclass(frozen=True)
class BaseModel:
    """A decoder or an encoder on disk. `name`: of a model in the models folder, "" for one at a path; cards and adapters say it."""

    path: Path
    name: str
    kind: Literal["decoder", "encoder"]
    config: ModelConfig | EncoderConfig

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
            return cls(checkpoint.path, name, "decoder", checkpoint.config)
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
        """What an adapter calls its base."""
        return self.name or str(self.path.resolve())

    @property
    def title(self) -> str:
        """What a person calls it: the result of a run is called as the run, all of them lie in folders called `model`."""
        if self.name or self.path.is_file():
            return self.name or self.path.stem
        folder = self.path.resolve()
        of_run = folder.name == RESULT and (folder.parent / CONFIG).is_file()
        return folder.parent.name if of_run else folder.name

    def pad_id(self) -> int | None:
        """The token that fills rows of a decoder's batch for Transformers; an encoder knows its own."""
        if self.kind == "encoder":
            return None
        tokenizer = self.tokenizer()
        named = (tokenizer.special_ids[text] for text in _PADS if text in tokenizer.special_ids)
        return next(named, min(tokenizer.eos_ids, default=None))

    def tokenizer(self) -> Tokenizer:
        """A decoder's. Raises InvalidModelError."""
        return load_text_side(self.path)[0]

    def chat(self) -> ChatSide:
        """Tokenizer, template, and conversations as rows. A base model without a template gets the one that its vocabulary has
        tokens for. Raises InvalidModelError for a model that cannot chat.
        """
        if self.kind == "encoder":
            raise InvalidModelError(
                "{name} is an encoder, which reads text and writes none. Tune a model that writes for --method full, lora or dpo;"
                " this one takes --method classify or tag.",
                name=self.name,
            )
        tokenizer, template = load_text_side(self.path)
        lent = None
        if template is None and (lent := format_for(tokenizer)) is not None:
            template = lend(lent, tokenizer)
        if template is None:
            raise InvalidModelError(
                "{name} has no chat template, so it is not said how a conversation is written for it. Put a chat_template.jinja"
                " into {folder} (models that `chatwright train` makes have one), or tune a model that has one.",
                name=self.name,
                folder=self.folder,
            )
        self._check_vocabulary(tokenizer)
        return ChatSide(tokenizer, template, partial(encode_supervised, tokenizer, template), lent)

    def encode_text(self) -> EncodeText:
        """How a text becomes ids for a head, and which characters each id stands for."""
        if self.kind == "encoder":
            wordpiece = load_wordpiece(self.folder)

            def encode_pieces(text: str) -> tuple[list[int], list[Range] | None]:
                pieces = wordpiece.encode(text)
                return pieces.ids, pieces.offsets

            return encode_pieces
        tokenizer = self.tokenizer()
        self._check_vocabulary(tokenizer)

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
        if self.kind == "decoder":
            copy_tokenizer(self.path, folder)
            return
        for name in _WORDPIECE_FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)

    def _check_vocabulary(self, tokenizer: Tokenizer) -> None:
        if tokenizer.vocab_size > self.config.vocab_size:
            raise InvalidModelError(
                "{path}: the tokenizer has {n_tokens} tokens, but the model knows {vocab_size}. They do not belong together.",
                path=self.path,
                n_tokens=tokenizer.vocab_size,
                vocab_size=self.config.vocab_size,
            )

    def fingerprint(self) -> str:
        """SHA-256 of the weights: another model under the same path is noticed before a resume."""
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.safetensors"))
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        return digest.hexdigest()

    def text_fingerprint(self) -> str:
        """SHA-256 of config, tokenizer and chat template: with another of them the same rows are other ids."""
        return text_fingerprint(self.path)

    def check(self, weights: str, text_side: str) -> None:
        """Raises TrainingError when the weights, or what text becomes ids by, are not those that a run began with."""
        if self.text_fingerprint() != text_side:
            raise TrainingError(
                "The model at {path} is not the one that this run began with: its config, tokenizer or chat template has changed."
                " Put the old files back, or start a new run.",
                path=self.path,
            )
        if self.fingerprint() != weights:
            raise TrainingError(
                "The model at {path} is not the one that this run began with: its weights have changed. Put the old ones back, or"
                " start a new run.",
                path=self.path,
            )
