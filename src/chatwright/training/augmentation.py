"""Three ways to say the same a little differently, so that a small dataset is not learnt by heart: `word-dropout`,
`word-swap` and `typos` (after Wei & Zou 2019, "EDA", without its list of synonyms, as no list comes from outside).

An augmentation proposes edits of a text; edits that touch what must stay (a labelled span, a number, a placeholder such as
`[EMAIL]`, code, an address) are not made. What comes out depends on nothing but the text and the key (seed, epoch, row).
Words are words where spaces separate them, and single characters in Chinese and Japanese.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from chatwright.errors import UsageError

Span = tuple[int, int]

# Of the words of a text, how many are touched. EDA's authors found 0.1 best over sizes of data, and more harmful.
RATE = 0.1

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_UNIT = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:['’][^\W_{_CJK}]+)*")
_KEPT = re.compile(
    r"```.*?```|`[^`\n]*`|\[[A-Z][A-Z0-9_]{0,40}\]|https?://[!-~]+|[\w.+-]{1,64}@[\w.-]{1,255}|[\w#-]{0,40}\d[\w-]*",
    re.DOTALL | re.ASCII,
)
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS: Mapping[str, str] = {
    letter: "".join(row[i] for i in (index - 1, index + 1) if 0 <= i < len(row))
    for row in _ROWS
    for index, letter in enumerate(row)
}


@dataclass(frozen=True)
class Edit:
    """The characters from `start` to `end` become `new`."""

    start: int
    end: int
    new: str


def augment(
    text: str, names: Sequence[str], key: tuple[int, int, str], spans: Sequence[Span] = ()
) -> tuple[str, list[Span]]:
    """`text` after the named augmentations, and where `spans` lie in it now; their characters are untouched.

    key: (seed, epoch, id of the row). A text in which nothing may be touched comes back as it is.
    """
    moved = list(spans)
    for name in names:
        rng = random.Random(f"{name}/{key[0]}/{key[1]}/{key[2]}")  # noqa: S311  not a secret
        kept = _Spans([*moved, *(match.span() for match in _KEPT.finditer(text))])
        edits = [edit for edit in AUGMENTATIONS[name](text, rng) if not kept.touched_by(edit)]
        text, moved = _apply(text, edits, moved)
    return text, moved


def parse_names(text: str) -> tuple[str, ...]:
    """ "word-dropout,typos" as names, each once. Raises UsageError with the names there are."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in AUGMENTATIONS:
            raise UsageError(
                "There is no augmentation {name!r}. There are {names}; several are given with commas between them, and"
                " `compare` tries each of them.",
                name=name,
                names=", ".join(AUGMENTATIONS),
            )
    return names


def word_dropout(text: str, rng: random.Random) -> Iterator[Edit]:
    """Words left out, each with the blank before or behind it; never all of them."""
    units = _units(text)
    gone = [unit for unit in units if rng.random() < RATE]
    for unit in gone[: len(units) - 1]:
        start, end = unit.span()
        if text[start - 1 : start] == " ":
            start -= 1
        elif text[end : end + 1] == " ":
            end += 1
        yield Edit(start, end, "")


def word_swap(text: str, rng: random.Random) -> Iterator[Edit]:
    """Neighbouring words in each other's place, where only a blank or nothing stands between them."""
    units = _units(text)
    i = 0
    while i + 1 < len(units):
        first, second = units[i], units[i + 1]
        between = text[first.end() : second.start()]
        if between.strip() == "" and "\n" not in between and rng.random() < RATE:
            yield Edit(first.start(), second.end(), second[0] + between + first[0])
            i += 1  # a word moves once
        i += 1


def typos(text: str, rng: random.Random) -> Iterator[Edit]:
    """Slips of the fingers: in a word of four letters or more two letters swapped, one doubled, left out or hit beside;
    in Chinese a character doubled, left out or swapped with the next. The first letter stays, as in real typing.
    """
    units = _units(text)
    for index, unit in enumerate(units):
        word, start = unit[0], unit.start()
        if rng.random() >= RATE:
            continue
        if len(word) == 1:
            following = units[index + 1] if index + 1 < len(units) else None
            if not re.match(f"[{_CJK}]", word) or following is None or following.start() != unit.end():
                continue
            if len(following[0]) > 1:
                continue
            yield Edit(start, start + 2, rng.choice((word + word + following[0], following[0], following[0] + word)))
        elif len(word) >= 4:
            at = rng.randrange(1, len(word) - 1)
            letter, behind = word[at], word[at + 1]
            beside = rng.choice(_NEIGHBOURS.get(letter, letter))
            slip = rng.choice((behind + letter, letter + letter + behind, behind, beside + behind))
            yield Edit(start + at, start + at + 2, slip)


AUGMENTATIONS: Mapping[str, Callable[[str, random.Random], Iterator[Edit]]] = {
    "word-dropout": word_dropout,
    "word-swap": word_swap,
    "typos": typos,
}


def _units(text: str) -> list[re.Match[str]]:
    """Words and Chinese characters; not those with a digit: another number, code or date is another meaning."""
    return [unit for unit in _UNIT.finditer(text) if not any(map(str.isdigit, unit[0]))]


class _Spans:
    """What must stay, merged and in order."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, end in sorted(spans):
            if self.ends and start < self.ends[-1]:
                self.ends[-1] = max(end, self.ends[-1])
            else:
                self.starts.append(start)
                self.ends.append(end)

    def touched_by(self, edit: Edit) -> bool:
        first = bisect_right(self.ends, edit.start)
        return first < len(self.starts) and self.starts[first] < edit.end


def _apply(text: str, edits: Sequence[Edit], spans: Sequence[Span]) -> tuple[str, list[Span]]:
    """Edits come in order; of two that overlap (Chinese swaps and drops side by side) the first is made."""
    pieces: list[str] = []
    ends, shifts = [0], [0]  # from the position ends[i] of the old text on, by shifts[i]
    at = shift = 0
    for edit in edits:
        if edit.start < at:
            continue
        pieces += [text[at : edit.start], edit.new]
        at = edit.end
        shift += len(edit.new) - (edit.end - edit.start)
        ends.append(edit.end)
        shifts.append(shift)
    pieces.append(text[at:])

    def moved(position: int) -> int:
        return position + shifts[bisect_right(ends, position) - 1]

    return "".join(pieces), [(moved(start), moved(start) + end - start) for start, end in spans]
