"""Finds the tokenizer of a model folder or GGUF file and loads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatwright.errors import InvalidModelError
from chatwright.tokenizer.gguf import read_gguf
from chatwright.tokenizer.huggingface import eos_ids_of_model, read_tokenizer_json, read_vocab_and_merges
from chatwright.tokenizer.tokenizer import Tokenizer


def load_tokenizer(folder: Path, gguf_metadata: Mapping[str, Any] | None = None) -> Tokenizer:
    """The tokenizer of a model: tokenizer.json, else vocab.json with merges.txt, else the GGUF metadata
    (`tokenizer.ggml.*` as plain Python values).

    Raises InvalidModelError when there is none, or it is broken or of an unsupported kind.
    """
    if (folder / "tokenizer.json").is_file():
        file = read_tokenizer_json(folder)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        file = read_vocab_and_merges(folder)
    elif gguf_metadata is not None:
        return Tokenizer(read_gguf(gguf_metadata))
    elif (folder / "tokenizer.model").is_file():
        raise InvalidModelError(
            "{folder} has its tokenizer in tokenizer.model only, which is not supported. "
            "Add the model's tokenizer.json.",
            folder=str(folder),
        )
    else:
        raise InvalidModelError(
            "{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt.", folder=str(folder)
        )
    file.eos_ids |= eos_ids_of_model(folder)
    return Tokenizer(file)
