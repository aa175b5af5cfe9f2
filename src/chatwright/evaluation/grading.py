"""How near one text is to another, 0 to 1, by the measures that evals name: what `/v1/evals` grades with.

Words are `text_tokens`: runs of letters, single Chinese characters, without case and punctuation. All of it takes time that grows
with the texts' lengths, but `rouge_l` and `fuzzy_match`, which grow with their product, 64 places at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, Literal, get_args

from chatwright.evaluation.text_metrics import rouge_scorer, text_tokens

Check = Literal["eq", "ne", "like", "ilike"]
Measure = Literal["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]
MEASURES: tuple[str, ...] = get_args(Measure)
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def passes(check: Check, text: str, reference: str) -> bool:
    """eq, ne: whether both are the same, letter by letter. like, ilike: whether the reference stands in the text, case or not."""
    match check:
        case "eq":
            return text == reference
        case "ne":
            return text != reference
        case "like":
            return reference in text
        case "ilike":
            return reference.casefold() in text.casefold()


def similarity(measure: Measure, text: str, reference: str) -> float:
    """0..1. Two empty texts are equal."""
    if text == reference:
        return 1.0
    match measure:
        case "fuzzy_match":
            return _shared(text, reference)
        case "bleu":
            return _bleu(text, reference)
        case "gleu":
            return _gleu(text_tokens(text), text_tokens(reference))
        case "rouge_l":
            # F1 of precision and recall over the longest common subsequence (Lin 2004).
            return _shared(text_tokens(text), text_tokens(reference))
        case _:
            kind = measure.replace("_", "")
            return float(rouge_scorer(kind).score(reference, text)[kind].fmeasure)


def common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence, by whole rows of bits at once (Hyyrö 2004)."""
    places: dict[Hashable, int] = {}
    for place, value in enumerate(first):
        places[value] = places.get(value, 0) | 1 << place
    everything = row = (1 << len(first)) - 1
    for value in second:
        if matches := row & places.get(value, 0):
            row = (row + matches | row - matches) & everything
    return len(first) - row.bit_count()


def _shared(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Twice the longest common subsequence over both lengths: of characters, the ratio of fuzzy matchers."""
    total = len(first) + len(second)
    return 2 * common_subsequence(first, second) / total if total else 1.0


def _bleu(text: str, reference: str) -> float:
    """sacrebleu's BLEU of one sentence: smoothed, over as many lengths as there are; Chinese by its characters."""
    metric = _sentence_bleu("zh" if _CHINESE.search(reference) else "13a")
    return float(metric.sentence_score(text, [reference]).score) / 100


@cache
def _sentence_bleu(tokenize: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenize, effective_order=True)


def _gleu(said: Sequence[str], wanted: Sequence[str]) -> float:
    """The smaller of precision and recall over all runs of one to four words (Wu et al. 2016)."""
    counts = [
        Counter(run for n in range(1, 5) for run in zip(*(words[i:] for i in range(n)), strict=False))
        for words in (said, wanted)
    ]
    most = max(count.total() for count in counts)
    return (counts[0] & counts[1]).total() / most if most else 1.0
