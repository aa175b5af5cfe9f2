"""A text as the classifier reads it: words, Chinese characters one by one, and the kinds of words that the lexicon knows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from chatwright.text.normalise import normalise_characters

# Set phrases that only sound bad: what they are made of counts for nothing else.
HARMLESS = "HARMLESS"

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+(?:['-][^\W_{_HAN}]+)*")
_STRETCHED = re.compile(r"([a-z])\1{2,}")
_VOWEL_CONSONANT = re.compile(r"[^aeiou][aeiou][bdgmnpt]")


def words_of(text: str) -> list[str]:
    """Its words, lower case, however they were disguised: full width, stretched ("fuuuck"), with invisible characters inside."""
    plain = unicodedata.normalize("NFKC", normalise_characters(text)).casefold().replace("\u2019", "'")
    return _WORD.findall(_STRETCHED.sub(r"\1", plain))


@dataclass(frozen=True, slots=True)
class Unit:
    """Words that belong together: one word, or an entry of the lexicon with the kinds that it is of."""

    text: str
    kinds: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its first kind in place of the words, where it has one."""
        return self.kinds[0] if self.kinds else self.text


class Lexicon:
    """Entries by their words. `units` finds the longest ones."""

    def __init__(self, entries: Mapping[tuple[str, ...], Sequence[str]]) -> None:
        self._entries = {words: tuple(kinds) for words, kinds in entries.items()}
        lengths: dict[str, set[int]] = {}
        for words in entries:
            lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def entries(self) -> Iterator[tuple[str, ...]]:
        """The words of each."""
        return iter(self._entries)

    def units(self, words: Sequence[str]) -> Iterator[Unit]:
        """The words of a text from left to right, those of an entry as one."""
        place, end = 0, len(words)
        while place < end:
            word = words[place]
            for length in self._lengths.get(word, ()):
                if (kinds := self._entries.get(tuple(words[place : place + length]))) is not None:
                    yield Unit(" ".join(words[place : place + length]), kinds)
                    place += length
                    break
            else:
                yield Unit(word)
                place += 1


@cache
def lexicon() -> Lexicon:
    """The one that is shipped."""
    return read_lexicon((files("chatwright.moderation") / "data" / "lexicon.txt").read_text(encoding="utf-8"))


def read_lexicon(text: str) -> Lexicon:
    """From lines "KIND: entry | entry"."""
    entries: dict[tuple[str, ...], list[str]] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        kind, _, listed = line.partition(":")
        for entry in listed.split("|"):
            forms = _forms(entry.strip()[:-1]) if entry.strip().endswith("~") else [entry.strip()]
            for form in forms:
                if words := tuple(words_of(form)):
                    kinds = entries.setdefault(words, [])
                    if kind not in kinds:
                        kinds.append(kind)
    return Lexicon({words: [HARMLESS] if HARMLESS in kinds else kinds for words, kinds in entries.items()})


def _forms(word: str) -> list[str]:
    """The regular forms of an English word; some that do not exist are among them, which does no harm."""
    forms = [word, word + "s"]
    if word.endswith("e"):
        forms += [word + "d", word + "r", word + "rs", word[:-1] + "ing"]
    elif word.endswith("y"):
        forms += [word[:-1] + "ies", word[:-1] + "ied", word + "ing"]
    else:
        doubled = word + word[-1] if _VOWEL_CONSONANT.fullmatch(word[-3:]) else word
        forms += [word + "es", *(stem + ending for stem in {word, doubled} for ending in ("ed", "er", "ers", "ing"))]
    return forms
