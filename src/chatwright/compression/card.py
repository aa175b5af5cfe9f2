"""The card of what was made of a model: what is known of that one, what was learned from, both sizes, the figures of the bill."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from chatwright.compression.bill import Bill, weights_size
from chatwright.hub.manifest import pulled_license
from chatwright.model.card import ModelCard, write_card
from chatwright.model.describe import describe_model
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Kind
from chatwright.training.base_model import BaseModel


def write_made_card(folder: Path, base: BaseModel, made: ModelCard, bill: Bill | None = None) -> None:
    """README.md of a folder whose other files are written. `made` says what only the maker knows: title, tags, recipe, data, notes;
    languages and license are those of `base`. Raises OSError."""
    info = describe_model(base.path)
    sizes = {"weights": f"{weights_size(folder):,} bytes (before: {weights_size(base.path):,})"}
    card = replace(
        made,
        languages=info.languages,
        base_model=base.reference,
        license=info.license or pulled_license(base.path) or "unknown",
        recipe={**made.recipe, **sizes},
        scores={**made.scores, **({} if bill is None else bill_scores(bill))},
    )
    write_card(folder, card.render())


def learned_text(made: ModelCard, dataset: Dataset, kinds: Iterable[Kind], n_tokens: int) -> ModelCard:
    """With what a model that goes on learning has read here, as the card of `train` says it."""
    n_bytes = sum(dataset.n_bytes("train", kind) for kind in kinds)
    data = {"text": f"{n_bytes:,} bytes, {n_tokens:,} tokens", "learned from before": "see the base model"}
    return replace(made, dataset_fingerprint=dataset.fingerprint, data=data)


def bill_scores(bill: Bill) -> dict[str, str]:
    """What held-out text costs, as the section Scores says it; nothing where it was not measured."""
    if (change := bill.perplexity_change) is None:
        return {}
    after, before = bill.after.to_dict(), bill.before.to_dict()
    beside = f"before: {before['bits_per_byte']:.4f}"
    if bill.teacher is not None and bill.teacher.scores is not None:
        beside += f", teacher: {bill.teacher.scores.bits_per_byte:.4f}"
    interval = f"{change.low:+.2%} to {change.high:+.2%}, {bill.n_documents} documents"
    if math.isnan(change.low):
        interval = "one document only: no interval"
    return {
        "bits per byte": f"{after['bits_per_byte']:.4f} ({beside})",
        "perplexity": f"{change.estimate:+.2%} ({interval})",
    }
