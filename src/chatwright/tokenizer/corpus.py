"""Text for training a tokenizer: how much of it is enough, an even sample of it, and bytes per token by language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from chatwright.tokenizer.tokenizer import Tokenizer

# By Zipf's law the rarest of V tokens is then still seen about fifty times, which orders the merges well. More text takes
# memory, and of Chinese a hundred times its size, as hardly a clause in it occurs twice.
BYTES_PER_VOCAB_ENTRY = 2048
LEAST_BYTES = 8 * 2**20
# Long documents are sampled by the page.
PAGE_CHARS = 2**16
_BATCH = 64


def enough_bytes(vocab_size: int) -> int:
    """UTF-8 bytes of text beyond which a vocabulary of this size hardly changes."""
    return max(LEAST_BYTES, BYTES_PER_VOCAB_ENTRY * vocab_size)


def sample(texts: Iterable[str], n_bytes: int, limit_bytes: int) -> Iterator[str]:
    """About `limit_bytes` of texts that have `n_bytes` together, spread evenly over all of them; all, where they are not more.

    The same texts give the same sample.
    """
    share = limit_bytes / max(n_bytes, 1)
    if share >= 1:
        yield from texts
        return
    credit = 0.0
    for text in texts:
        for page in pages(text):
            size = len(page.encode(errors="replace"))
            credit += share * size
            if credit >= size / 2:
                credit -= size
                yield page


def pages(text: str) -> Iterator[str]:
    """`text` in pieces of at most PAGE_CHARS characters that end with a line where there is one."""
    start = 0
    while len(text) - start > PAGE_CHARS:
        end = text.rfind("\n", start, start + PAGE_CHARS) + 1 or start + PAGE_CHARS
        yield text[start:end]
        start = end
    yield text[start:]


@dataclass(frozen=True)
class Fertility:
    """How well a tokenizer compresses some text."""

    n_bytes: int = 0
    n_tokens: int = 0

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes; 0 for no text."""
        return self.n_bytes / self.n_tokens if self.n_tokens else 0.0

    def __add__(self, other: Fertility) -> Fertility:
        return Fertility(self.n_bytes + other.n_bytes, self.n_tokens + other.n_tokens)


def measure(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> dict[str, Fertility]:
    """By language, that with the most text first. texts: pairs of language and text."""
    total: dict[str, Fertility] = {}
    texts = iter(texts)
    while batch := list(islice(texts, _BATCH)):
        encoded = tokenizer.encode_prompts([text] for _, text in batch)
        for (language, text), ids in zip(batch, encoded, strict=True):
            total[language] = total.get(language, Fertility()) + Fertility(len(text.encode()), len(ids))
    return dict(sorted(total.items(), key=lambda item: (-item[1].n_bytes, item[0])))
