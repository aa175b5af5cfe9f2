"""How near an answer is to a reference: token F1, exact match and ROUGE, for English and Chinese."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import Any

# A run of letters and digits of scripts that put spaces between words, apostrophes inside included ("don't"); or one character
# of those that do not: Chinese characters (with extensions), kana.
_CHARACTER = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u3040-\u30ff]"
_TOKEN = re.compile(rf"{_CHARACTER}|(?:(?!{_CHARACTER})[^\W_])+(?:['’](?:(?!{_CHARACTER})[^\W_])+)*")


def text_tokens(text: str) -> list[str]:
    """Words and Chinese characters in order; widths and case are made alike (NFKC, casefold), punctuation is dropped."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'"))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the multisets of tokens, 0..1 (Rajpurkar et al. 2016, without its dropping of
    articles). Two texts without any token are equal: 1."""
    said, wanted = Counter(text_tokens(answer)), Counter(text_tokens(reference))
    total = said.total() + wanted.total()
    return 2 * (said & wanted).total() / total if total else 1.0


def exact_match(answer: str, reference: str) -> bool:
    """Whether both have the same tokens in the same order: case, width, spaces and punctuation do not count."""
    return text_tokens(answer) == text_tokens(reference)


@cache
def rouge_scorer(kind: str) -> Any:
    """ROUGE (`rouge1`, `rouge2`…, `rougeL`) over words and Chinese characters; its own tokenizer knows a-z only."""
    from rouge_score.rouge_scorer import RougeScorer

    class Words:
        def tokenize(self, text: str) -> list[str]:
            return text_tokens(text)

    return RougeScorer([kind], tokenizer=Words())
