"""The size that a refusal names in the place of the one asked for: found by asking again, never by dividing.

A size is rounded when it is shown, the shape nearest to it may have a tenth more parameters, and a smaller model has another
vocabulary: what is named must have been put to the rule that refused, just as it will be typed.
"""

from __future__ import annotations

from collections.abc import Callable

from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.model.presets import SMALLEST, parse_size, shown_size


def nearest_size(below: float, fits: Callable[[int], bool], *, shrink: float = 0.95) -> str | None:
    """As `--size` takes it: the first of sizes from `below` downwards, each `shrink` times the one before, for which `fits` is
    true. None where it is for none, or the vocabulary leaves no room for a model before."""
    size = below
    while size >= SMALLEST:
        shown = shown_size(size)
        try:
            if fits(parse_size(shown)):
                return shown
        except (UsageError, InvalidDatasetError):
            return None
        size *= shrink
    return None
