"""Why something is not in a dataset: short reasons, which of them mean a bad row, and details that can be translated.

The reasons and details are English in dropped.jsonl and manifest.json, which are the same for all users, and in the user's
language wherever they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from chatwright.i18n import _

# Said of a row that is there all the same: nothing is lost but what is named.
NOTES = frozenset({"repeated line", "scanned page", "left out"})
# Files that are of another kind or hold nothing, and answers that were recorded as unwanted ones.
NOT_MEANT = frozenset(
    {
        "binary", "empty", "hidden", "link", "named twice", "not a file", "part of a ChatGPT export", "unsupported format",
        "unwanted answer",
    }
)  # fmt: skip
# Rows that can be read, and are not wanted.
FILTERED = frozenset(
    {
        "broken characters", "exact duplicate", "gibberish", "near duplicate", "numbers", "repeated lines",
        "repeated phrases", "symbols", "too near to a held-out row", "too short",
    }
)  # fmt: skip
# Somebody meant these to be read: --on-bad-row stop stops at each.
BAD = frozenset(
    {
        "bad json", "bad row", "bad spans", "bad tags", "bad yaml", "broken archive", "broken docx", "broken html",
        "broken parquet", "broken pdf", "chosen equals rejected", "empty answer", "empty assistant turn", "empty text",
        "encrypted archive", "encrypted docx", "encrypted pdf", "no assistant turn", "no label", "no text column",
        "no user turn", "not text", "scanned pdf", "several labels", "span outside the text", "sparse file", "too large",
        "too long", "too slow", "unknown role", "unknown shape", "unreadable", "unsafe name", "zip bomb",
    }
)  # fmt: skip
REASONS = NOTES | NOT_MEANT | FILTERED | BAD


class Detail(str):
    """A sentence with values in it: an English text like any other, that `shown` can say in the user's language.

    `Detail("the field {name} is {type}", name="text", type=Detail("a number"))`: values that are `Detail` are translated too.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, **values: object) -> Self:
        self = super().__new__(cls, template.format(**values) if values else template)
        self.template, self.values = template, values
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Details come back from worker processes, inside errors."""
        return from_json, (to_json(self),)


def shown(detail: str) -> str:
    """A detail in the user's language; English where it has no translation."""
    if not isinstance(detail, Detail):
        return _(detail) if detail else ""
    values = {name: shown(value) if isinstance(value, Detail) else value for name, value in detail.values.items()}
    return _(detail.template, **values)


def to_json(detail: str) -> Any:
    """A detail with its template and values, for a file between two processes."""
    if not isinstance(detail, Detail):
        return detail
    values = {
        name: to_json(value) if isinstance(value, Detail) else _plain(value) for name, value in detail.values.items()
    }
    return {"template": detail.template, "values": values}


def from_json(data: str | Mapping[str, Any]) -> str:
    """The inverse of `to_json`."""
    if isinstance(data, str):
        return data
    values = {name: from_json(value) if isinstance(value, dict) else value for name, value in data["values"].items()}
    return Detail(data["template"], **values)


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str) else str(value)
