"""The model card: README.md with YAML at its head, as hubs and `describe` read it, and the recipe in words below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from chatwright import __version__

PipelineTag = Literal["text-generation", "text-classification", "token-classification", "feature-extraction"]


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a reader must know before using a model. Empty fields are left out.

    `license` is "unknown" unless the caller knows: it depends on the data, which only their owner can judge. `languages` are
    codes ("en", "zh"). `recipe` and `scores` are shown as they are, the scores with whatever they were measured on.
    """

    title: str
    pipeline_tag: PipelineTag
    languages: Sequence[str] = ()
    base_model: str = ""
    library_name: str = "transformers"
    license: str = "unknown"
    dataset_fingerprint: str = ""
    tags: Sequence[str] = ()
    recipe: Mapping[str, object] = field(default_factory=dict)
    scores: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def render(self) -> str:
        """The text of README.md."""
        head: dict[str, Any] = {
            "license": self.license,
            "language": list(self.languages),
            "library_name": self.library_name,
            "pipeline_tag": self.pipeline_tag,
            "base_model": self.base_model,
            "tags": ["chatwright", *self.tags],
        }
        yaml_head = yaml.safe_dump(
            {key: value for key, value in head.items() if value}, allow_unicode=True, sort_keys=False
        )
        data = {"fingerprint": self.dataset_fingerprint} if self.dataset_fingerprint else {}
        return "\n".join(
            [
                "---",
                yaml_head.rstrip(),
                "---",
                f"# {_line(self.title)}",
                "",
                f"Made by Chatwright {__version__}.",
                *_section("Data", data),
                *_section("Recipe", self.recipe),
                *_section("Scores", self.scores),
                "",
                *(f"{note}\n" for note in self.notes),
                "Its answers can be wrong, and it can repeat what it was trained on.",
                "",
            ]
        )


def _section(title: str, rows: Mapping[str, object]) -> list[str]:
    if not rows:
        return []
    return ["", f"## {title}", "", *(f"- {_line(str(name))}: {_line(str(value))}" for name, value in rows.items())]


def _line(text: str) -> str:
    """A name from a file must not begin a line of its own."""
    return " ".join(text.split())
