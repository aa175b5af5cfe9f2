"""How many tokens a run's text will have, before the run: counted with the run's own tokenizer where the text is small, with one
of its kind on a sample where it is large.

A guess from bytes alone is off by two and more on small texts, whose tokenizer knows whole sentences of them.
"""

from __future__ import annotations

from chatwright.text.dataset import Dataset
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.tokenizer.train import Pattern, train_tokenizer
from chatwright.training.difficulty import held_out_sample, sample_texts
from chatwright.training.recipe import Recipe, fit_tokens, resolve
from chatwright.training.request import Request
from chatwright.training.speed import Machine
from chatwright.training.stats import TextStats

# Text from which a tokenizer is trained only to see how many bytes its tokens will have. Of a text that is not more, a run's own
# tokenizer learns from all of it too (`corpus.enough_bytes`): it is the same one.
SAMPLE_BYTES = 1 << 21
# The parameters that an estimate of the tokens allows are not named to the last: the run counts anew. A tokenizer of all the text
# makes up to a tenth fewer tokens than one of a sample.
ESTIMATE_SHARE = 0.85


class TokenCount:
    """The recipes of requests that differ in size, with their tokens; each tokenizer is trained once."""

    def __init__(self, dataset: Dataset, stats: TextStats, machine: Machine) -> None:
        self.dataset, self.stats, self.machine = dataset, stats, machine
        self._found: dict[tuple[int, str], tuple[Tokenizer, int]] = {}
        self._scale = 1.0

    @property
    def share(self) -> float:
        """For `refuse_too_little_text`."""
        return 1.0 if self.stats.n_bytes <= SAMPLE_BYTES else ESTIMATE_SHARE

    def recipe(self, request: Request) -> Recipe:
        """With its tokens. Raises as `resolve` and `fit_tokens`."""
        recipe, tokenizer, n_tokens = self._counted(request)
        vocab_size = tokenizer.vocab_size if self.stats.n_bytes <= SAMPLE_BYTES else recipe.vocab_size
        return fit_tokens(recipe, max(2, round(self._scale * n_tokens)), self.stats.n_bytes, vocab_size)

    def correct(self, recipe: Recipe) -> None:
        """By a recipe whose tokens the run has counted: the estimates for other sizes are off by as much."""
        self._scale = recipe.n_tokens / self._counted(recipe.request)[2]

    def tokenizer(self, request: Request) -> Tokenizer:
        """What they were counted with."""
        return self._counted(request)[1]

    def _counted(self, request: Request) -> tuple[Recipe, Tokenizer, int]:
        given = load_tokenizer(request.tokenizer) if request.tokenizer else None
        recipe = resolve(self.stats, request, self.machine, vocab_size=given.vocab_size if given else None)
        key = recipe.vocab_size, pattern_of(recipe)
        if key not in self._found:
            tokenizer = given or sample_tokenizer(self.dataset, self.stats, recipe)
            self._found[key] = tokenizer, self._count(tokenizer)
        return recipe, *self._found[key]

    def _count(self, tokenizer: Tokenizer) -> int:
        kinds = self.stats.kinds
        if (
            self.stats.n_bytes <= SAMPLE_BYTES
        ):  # as `write_tokens`: a separator before each document, and one at the end
            return 1 + sum(1 + _n_tokens(tokenizer, text) for text in self.dataset.texts("train", kinds))
        # of the sample itself a tokenizer made from it knows too much
        fresh = held_out_sample(self.dataset, kinds) or list(
            sample_texts(self.dataset, "train", kinds, SAMPLE_BYTES // 8)
        )
        n_bytes = sum(len(text.encode()) for text in fresh)
        n_tokens = sum(_n_tokens(tokenizer, text) for text in fresh)
        return max(2, round(self.stats.n_bytes * max(1, n_tokens) / n_bytes))


def sample_tokenizer(dataset: Dataset, stats: TextStats, recipe: Recipe) -> Tokenizer:
    """A tokenizer of the run's vocabulary and kind, made from a sample, or all of a small text: what its tokens will be like, in a
    second."""
    if stats.n_bytes <= SAMPLE_BYTES:
        texts = list(dataset.texts("train", stats.kinds))
    else:
        texts = list(sample_texts(dataset, "train", stats.kinds, SAMPLE_BYTES))
    return train_tokenizer([text for text in texts if text], recipe.vocab_size, pattern_of(recipe)).tokenizer


def pattern_of(recipe: Recipe) -> Pattern:
    """Transformers and llama.cpp hard-code the pre-tokenisation of an architecture (design 2)."""
    return "gpt2" if recipe.request.arch == "gpt2" else "qwen2"


def _n_tokens(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False))
