"""Which language a text is in: by counting scripts (zh, ja, ko, …), and where a script serves many languages by py3langid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from chatwright.text.characters import CharacterTexts, Class

UNKNOWN = "und"  # ISO 639-2: undetermined
_SAMPLE_CHARS = 300  # a third from the start, the middle and the end: py3langid takes 0.2 ms for 1,000 bytes
_MIN_LATIN_LETTERS = 30  # below that py3langid guesses (it calls `Hello` Breton), and plain ASCII is called English
_MIN_CONFIDENCE = 0.9
_ENGLISH_WORDS = """
the and of to that with for are this you from have not be it by can your which will they if what how i we my there when would
should an has been is on at
"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_ONLY_ENGLISH_WORDS = "the and with this you from your which they what how there when would should that are have been"
_ONLY_ENGLISH = frozenset(_ONLY_ENGLISH_WORDS.split())  # no words of any other language in Latin script
_MAX_SYMBOLS_OF_PROSE = 0.12  # symbols and digits for a letter; code has more
# Of py3langid's languages those with many writers: with all of them, tables come out as Bikol and Ligurian.
_LATIN_CODES = """
af az bs ca cs cy da de en eo es et eu fi fr ga gl hr hu id is it la lt lv ms mt nb nl nn no pl pt ro sk sl sq sv sw tl tr vi
"""
_LATIN = tuple(_LATIN_CODES.split())
_ACCENTED = re.compile("[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
_BY_SCRIPT = {Class.HANGUL: "ko", Class.GREEK: "el", Class.HEBREW: "he", Class.THAI: "th"}
_CANDIDATES = {
    Class.CYRILLIC: ("ru", "uk", "be", "bg", "sr", "mk", "kk", "ky", "mn"),
    Class.ARABIC: ("ar", "fa", "ur", "ug", "ps", "ku"),
    Class.DEVANAGARI: ("hi", "mr", "ne"),
    Class.LETTER: None,
}


def detect_language(text: str) -> str:
    """ISO 639-1 code of the language; "und" where there are no letters to tell it by."""
    return detect_languages([text], CharacterTexts.of([text]))[0]


def detect_languages(texts: Sequence[str], characters: CharacterTexts) -> list[str]:
    """The language of each text. `characters`: the same texts."""
    return [_detect(text, counts) for text, counts in zip(texts, characters.counts.tolist(), strict=True)]


def _detect(text: str, counts: list[int]) -> str:
    n_latin = counts[Class.VOWEL] + counts[Class.CONSONANT]
    n_han = counts[Class.HAN] + counts[Class.RARE_HAN]
    n_letters = sum(counts[Class.VOWEL : Class.BROKEN])
    if not n_letters:
        return UNKNOWN
    if n_han + counts[Class.KANA] > 0.1 * n_letters:  # a Han character says as much as a word of several letters
        return "ja" if counts[Class.KANA] > 0.1 * (n_han + counts[Class.KANA]) else "zh"
    for script, language in _BY_SCRIPT.items():
        if counts[script] > 0.3 * n_letters:
            return language
    for script, candidates in _CANDIDATES.items():
        if counts[script] > 0.5 * n_letters:
            return _classify(_sample(text), candidates, 0.0) or UNKNOWN
    n_symbols = counts[Class.SYMBOL] + counts[Class.DIGIT]
    return _latin_language(text, n_latin, is_prose=n_symbols < _MAX_SYMBOLS_OF_PROSE * n_letters)


def _latin_language(text: str, n_latin: int, is_prose: bool) -> str:
    sample = _sample(text)
    words = sample.lower().split()  # py3langid takes twenty times as long, so clear cases do without it
    n_english = sum(word in _ENGLISH for word in words)
    if n_english >= 2 and n_english >= 0.2 * len(words):
        return "en"
    n_english = sum(word in _ONLY_ENGLISH for word in words)
    if n_english >= 3 and n_english >= 0.05 * len(words):
        return "en"
    plain = not _ACCENTED.search(sample)
    # Code, tables and lists of names are in no language: English is what they are written around.
    if plain and (n_latin < _MIN_LATIN_LETTERS or not is_prose):
        return "en"
    return _classify(sample, _LATIN, _MIN_CONFIDENCE if plain else 0.0) or "en"


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE_CHARS:
        return text
    third = _SAMPLE_CHARS // 3
    middle = len(text) // 2
    return f"{text[:third]} {text[middle : middle + third]} {text[-third:]}"


def _classify(text: str, candidates: tuple[str, ...] | None, min_confidence: float) -> str | None:
    language, confidence = _identifier(candidates).classify(text)
    return str(language) if confidence >= min_confidence else None


@cache
def _identifier(candidates: tuple[str, ...] | None) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if candidates:
        identifier.set_languages([code for code in candidates if code in identifier.labels])
    return identifier
