"""What the server needs of a model beside its weights: what it is, its tokenizer and its chat template. No torch.

Opening a model checks all of its files but the weights; whoever has an engine for it makes a `TextModel` of both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from chatwright import __version__
from chatwright.engine.classifier import ClassifierModel
from chatwright.engine.embedding import EmbeddingModel
from chatwright.engine.kernels.library import Kernels, load_kernels
from chatwright.engine.protocol import Engine
from chatwright.engine.text import TextModel
from chatwright.errors import InvalidModelError
from chatwright.model.adapter import ADAPTER_CONFIG, Adapter, check_fits, open_adapter
from chatwright.model.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint, open_checkpoint
from chatwright.model.config import ModelConfig
from chatwright.model.describe import ModelInfo, describe_model
from chatwright.model.encoder_checkpoint import EncoderCheckpoint, is_encoder, open_encoder
from chatwright.model.encoder_config import EncoderConfig
from chatwright.model.head_checkpoint import HeadCheckpoint, is_head, open_head
from chatwright.model.rnn_checkpoint import RecurrentCheckpoint, is_recurrent, open_rnn
from chatwright.model.rnn_config import RNNConfig
from chatwright.model.text_files import text_fingerprint
from chatwright.settings import Settings
from chatwright.tokenizer.chat import ChatTemplate, load_chat_template
from chatwright.tokenizer.encoder_text import EncoderTokenizer
from chatwright.tokenizer.fim import FimTokens
from chatwright.tokenizer.huggingface import eos_ids_of_model
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class OpenedModel:
    """A model whose files were opened and checked. `fingerprint` is OpenAI's `system_fingerprint`, `created` a Unix time."""

    path: Path
    name: str
    adapter: Path | None
    info: ModelInfo
    tokenizer: Tokenizer | EncoderTokenizer
    template: ChatTemplate | None
    created: int
    fingerprint: str

    def with_engine(self, engine: Engine) -> TextModel:
        """The model that talks, or only embeds or labels, when this engine runs it."""
        if self.info.labels:
            return ClassifierModel(
                self.name,
                engine,
                self.tokenizer,
                labels=self.info.labels,
                several=self.info.several,
                languages=self.info.languages,
                created=self.created,
                fingerprint=self.fingerprint,
            )
        if isinstance(self.tokenizer, EncoderTokenizer):
            return EmbeddingModel(
                self.name,
                engine,
                self.tokenizer,
                languages=self.info.languages,
                created=self.created,
                fingerprint=self.fingerprint,
                vector_width=self.info.config.d_model,
            )
        return TextModel(
            self.name,
            engine,
            self.tokenizer,
            self.template,
            languages=self.info.languages,
            fim=FimTokens.of(self.tokenizer) if self.info.fills_in else None,
            created=self.created,
            fingerprint=self.fingerprint,
            adapter=self.name if self.adapter is not None else None,
            vector_width=self.info.config.d_model,
        )


def open_model(path: Path, name: str, settings: Settings, adapter: Path | None = None) -> OpenedModel:
    """The model at `path` (a folder or a .gguf file), with the LoRA adapter that answers in its place, if any.

    Raises ModelNotFoundError, InvalidModelError.
    """
    info = describe_model(path)
    checkpoint = _opened(path)
    if isinstance(checkpoint, GGUFCheckpoint):
        weights, metadata = [checkpoint.path], checkpoint.file.metadata
    else:
        weights, metadata = sorted({tensor.file for tensor in checkpoint.tensors.values()}), None
    texts = [text_fingerprint(path)]
    checked = None
    if adapter is not None:
        if info.labels:
            raise InvalidModelError(
                "A model with a head for labels cannot have the adapter in {folder}.", folder=adapter
            )
        checked = _checked_adapter(adapter, info.config)
        weights.append(checked.weights)
        texts.append(text_fingerprint(checked.path, ADAPTER_CONFIG))
    folder = path if path.is_dir() else path.parent
    if isinstance(checkpoint, HeadCheckpoint) and checkpoint.kind == "Token":
        raise InvalidModelError(
            "{path} labels the tokens of texts, which cannot be served yet: only models that label whole texts can.",
            path=path,
        )
    if isinstance(info.config, EncoderConfig):
        tokenizer: Tokenizer | EncoderTokenizer = EncoderTokenizer.load(folder)
        template = None
    else:
        tokenizer = load_tokenizer(folder, metadata)
        template = None
        if not info.labels:
            template = load_chat_template(folder, metadata, adapter=checked.path if checked else None)
        if checked is not None:  # a format that it taught a base model has an end of its own
            tokenizer.eos_ids |= {i for i in eos_ids_of_model(checked.path) if i < tokenizer.vocab_size}
    if tokenizer.vocab_size > info.config.vocab_size:
        raise InvalidModelError(
            "{path}: the tokenizer has {n_tokens} tokens, but the model knows {vocab_size}. They do not belong together.",
            path=path,
            n_tokens=tokenizer.vocab_size,
            vocab_size=info.config.vocab_size,
        )
    return OpenedModel(
        path,
        name,
        adapter,
        info,
        tokenizer,
        template,
        created=int(weights[0].stat().st_mtime),
        fingerprint=_fingerprint(weights, texts, settings),
    )


def _opened(
    path: Path,
) -> SafetensorsCheckpoint | GGUFCheckpoint | RecurrentCheckpoint | EncoderCheckpoint | HeadCheckpoint:
    if is_recurrent(path):
        return open_rnn(path)
    if is_head(path):
        return open_head(path)
    return open_encoder(path) if is_encoder(path) else open_checkpoint(path)


def _checked_adapter(path: Path, config: ModelConfig | RNNConfig | EncoderConfig) -> Adapter:
    """The adapter, refused before the seconds of loading when it was made for another model."""
    adapter = open_adapter(path)
    if isinstance(config, EncoderConfig):
        raise InvalidModelError("An encoder cannot have the adapter in {folder}.", folder=adapter.path)
    if not isinstance(config, ModelConfig):
        raise InvalidModelError("A recurrent model cannot have the adapter in {folder}.", folder=adapter.path)
    check_fits(adapter, config)
    return adapter


def _fingerprint(weights: list[Path], texts: list[str], settings: Settings) -> str:
    """Changes with whatever can change an answer: weights, config, tokenizer, chat template (`texts`), code, device, precision,
    threads (OpenAI's `system_fingerprint`).
    """
    kernels = load_kernels()
    # PyTorch's products depend on the number of threads, the kernels' do not.
    computed_by = [kernels.isa_name] if isinstance(kernels, Kernels) else [version("torch"), str(settings.n_threads)]
    parts = [__version__, settings.device, settings.quantization, *computed_by, *texts]
    for file in weights:
        stat = file.stat()
        parts += [file.name, str(stat.st_size), str(stat.st_mtime_ns)]
    return "fp_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]
