"""The text side of a model wherever it lies, in a folder or in a GGUF file: tokenizer, chat template, and a copy of both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatwright.model.checkpoint import GGUFCheckpoint, open_checkpoint
from chatwright.tokenizer import ChatTemplate, TemplateRenderer, Tokenizer, load_chat_template, load_tokenizer, save


def load_text_side(path: Path, renderer: TemplateRenderer | None = None) -> tuple[Tokenizer, ChatTemplate | None]:
    """The tokenizer and the chat template (None for a base model) of the model at `path`, or in a tokenizer's folder.

    Raises ModelNotFoundError, InvalidModelError.
    """
    folder, metadata = _source(path)
    return load_tokenizer(folder, metadata), load_chat_template(folder, metadata, renderer)


def load_model_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer alone. Raises as `load_text_side` does."""
    return load_tokenizer(*_source(path))


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Write both into `folder` as files that Transformers loads (see `tokenizer.save`). Raises as `load_text_side` does."""
    home, metadata = _source(source)
    save.copy_tokenizer(home, folder, metadata)


def _source(path: Path) -> tuple[Path, Mapping[str, Any] | None]:
    if path.is_dir() and not any(path.glob("*.gguf")):
        return path, None  # needs no weights: the folder of a tokenizer
    checkpoint = open_checkpoint(path)
    folder = path if path.is_dir() else path.parent
    return folder, checkpoint.file.metadata if isinstance(checkpoint, GGUFCheckpoint) else None
