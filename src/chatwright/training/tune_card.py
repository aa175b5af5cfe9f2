"""The README.md of what tuning made: where it comes from, how it was trained, and what to know before using it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from chatwright import __version__
from chatwright.training.base_model import BaseModel

_WHAT = {
    "full": "tuned on conversations, all weights",
    "lora": "tuned on conversations with LoRA",
    "dpo": "tuned on preferences with DPO",
    "classify": "a head that gives a text one of several labels",
    "tag": "a head that finds labelled spans in a text",
}


def model_card(*, base: BaseModel, tune: Mapping[str, Any], adapter: bool) -> str:
    """The card as Markdown with YAML at its head, as hubs read it."""
    head: dict[str, Any] = {"base_model": base.reference, "tags": ["chatwright", str(tune["method"])]}
    if adapter:
        head["library_name"] = "peft"
    facts = {
        "method": tune["method"],
        "data": f"fingerprint {tune['data']}" if "data" in tune else None,
        "epochs": tune.get("epochs"),
        "rank, alpha": f"{tune['rank']}, {tune['alpha']:g}" if tune.get("rank") else None,
        "beta": tune.get("beta"),
        "dropout": tune.get("dropout"),
        "augmentations": ", ".join(tune.get("augmentations") or ()) or None,
        "labels": ", ".join(tune.get("labels") or ()) or None,
        "made by": f"chatwright {__version__}",
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value is not None]
    title = base.name if base.name else base.path.name
    return "\n".join(
        [
            "---",
            yaml.safe_dump(head, allow_unicode=True, sort_keys=False).rstrip(),
            "---",
            f"# {title}, {_WHAT[str(tune['method'])]}",
            "",
            *lines,
            "",
            "Its answers can be wrong. What its training data hold it can repeat.",
            "",
        ]
    )
