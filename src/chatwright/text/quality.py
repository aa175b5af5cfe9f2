"""Quality of documents: what is too short, repeats itself, or is no prose at all. Gentle on manuals, code and poems.

After the rules of Gopher (Rae et al. 2021, A1.1), with bounds loosened for technical text, and counting characters where those
count words, so that Chinese is judged alike. Conversations and labelled rows are not judged: short and odd is what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from chatwright.text.characters import CharacterTexts, Class
from chatwright.text.reasons import Detail
from chatwright.text.shingles import Shingles

MIN_SHINGLES = 64  # shorter texts are not looked at for repetition
_MAX_SYMBOLS = 0.4  # of the characters that are no spaces; C code has 0.2–0.3
_MAX_DIGITS = 0.5
_MAX_BROKEN = 0.02
_MAX_REPEATED_LINES = 0.7
_MAX_REPEATED_SHINGLES = 0.7  # man pages and changelogs reach 0.5
_VOWELS = (0.15, 0.75)  # share of Latin letters; prose in Latin script lies at 0.33–0.50, code about 0.30
_MIN_LATIN = 100
_MIN_COMMON_HAN = 0.6  # of the Han characters; prose, old poems included, lies above 0.9
_MIN_HAN = 50
_LONG_WORD = 40  # no language's words, but base64, hex and minified code
_MAX_LONG_WORDS = 0.4


def judge(
    texts: Sequence[str], characters: CharacterTexts, shingles: Shingles, min_chars: int
) -> list[tuple[str, str] | None]:
    """For each text None, or (reason, detail) why it should go. `characters`, `shingles`: of the same texts."""
    counts = characters.counts.tolist()
    n_shingles = shingles.counts.tolist()
    verdicts = []
    for number, text in enumerate(texts):
        verdict = _by_counts(counts[number], min_chars)
        if verdict is None and n_shingles[number] >= MIN_SHINGLES:
            verdict = _by_repetition(text, number, shingles) or _by_words(text, counts[number])
        verdicts.append(verdict)
    return verdicts


def _by_counts(counts: list[int], min_chars: int) -> tuple[str, str] | None:
    n_seen = sum(counts) - counts[Class.SPACE]
    n_letters = sum(counts[Class.VOWEL : Class.BROKEN])
    if n_letters + counts[Class.DIGIT] < min_chars:
        return "too short", Detail("{n} letters and digits", n=n_letters + counts[Class.DIGIT])
    if counts[Class.BROKEN] > _MAX_BROKEN * n_seen:
        return "broken characters", Detail("{share:.0%} of the characters", share=counts[Class.BROKEN] / n_seen)
    if counts[Class.SYMBOL] > _MAX_SYMBOLS * n_seen:
        return "symbols", Detail("{share:.0%} of the characters", share=counts[Class.SYMBOL] / n_seen)
    if counts[Class.DIGIT] > _MAX_DIGITS * n_seen:
        return "numbers", Detail("{share:.0%} of the characters", share=counts[Class.DIGIT] / n_seen)
    n_latin = counts[Class.VOWEL] + counts[Class.CONSONANT]
    if n_latin >= _MIN_LATIN and n_latin > 0.5 * n_letters:
        vowels = counts[Class.VOWEL] / n_latin
        if not _VOWELS[0] <= vowels <= _VOWELS[1]:
            return "gibberish", Detail("{share:.0%} of the letters are vowels", share=vowels)
    n_han = counts[Class.HAN] + counts[Class.RARE_HAN]
    if n_han >= _MIN_HAN and not counts[Class.KANA] and counts[Class.HAN] < _MIN_COMMON_HAN * n_han:
        return "gibberish", Detail(
            "{share:.0%} of the Chinese characters are rare ones", share=counts[Class.RARE_HAN] / n_han
        )
    return None


def _by_repetition(text: str, number: int, shingles: Shingles) -> tuple[str, str] | None:
    lines = [line for line in text.split("\n") if line]
    if len(lines) >= 10:
        share = 1 - len(set(lines)) / len(lines)
        if share > _MAX_REPEATED_LINES:
            return "repeated lines", Detail("{share:.0%} of the lines", share=share)
    share = shingles.repeated_share(number)
    if share > _MAX_REPEATED_SHINGLES:
        return "repeated phrases", Detail("{share:.0%} of the phrases", share=share)
    return None


def _by_words(text: str, counts: list[int]) -> tuple[str, str] | None:
    """Only for text with few spaces for its Latin letters and digits: looking at every word is slow. Paths and URLs may be long."""
    n_latin = counts[Class.VOWEL] + counts[Class.CONSONANT] + counts[Class.DIGIT]
    if n_latin < 0.5 * sum(counts) or counts[Class.SPACE] * 12 > n_latin:
        return None
    long = sum(len(word) for word in text.split() if len(word) > _LONG_WORD and word.count("/") * 15 < len(word))
    if long > _MAX_LONG_WORDS * len(text):
        return "gibberish", Detail(
            "{share:.0%} of the text is in words of more than {most} characters",
            share=long / len(text),
            most=_LONG_WORD,
        )
    return None
