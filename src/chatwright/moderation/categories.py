"""OpenAI's categories of harmful content, and which of them lie within another."""

from __future__ import annotations

from collections.abc import Iterable

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
# What stands before the slash; each is a category itself.
GROUPS = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


def group_of(category: str) -> str:
    """The category that holds it, or itself."""
    return category.partition("/")[0]


def with_groups(categories: Iterable[str]) -> frozenset[str]:
    """What threatens also harasses: the categories with those that hold them. Raises ValueError for a name that is none."""
    named = frozenset(categories)
    if unknown := named - set(CATEGORIES):
        raise ValueError(f"there is no category {', '.join(sorted(unknown))}")
    return named | {group_of(name) for name in named}
