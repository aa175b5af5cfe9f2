"""The model card of what tuning made: where it comes from, how it was trained, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatwright.model.card import ModelCard, PipelineTag
from chatwright.text.language import UNKNOWN
from chatwright.training.base_model import BaseModel
from chatwright.training.before import EVENT as BEFORE
from chatwright.training.history import MEASURED, newest_figures
from chatwright.training.journal import Journal
from chatwright.training.run import EVENTS

_PIPELINE: Mapping[str, PipelineTag] = {"classify": "text-classification", "tag": "token-classification"}
_WHAT = {
    "full": "tuned on conversations",
    "lora": "tuned on conversations, as an adapter",
    "dpo": "tuned on preferences",
    "classify": "with a head that labels texts",
    "tag": "with a head that labels spans of text",
}


def model_card(*, base: BaseModel, tune: Mapping[str, Any], adapter: bool, run: Path) -> str:
    """The text of README.md. `tune`: the section of config.toml in the folder of the run, with the figures measured so far."""
    method = str(tune["method"])
    notes = []
    if adapter:
        notes.append(
            "An adapter: it answers only together with the model that it was made for, whose limits it has too."
        )
    if labels := tune.get("labels"):
        notes.append(f"It knows {len(labels)} labels: {', '.join(map(str, labels))}.")
    recipe = {
        "method": method,
        "epochs": f"{tune['epochs']:g}, at most",
        "rank and alpha": f"{tune['rank']}, {tune['alpha']:g}" if tune.get("rank") else "",
        "strength of the adapter": f"{tune['strength']:g}" if tune.get("strength", 1.0) != 1.0 else "",
        "beta": tune.get("beta", ""),
        "dropout": tune["dropout"] or "",
        "augmentations": ", ".join(tune["augmentations"]),
        "labels": ", ".join(tune.get("labels", ())),
    }
    return ModelCard(
        title=f"{base.title}, {_WHAT[method]}",
        pipeline_tag=_PIPELINE.get(method, "text-generation"),
        languages=[language for language in tune.get("languages", ()) if language != UNKNOWN],
        base_model=base.reference,
        library_name="peft" if adapter else "transformers",
        dataset_fingerprint=str(tune["data"]),
        tags=[method],
        recipe={name: value for name, value in recipe.items() if value != ""},
        scores=held_out_scores(run),
        notes=notes,
    ).render()


def held_out_scores(run: Path) -> Mapping[str, str]:
    """Of the result on all held-out rows, beside those of the base where they were measured; nothing for a checkpoint."""
    events = list(Journal(run / EVENTS).read())
    before = newest_figures(events, BEFORE)
    return {
        f"held-out {name}": f"{value:.4f}" + (f" (before tuning: {before[name]:.4f})" if name in before else "")
        for name, value in newest_figures(events, MEASURED).items()
    }
