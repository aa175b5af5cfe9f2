"""The model card of what tuning made: where it comes from, how it was trained, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatwright.model.card import ModelCard, PipelineTag
from chatwright.text.language import UNKNOWN
from chatwright.training.base_model import BaseModel

_PIPELINE: Mapping[str, PipelineTag] = {"classify": "text-classification", "tag": "token-classification"}
_WHAT = {
    "full": "tuned on conversations",
    "lora": "tuned on conversations, as an adapter",
    "dpo": "tuned on preferences",
    "classify": "with a head that labels texts",
    "tag": "with a head that labels spans of text",
}


def model_card(*, base: BaseModel, tune: Mapping[str, Any], adapter: bool) -> str:
    """The text of README.md. `tune`: the section of the run's config.toml."""
    method = str(tune["method"])
    recipe = {
        "method": method,
        "epochs": f"{tune['epochs']:g}, at most",
        "rank and alpha": f"{tune['rank']}, {tune['alpha']:g}" if tune.get("rank") else "",
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
    ).render()
