"""A model card says what is known of a model, in the words that hubs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from chatwright.model.card import SECTIONS
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
    assert head_of(model_card(base=base, tune=TUNE, adapter=True, run=tmp_path))["language"] == ["zh"]


def test_a_tuned_model_says_what_it_scored_and_what_its_base_did(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "tune", {"tune": TUNE})
    base = BaseModel(tmp_path, "tiny", "decoder", toy_config())

    def card() -> str:
        return model_card(base=base, tune=TUNE, adapter=False, run=run.path)

    run.event("before", figures={"bits_per_byte": 2.0})
    assert "bits_per_byte" not in card(), "a checkpoint was not measured on all held-out rows"
    assert "Not measured yet" in card()
    run.event("measured", figures={"bits_per_byte": 1.5, "accuracy": 0.25, "margin": float("nan")})
    assert "- held-out bits_per_byte: 1.5000 (before tuning: 2.0000)\n" in card()
    assert "- held-out accuracy: 0.2500\n" in card()
    assert "margin" not in card()


def test_a_pretrained_models_card_has_the_figures_of_the_weights_that_were_kept(tmp_path: Path) -> None:
    run = pretraining_run(tmp_path / "run")
    run.metric(4, bits_per_byte=1.5)
    run.metric(8, bits_per_byte=1.75)
    assert "held-out bits_per_byte: 1.7500" in pretraining_card(run)  # of the checkpoint of step 8
    run.event("measured", figures={"bits_per_byte": 1.5, "bits_per_byte_en": 1.25, "perplexity": 9.0})
    assert "held-out bits_per_byte: 1.5000\n- held-out bits_per_byte_en: 1.2500\n" in pretraining_card(run)
    assert "perplexity" not in pretraining_card(run)


def test_a_card_says_of_how_much_of_the_held_out_data_its_figures_are(tmp_path: Path) -> None:
    run = pretraining_run(tmp_path / "run")
    run.event("diverged", step=3, documents=["a.txt", "b.txt"])
    run.event("measured", figures={"bits_per_byte": 2.0}, documents=[56, 56])
    assert "documents." not in pretraining_card(run)
    run.event("measured", figures={"bits_per_byte": 2.0}, documents=[15, 56])
    run.event("diverged", step=9, documents=["a.txt", "b.txt"])  # a later try, from a checkpoint
    assert "The held-out figures are of 15 of 56 documents." in pretraining_card(run)


def test_every_way_of_training_gives_a_whole_card(tmp_path: Path) -> None:
    run = pretraining_run(tmp_path / "run")
    base = BaseModel(tmp_path, "tiny", "decoder", toy_config())
    cards = [pretraining_card(run)] + [
        model_card(base=base, tune=TUNE | {"method": method, "labels": ["a"]}, adapter=method == "lora", run=run.path)
        for method in ("full", "lora", "dpo", "classify", "tag")
    ]
    for card in cards:
        assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(SECTIONS)
        assert "_Not known" not in card


def test_the_result_of_a_run_is_called_as_the_run(tmp_path: Path) -> None:
    run = pretraining_run(tmp_path / "shop")
    assert BaseModel(run.result, "", "decoder", toy_config()).title == "shop"
    assert BaseModel(tmp_path / "model", "", "decoder", toy_config()).title == "model", "no run around it"
    assert BaseModel(run.result, "named", "decoder", toy_config()).title == "named"
