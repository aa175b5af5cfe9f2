"""The files beside a model's weights that decide what it answers: its config, its tokenizer, its chat template. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

# What says how text becomes ids, in any of the layouts that are read; generation_config.json says which tokens end an answer.
TEXT_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)


def text_fingerprint(path: Path, config: str = "config.json") -> str:
    """SHA-256 of config, tokenizer and chat template of a model: with another of them the same weights say something else. A GGUF
    file has them inside, but files beside it come first. `config`: its name, which in an adapter's folder is another one.
    """
    folder, names = (path.parent, TEXT_FILES) if path.is_file() else (path, (config, *TEXT_FILES))
    digest = hashlib.sha256()
    for name in names:
        file = folder / name
        if file.is_file():
            digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
