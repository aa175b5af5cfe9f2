"""How the byte-level models that Chatwright knows cut text before BPE, by the name that GGUF files use.

The regular expressions are data of the models themselves (their published tokenizer.json).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PreTokenizer:
    """`regex`: pieces to keep together, None for GPT-2's own. `digits`: every digit alone, first. `nfc`: text is
    composed before. `ignore_merges`: a piece that is a token needs no merges.
    """

    regex: str | None = None
    digits: bool = False
    nfc: bool = False
    ignore_merges: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LOWER_ENDING = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_UPPER_BEGINNING = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"

# What ByteLevel does by itself with `use_regex`.
GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2_REGEX = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
LLAMA3_REGEX = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
TEKKEN_REGEX = rf"{_LOWER_ENDING}|{_UPPER_BEGINNING}|\p{{N}}|{_REST_SLASH}"
GPT4O_REGEX = rf"{_LOWER_ENDING}{_CONTRACTIONS}?|{_UPPER_BEGINNING}{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_REST_SLASH}"

_LLAMA3 = PreTokenizer(LLAMA3_REGEX, ignore_merges=True)
_QWEN2 = PreTokenizer(QWEN2_REGEX, nfc=True)
_DIGITS = PreTokenizer(digits=True)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "deepseek-r1-qwen": PreTokenizer(QWEN2_REGEX),
    "gpt-2": PreTokenizer(),
    "gpt-4o": PreTokenizer(GPT4O_REGEX),
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "qwen2": _QWEN2,
    "refact": _DIGITS,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "tekken": PreTokenizer(TEKKEN_REGEX, ignore_merges=True),
}


def byte_level_split(choice: PreTokenizer, *, add_prefix_space: bool = False) -> dict[str, Any]:
    """The pre-tokeniser as tokenizer.json writes it."""
    steps: list[dict[str, Any]] = []
    if choice.digits:
        steps.append({"type": "Digits", "individual_digits": True})
    if choice.regex is not None:
        steps.append({"type": "Split", "pattern": {"Regex": choice.regex}, "behavior": "Isolated", "invert": False})
    steps.append(
        {
            "type": "ByteLevel",
            "add_prefix_space": add_prefix_space,
            "trim_offsets": True,
            "use_regex": choice.regex is None,
        }
    )
    return {"type": "Sequence", "pretokenizers": steps}
