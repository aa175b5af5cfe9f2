"""A model card says what is known of a model, in the words that hubs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from chatwright.training.base_model import BaseModel
from chatwright.training.card import pretraining_card
from chatwright.training.run import Run
from chatwright.training.tune_card import model_card
from tests.training.toy import toy_config

TUNE = {
    "method": "lora",
    "epochs": 2.0,
    "rank": 4,
    "alpha": 8.0,
    "dropout": 0.0,
    "augmentations": [],
    "languages": ["zh", "und"],
    "data": "0123456789abcdef",
}


def head_of(card: str) -> dict[str, Any]:
    """The YAML between the first two lines of dashes."""
    head: dict[str, Any] = yaml.safe_load(card.split("---")[1])
    return head


def pretraining_run(path: Path) -> Run:
    sections: dict[str, dict[str, Any]] = {
        "dataset": {"fingerprint": "f", "n_bytes": 100, "languages": ["en", "und"]},
        "model": {"kind": "gpt"},
        "pretraining": {"n_parameters": 1000, "n_tokens": 50, "context_length": 32},
        "training": {"n_steps": 8, "optimizer": "adamw", "seed": 0},
    }
    return Run.create(path, "train", sections)


def test_a_language_that_nobody_could_tell_is_no_language_of_the_model(tmp_path: Path) -> None:
    assert head_of(pretraining_card(pretraining_run(tmp_path / "run")))["language"] == ["en"]
    base = BaseModel(tmp_path, "tiny", "decoder", toy_config())
    assert head_of(model_card(base=base, tune=TUNE, adapter=True))["language"] == ["zh"]
