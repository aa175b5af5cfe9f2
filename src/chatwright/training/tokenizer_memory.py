"""How much memory training a tokenizer on a text will take, from a sample of the text.

The trainer keeps every different word (what the pre-tokeniser cuts: in Chinese, which has no spaces, mostly whole phrases) with its
places in pairs, and the documents of one batch with the origin of every byte. The number of different words grows as a power of the
text (Heaps' law); the power is taken from the sample and half of it. Constants measured on manuals in English (94 MB for 16 MB of
text), Chinese (457 MB for 10 MB), both (499 MB for 27 MB) and Python source (498 MB for 14 MB): within 16 % of each but the first,
where other memory is more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

BYTES_PER_WORD = 2400.0
# The library reads 256 documents at a time.
BATCH_DOCUMENTS, BYTES_PER_BATCHED_BYTE = 256, 60.0
_WORD = re.compile(r"[^\W\d_]+|[^\w\s]+")


def tokenizer_training_bytes(sample: Sequence[str], text_bytes: int, n_documents: int) -> float:
    """For `text_bytes` of text like the sample, in `n_documents`; what is there before is not counted."""
    batch = min(BATCH_DOCUMENTS, n_documents) * text_bytes / max(1, n_documents)
    return BYTES_PER_WORD * different_words(sample, text_bytes) + BYTES_PER_BATCHED_BYTE * batch


def different_words(sample: Sequence[str], text_bytes: int) -> float:
    """How many there will be in `text_bytes`."""
    halves, sample_bytes = (sample[::2], sample[1::2]), _size(sample)
    if len(sample) < 2:
        return len(_words(sample)) * max(1.0, text_bytes / max(1, sample_bytes))
    in_half = sum(len(_words(half)) for half in halves) / 2  # of both: one may have more of the harder language
    power = math.log2(max(1, len(_words(sample))) / max(1.0, in_half))
    growth: float = max(1.0, text_bytes / max(1, sample_bytes)) ** max(0.0, min(1.0, power))
    return len(_words(sample)) * growth


def _words(texts: Sequence[str]) -> set[str]:
    words: set[str] = set()
    for text in texts:
        words.update(_WORD.findall(text))
    return words


def _size(texts: Sequence[str]) -> int:
    return sum(len(text.encode(errors="replace")) for text in texts)
