"""Labelled sentences: a text file in which each heading in brackets names the categories of the lines below it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from chatwright.errors import InvalidDatasetError
from chatwright.moderation.categories import with_groups

NONE = "none"
# What the shipped classifier was trained with.
FILES = tuple(
    f"{name}.{language}.txt"
    for name in ("train", "harm", "hard", "ordinary", "plain", "requests")
    for language in ("en", "zh")
)


@dataclass(frozen=True)
class Sentence:
    """`categories`: those that it falls into, with the ones that hold them; none where it is harmless."""

    text: str
    categories: frozenset[str]


def shipped() -> list[Sentence]:
    """Those that the shipped classifier was trained with."""
    folder = files("chatwright.moderation") / "data"
    return read_sentences(folder / name for name in FILES)


def read_sentences(paths: Iterable[Traversable | Path]) -> list[Sentence]:
    """Of several files. Raises InvalidDatasetError, with the line."""
    return [sentence for path in paths for sentence in _read(path)]


def _read(path: Traversable | Path) -> list[Sentence]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDatasetError("{path} cannot be read as UTF-8 text.", path=path) from error
    found: list[Sentence] = []
    categories: frozenset[str] | None = None
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            names = line[1:-1].replace(",", " ").split()
            try:
                categories = with_groups(name for name in names if name != NONE)
            except ValueError as error:
                raise InvalidDatasetError(
                    "{path}, line {line}: {reason}.", path=path, line=number, reason=error
                ) from error
        elif categories is None:
            raise InvalidDatasetError(
                "{path}, line {line}: a heading such as [violence] or [none] must stand before the first sentence.",
                path=path,
                line=number,
            )
        else:
            found.append(Sentence(line, categories))
    return found
