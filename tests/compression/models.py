"""Tiny models of every family in folders that are complete: weights of Transformers, a tokenizer that GGUF can say, a template."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from chatwright.model.load import load_model
from chatwright.tokenizer.train import train_tokenizer
from tests.model.tiny_models import CASES, randomise
from tests.server.tiny import TEMPLATE, TEXT

VOCAB = 384


def write_text_side(folder: Path, pattern: str = "qwen2", vocab_size: int = VOCAB, template: str = TEMPLATE) -> None:
    """A tokenizer trained on a page, and a template."""
    trained = train_tokenizer(TEXT * 3, vocab_size, pattern=pattern)  # type: ignore[arg-type]
    trained.save(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def make_folder(folder: Path, case: str = "qwen3, tied, biases", **sizes: int | bool) -> Path:
    """The case of `tiny_models` with a vocabulary that the tokenizer fits into; `sizes` are changes of its configuration."""
    kept = CASES[case]
    options = {**kept.to_dict(), "vocab_size": VOCAB, **sizes}
    if "num_hidden_layers" in sizes:
        options.pop("layer_types", None)
    model = AutoModelForCausalLM.from_config(type(kept)(**options))
    randomise(model)
    model.save_pretrained(folder)
    write_text_side(folder, "gpt2" if kept.model_type == "gpt2" else "qwen2")
    return folder


def logits(path: Path, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return load_model(path)(ids)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
