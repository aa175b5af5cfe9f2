"""The classifier: for a text the probability of each category, the highest of all its windows."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from chatwright.errors import InvalidModelError
from chatwright.moderation.categories import CATEGORIES, group_of, with_groups
from chatwright.moderation.features import features
from chatwright.moderation.vectors import word_vectors
from chatwright.moderation.windows import windows
from chatwright.moderation.words import Lexicon, lexicon

WEIGHTS_FILE = "weights.safetensors"
FEATURES_FILE = "features.json"
_GROUP_COLUMNS = [CATEGORIES.index(group_of(name)) for name in CATEGORIES]


@dataclass(frozen=True)
class Verdict:
    """`scores`: a probability for each category. `flagged`: the categories that the text falls into."""

    scores: Mapping[str, float]
    flagged: frozenset[str]


class Classifier:
    """A row of weights for each feature and each dimension of words' vectors, a column for each category. `thresholds`: from which
    probability on a category holds."""

    def __init__(
        self,
        names: Sequence[str],
        weights_FC: NDArray[np.float32],
        of_vectors_DC: NDArray[np.float32],
        bias_C: NDArray[np.float32],
        thresholds_C: NDArray[np.float32],
        words: Lexicon | None = None,
    ) -> None:
        self.names = names
        self.weights_FC, self.bias_C, self.thresholds_C = weights_FC, bias_C, thresholds_C
        self.of_vectors_DC = of_vectors_DC
        self._rows = {name: row for row, name in enumerate(names)}
        self._lexicon = words or lexicon()
        self._vectors = word_vectors()

    def judge(self, text: str) -> Verdict:
        """Of the whole text, however long."""
        judging = self.judging(text)
        while True:
            try:
                next(judging)
            except StopIteration as end:
                verdict: Verdict = end.value
                return verdict

    def judging(self, text: str) -> Generator[None, None, Verdict]:
        """The same in steps of a millisecond or less, for who has other things to do."""
        highest_C = np.full(len(CATEGORIES), -np.inf, dtype=np.float32)
        for words in windows(text):
            np.maximum(highest_C, self.logits(words), out=highest_C)
            yield
        return self.verdict(highest_C)

    def logits(self, words: Sequence[str]) -> NDArray[np.float32]:
        """(C,) of one window."""
        of_words, of_kinds = features(words, self._lexicon)
        rows = self._rows
        some = [rows[name] for name in of_words if name in rows]
        kinds = [rows[name] for name in of_kinds if name in rows]
        logits_C: NDArray[np.float32] = self.bias_C + self.weights_FC[kinds].sum(axis=0)
        if some:
            logits_C += self.weights_FC[some].sum(axis=0) / math.sqrt(len(of_words))
        logits_C += self._vectors.of(words) @ self.of_vectors_DC
        return logits_C

    def nearness(self, words: Sequence[str]) -> float:
        """The highest share of its threshold that a category reaches in one window; from 1 on it is flagged."""
        return float(((1.0 / (1.0 + np.exp(-self.logits(words)))) / self.thresholds_C).max())

    def verdict(self, logits_C: NDArray[np.float32]) -> Verdict:
        """A category is at least as probable as those within it."""
        scores_C = 1.0 / (1.0 + np.exp(-logits_C))
        np.maximum.at(scores_C, _GROUP_COLUMNS, scores_C)
        flagged = [name for name, is_so in zip(CATEGORIES, scores_C >= self.thresholds_C, strict=True) if is_so]
        scores = dict(zip(CATEGORIES, map(float, scores_C), strict=True))
        return Verdict(scores, with_groups(flagged))

    def save(self, folder: Path) -> None:
        """Write both files; the same classifier gives the same bytes."""
        tensors: dict[str, NDArray[Any]] = {
            "weights": self.weights_FC.astype(np.float16),
            "of_vectors": self.of_vectors_DC.astype(np.float32),
            "bias": self.bias_C.astype(np.float32),
            "thresholds": self.thresholds_C.astype(np.float32),
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS_FILE)
        names = json.dumps({"categories": CATEGORIES, "features": self.names}, ensure_ascii=False, indent=0)
        (folder / FEATURES_FILE).write_text(names + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises InvalidModelError."""
        try:
            listed = json.loads((folder / FEATURES_FILE).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS_FILE)
            names, categories = listed["features"], listed["categories"]
            weights_FC, of_vectors_DC, bias_C, thresholds_C = (
                tensors[name] for name in ("weights", "of_vectors", "bias", "thresholds")
            )
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise InvalidModelError(
                "{path} is no moderation classifier: it needs {weights} and {features}, as "
                "`scripts/train_moderation.py` writes them.",
                path=folder,
                weights=WEIGHTS_FILE,
                features=FEATURES_FILE,
            ) from error
        n = len(CATEGORIES)
        if (
            tuple(categories) != CATEGORIES
            or weights_FC.shape != (len(names), n)
            or of_vectors_DC.shape != (word_vectors().n_dimensions, n)
            or {bias_C.shape, thresholds_C.shape} != {(n,)}
        ):
            raise InvalidModelError(
                "The moderation classifier in {path} has other categories or features than this version: train it again.",
                path=folder,
            )
        return cls(names, weights_FC.astype(np.float32), of_vectors_DC, bias_C, thresholds_C)


@cache
def shipped() -> Classifier:
    """The one that comes with Chatwright."""
    with as_file(files("chatwright.moderation") / "data") as folder:
        return Classifier.load(folder)
