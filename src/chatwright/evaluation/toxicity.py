"""Toxicity of what a model writes, by lists of words: insults, vulgar words, threats and slurs, English and Chinese.

What it is and is not: the share of continuations that hold a word of the list. A list knows no irony, no quotation and no novel;
it misses contempt in polite words and every word that is not in it, and it counts words that are harmless where they stand. It
finds a model that swears, and compares two models on the same openings; it proves of none that it is harmless.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from chatwright.errors import InvalidDatasetError
from chatwright.evaluation.bias import read_rows
from chatwright.evaluation.proportion import Proportion

# The model's continuation of each opening, without the opening.
Continue = Callable[[Sequence[str]], Sequence[str]]
_LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Opening:
    """What a model is to go on with. `group`: the group that it names; empty for a scene that names none."""

    prompt: str
    group: str = ""


@dataclass(frozen=True)
class Hit:
    """A word of the list, and of which kind it is: insult, vulgar, threat or slur."""

    word: str
    kind: str


@dataclass(frozen=True)
class ToxicityScore:
    """`toxic`: continuations with at least one word of the list; `named` and `unnamed` of them: after openings that name a group,
    and after those that name none. `kinds`: continuations with a word of that kind."""

    toxic: Proportion
    named: Proportion
    unnamed: Proportion
    kinds: Mapping[str, int]

    def figures(self, name: str = "continuations with a word of the toxicity list") -> dict[str, str]:
        """For `model.card.add_safety`."""
        found = {name: str(self.toxic)}
        if self.named.n and self.unnamed.n:
            found |= {f"{name}, where a group is named": str(self.named), f"{name}, elsewhere": str(self.unnamed)}
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        shares = {"toxic": self.toxic, "named": self.named, "unnamed": self.unnamed}
        return {
            name: {"n": each.n, "share": each.share if each.n else None, "interval": list(each.bounds)}
            for name, each in shares.items()
        } | {"kinds": dict(self.kinds)}


def read_openings(path: Path) -> list[Opening]:
    """Openings of a JSONL file with `prompt` and maybe `group` in each line. Raises InvalidDatasetError, with the line."""
    openings = []
    for number, row in read_rows(path):
        prompt, group = row.get("prompt"), row.get("group", "")
        if not isinstance(prompt, str) or not prompt.strip() or not isinstance(group, str):
            raise InvalidDatasetError(
                "{path}, line {line}: an opening needs the text prompt, and group is a text.", path=path, line=number
            )
        openings.append(Opening(prompt, group))
    return openings


def toxic_words(text: str) -> list[Hit]:
    """Words of both languages' lists in a text, in their order, overlaps once."""
    found = []
    for match in _pattern().finditer(text.replace("’", "'")):
        kind = match.lastgroup
        assert kind is not None
        found.append(Hit(match[0], kind))
    return found


def measure_toxicity(go_on: Continue, openings: Sequence[Opening]) -> ToxicityScore:
    """Lets a model go on with every opening. Raises InvalidDatasetError without openings."""
    return toxicity_of(openings, go_on([opening.prompt for opening in openings]))


def toxicity_of(openings: Sequence[Opening], continuations: Sequence[str]) -> ToxicityScore:
    """Of continuations that are known already. Raises InvalidDatasetError without any."""
    if not openings:
        raise InvalidDatasetError("There are no openings to measure by.")
    kinds: Counter[str] = Counter()
    named: list[bool] = []
    unnamed: list[bool] = []
    for opening, continuation in zip(openings, continuations, strict=True):
        hits = toxic_words(continuation)
        kinds.update({hit.kind for hit in hits})
        (named if opening.group else unnamed).append(bool(hits))
    return ToxicityScore(
        Proportion(sum(named) + sum(unnamed), len(openings)),
        Proportion(sum(named), len(named)),
        Proportion(sum(unnamed), len(unnamed)),
        dict(sorted(kinds.items())),
    )


@cache
def _pattern() -> re.Pattern[str]:
    """One alternative a kind; longer words first, so that a phrase is not cut by a word in it."""
    words: dict[str, list[str]] = {}
    for language in _LANGUAGES:
        listed = files("chatwright.evaluation") / "lexicon" / f"toxicity.{language}.txt"
        for line in listed.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                kind, _, entries = line.partition(":")
                for entry in entries.split("|"):
                    words.setdefault(kind.strip(), []).append(_as_pattern(entry.strip(), whole=language == "en"))
    kinds = (f"(?P<{kind}>{'|'.join(sorted(entries, key=len, reverse=True))})" for kind, entries in words.items())
    return re.compile("|".join(kinds), re.IGNORECASE)


def _as_pattern(entry: str, *, whole: bool) -> str:
    body = re.escape(entry.removesuffix("*")).replace(r"\ ", r"\s+")
    if not whole:
        return body
    return rf"(?<!\w){body}" + (r"[a-z]*" if entry.endswith("*") else "") + r"(?!\w)"
