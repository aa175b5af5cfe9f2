"""What the classifier looks at in a sentence, by name.

Two sorts: what stands there (words, neighbouring words), which counts less the longer the sentence is; and what kinds of words
stand near each other (KILL before YOU, KILL the TECH), which learn from one sentence about all words of that kind, in both
languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from chatwright.moderation.words import Lexicon, Unit

# Units between two kinds that still have to do with each other.
NEAR = 8


def features(words: Sequence[str], lexicon: Lexicon) -> tuple[set[str], set[str]]:
    """(of words, of kinds). A word's name is in lower case, a kind's in upper case: they do not meet."""
    units = list(lexicon.units(words))
    of_words = {unit.text for unit in units}
    of_words.update(words)
    of_words.update(f"{first} {second}" for first, second in pairwise(words))
    names = [unit.name for unit in units]
    of_words.update(f"{first} {second}" for first, second in pairwise(names))
    of_words.update(f"{names[i]} {names[i + 1]} {names[i + 2]}" for i in range(len(names) - 2))
    return of_words, _kinds(units)


def _kinds(units: Sequence[Unit]) -> set[str]:
    placed = [(place, kind) for place, unit in enumerate(units) for kind in unit.kinds]
    found = {f"+{kind}" for _, kind in placed}
    for number, (place, kind) in enumerate(placed):
        for other_place, other in placed[number + 1 :]:
            if other_place - place > NEAR:
                break
            if other_place > place:
                found.add(f"{kind}>{other}")
    return found
