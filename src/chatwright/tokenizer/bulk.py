"""Much text to ids, several times as fast as the `tokenizers` library and with the same ids.

tiktoken merges whatever two tokens make a token, the lowest id first; the `tokenizers` library merges the pairs of a list, in its
order. `_ranks` says for which vocabularies that is the same, and tests hold the two libraries' regular expressions, and what they
call a letter, against each other. Where it is not known to be the same, the `tokenizers` library does it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import tiktoken
from numpy.typing import NDArray

from chatwright.tokenizer.patterns import GPT2_REGEX, PRE_TOKENIZERS
from chatwright.tokenizer.pipeline import bytes_to_characters, steps
from chatwright.tokenizer.tokenizer import Tokenizer, check_text

# The look through a vocabulary takes time with the squares of its tokens' lengths: for a sum of n about as long as encoding n bytes
# saves, and two seconds for this one. Ordinary vocabularies have 50 a token; runs of `=` or blanks make tokens of many kilobytes.
MOST_WORK = 30_000_000
# Of 700,000 blanks and more in a row tiktoken's regular expression runs out of its stack.
_BLANK_CHARS = 100_000
# Code points of the planes that have letters.
_N_POINTS = 0x30000
_REGEXES = {choice.regex for choice in PRE_TOKENIZERS.values()} - {None}


class BulkEncoder:
    """`Tokenizer.encode` without the tokens around a text, for the text of a whole corpus. Threads may share it.

    n_bytes: how much text there will be about; little is not worth the preparation. is_fast: whether tiktoken does it.
    """

    def __init__(self, tokenizer: Tokenizer, n_bytes: int) -> None:
        self._tokenizer = tokenizer
        self._encoding: tiktoken.Encoding | None = None
        self._composes = False
        if sum(len(tokenizer.token_bytes(i)) ** 2 for i in range(tokenizer.vocab_size)) > min(n_bytes, MOST_WORK):
            return
        definition = tokenizer.definition()
        regex, normalizers = _regex(definition), [step["type"] for step in steps(definition["normalizer"])]
        if regex is not None and normalizers in ([], ["NFC"]) and (ranks := _ranks(definition)) is not None:
            self._encoding = tiktoken.Encoding("corpus", pat_str=regex, mergeable_ranks=ranks, special_tokens={})
            self._composes = bool(normalizers)

    @property
    def is_fast(self) -> bool:
        """Whether tiktoken does it."""
        return self._encoding is not None

    def encode(self, text: str) -> list[int]:
        """Ids of `text`. Raises InvalidRequestError on lone surrogates."""
        if self._encoding is None or _has_many_blanks(text):
            return self._tokenizer.encode(text, add_special_tokens=False)
        check_text(text)
        if self._composes and not _is_composed(text):
            text = self._tokenizer.normalized(text)
        return self._encoding.encode_ordinary(text)


def _has_many_blanks(text: str) -> bool:
    """Whether there may be more than twice _BLANK_CHARS in a row."""
    starts = range(0, len(text), _BLANK_CHARS) if len(text) >= _BLANK_CHARS else ()
    return any(text[start : start + _BLANK_CHARS].isspace() for start in starts)


def _is_composed(text: str) -> bool:
    """Whether NFC surely leaves `text` as it is.

    The `tokenizers` library knows another version of Unicode than Python: it is asked about whatever may combine with something,
    and about what is not known here.
    """
    if text.isascii():
        return True
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return bool(_stands_alone()[np.minimum(points, _N_POINTS)].all())


@cache
def _stands_alone() -> NDArray[np.bool_]:
    """Code point → whether NFC leaves it as it is, whatever comes before and behind; the last entry is for all above."""
    characters = [chr(point) for point in range(_N_POINTS)]
    table = np.array(
        [
            unicodedata.combining(character) == 0
            and unicodedata.category(character) not in ("Cn", "Cs")
            and unicodedata.is_normalized("NFC", character)
            for character in characters
        ]
        + [False]
    )
    for character in characters:
        decomposition = unicodedata.decomposition(character)
        if decomposition and not decomposition.startswith("<"):
            table[[int(part, 16) for part in decomposition.split()[1:]]] = False
    table[0x1160:0x1200] = False  # vowels and finals of Hangul, which are composed by a rule
    return table


def _regex(definition: Mapping[str, Any]) -> str | None:
    """The pre-tokenisation as one regular expression; None where it is none of those that are known to mean the same to both."""
    match steps(definition["pre_tokenizer"]):
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return GPT2_REGEX
        case [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ] if regex in _REGEXES:
            return str(regex)
    return None


def _ranks(definition: Mapping[str, Any]) -> dict[bytes, int] | None:
    """Bytes → id, where merging by ids is the same as merging by the list; else None.

    It is when the ids are in the order of the list and every token, cut into what the tokens before it make of its bytes, is cut
    into the two parts that the list has for it. For as long as nothing reaches over the ends of these bytes in a text, the same
    becomes of them there as alone; so when a token's turn comes, the two tokens that make its bytes are those of the list. Each
    token's bytes alone then become that token, so it does not matter either that tiktoken looks for whole pieces first.
    """
    model = definition["model"]
    if (
        model["type"] != "BPE"
        or definition["added_tokens"]
        or model["unk_token"] is not None
        or model["dropout"]
        or model["continuing_subword_prefix"]
        or model["end_of_word_suffix"]
    ):
        return None
    byte_of = {character: byte for byte, character in bytes_to_characters().items()}
    if not byte_of.keys() >= set().union(*model["vocab"]):
        return None
    spelled = {token: bytes(map(byte_of.__getitem__, token)) for token in model["vocab"]}
    ranks = {spelled[token]: token_id for token, token_id in model["vocab"].items()}
    # Where several pairs make one token, the cut below says that only the first of them ever comes up.
    parts: dict[bytes, list[bytes]] = {}
    for left, right in model["merges"]:
        parts.setdefault(spelled[left] + spelled[right], [spelled[left], spelled[right]])
    n_bytes = sum(len(token) == 1 for token in ranks)
    if n_bytes != 256 or len(parts) != len(ranks) - n_bytes:
        return None
    if any(ranks[later] < ranks[earlier] for earlier, later in pairwise(parts)):
        return None
    return ranks if all(_cut(token, ranks) == pair for token, pair in parts.items()) else None


def _cut(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """What the tokens before this one make of its bytes, down to two parts."""
    limit = ranks[token]
    pieces = [token[place : place + 1] for place in range(len(token))]
    while len(pieces) > 2:
        found = [ranks.get(left + right, limit) for left, right in pairwise(pieces)]
        lowest = min(found)
        if lowest >= limit:
            break
        place = found.index(lowest)
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return pieces
