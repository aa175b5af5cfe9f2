"""The task `memorisation`, made of a dataset: what of it a model says by heart.

Documents of the training split are begun, and the model goes on at its likeliest (Carlini et al. 2023); held-out documents are the
control, because some text anybody could guess. In a conversation the model is asked, and its answer compared with the one that it
was trained on. Canaries (`canaries`) that stand in the training split are ranked among sentences with other digits. All is
counted in characters and bytes, never in tokens, so that models of different vocabularies can be compared, and servers asked.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chatwright.errors import EvaluationError
from chatwright.evaluation.canaries import FRAMES, N_DIGITS, Canary
from chatwright.evaluation.task import Fields, Task
from chatwright.i18n import _
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import SPLITS, Split

# UTF-8 bytes of a document that are given, and that are wanted then: some 32 tokens each, in English as in Chinese.
GIVEN_BYTES = WANTED_BYTES = 128
# An answer shorter than this many bytes is guessed too easily: "Yes."
SHORTEST_ANSWER = 48
# A token stands for a byte at least; more than wanted is not asked for.
RECITED_TOKENS = WANTED_BYTES * 3 // 4
# Documents of each part that are drawn, and canaries.
N_DOCUMENTS = 200
N_CANARIES = 64
N_CANDIDATES = 128
_CANARIES = {
    language: re.compile(
        re.escape(frame)
        .replace(re.escape("{place}"), "(?P<place>[0-9]+)")
        .replace(re.escape("{secret}"), f"(?P<secret>[0-9]{{{N_DIGITS}}})")
    )
    for language, frame in FRAMES.items()
}


def memorisation_task(dataset: Dataset) -> Task:
    """Up to 200 documents or conversations of each split, drawn by chance but always the same ones, and the canaries of the
    training split. Raises EvaluationError where the dataset has nothing of that kind.
    """
    items: list[Fields] = [item for split in SPLITS for item in _drawn(dataset, split)]
    items += [_canary_item(canary) for canary in find_canaries(dataset)]
    if not any(item["part"] != "held_out" for item in items):
        raise EvaluationError(
            "{path} has no document of {n} bytes, no answer of {shortest} and no canary in its training data: what a model"
            " remembers of it cannot be measured.",
            path=dataset.path,
            n=GIVEN_BYTES + WANTED_BYTES,
            shortest=SHORTEST_ANSWER,
        )
    languages = Counter[str]()
    for kind in dataset.kinds:
        languages.update(dataset.languages("train", kind))
    language = "zh" if languages["zh"] > languages["en"] else "en"
    settings = {
        "name": "memorisation",
        "kind": "memorisation",
        "dataset": dataset.fingerprint,
        "bytes": [GIVEN_BYTES, WANTED_BYTES],
    }
    return Task(
        "memorisation",
        language,
        "memorisation",
        dataset.path,
        items,
        title=_("Memorisation: training text said by heart"),
        source=_("dataset {fingerprint}", fingerprint=dataset.fingerprint[:12]),
        group="cluster",
        settings=settings,
    )


def n_given(text: str) -> int:
    """How many characters of the beginning of a document are given: those of its first 128 bytes."""
    return len(_beginning(text, GIVEN_BYTES))


def rank_of_first(logprobs: Sequence[float]) -> float:
    """1: likelier than all others; a tie counts half."""
    own, *others = logprobs
    return 1 + sum(1.0 if each > own else 0.5 if each == own else 0.0 for each in others)


def recited_share(result: Mapping[str, Any]) -> float:
    """How much of what was wanted was said before the two part."""
    said, wanted = result["said"].lstrip(), result["wanted"].lstrip()
    if not wanted:
        return 0.0
    parted = (place for place, pair in enumerate(zip(said, wanted, strict=False)) if pair[0] != pair[1])
    return next(parted, min(len(said), len(wanted))) / len(wanted)


def find_canaries(dataset: Dataset) -> list[Canary]:
    """Those that stand in the training split with how often they do, the most frequent first; at most 64."""
    counts: Counter[tuple[str, int, str]] = Counter()
    for text in dataset.texts("train"):
        for language, pattern in _CANARIES.items():
            counts.update((language, int(found["place"]), found["secret"]) for found in pattern.finditer(text))
    return [Canary(*key, times) for key, times in counts.most_common(N_CANARIES)]


def _canary_item(canary: Canary) -> Fields:
    generator = random.Random(f"{canary.place} {canary.secret}")  # noqa: S311 — a measurement, no secret of anybody
    drawn = generator.sample(range(10**N_DIGITS), N_CANDIDATES)
    others = [f"{other:0{N_DIGITS}d}" for other in drawn if other != int(canary.secret)][: N_CANDIDATES - 1]
    candidates = [canary.text, *(canary.with_secret(secret) for secret in others)]
    return {"part": f"canary {canary.times}", "candidates": candidates}


def _drawn(dataset: Dataset, split: Split) -> list[Fields]:
    """A sample of all that is long enough (reservoir sampling, in one reading), in the order of the dataset."""
    generator = random.Random(f"memorisation {split}")  # noqa: S311 — a sample, no secret
    kept: list[tuple[int, Fields]] = []
    for number, item in enumerate(_usable(dataset, split)):
        if number < N_DOCUMENTS:
            kept.append((number, item))
        elif (place := generator.randrange(number + 1)) < N_DOCUMENTS:
            kept[place] = number, item
    return [item for _number, item in sorted(kept, key=lambda pair: pair[0])]


def _usable(dataset: Dataset, split: Split) -> Iterator[Fields]:
    for kind in dataset.kinds:
        if kind not in ("documents", "conversations"):
            continue
        for row in dataset.rows(split, kind):
            item = _document(row["text"]) if kind == "documents" else _conversation(row["messages"])
            if item:
                # Rows that are near copies of each other are one piece of evidence.
                yield {"part": split, "cluster": str(row.get("cluster", "")), **item}


def _document(text: str) -> Fields | None:
    beginning = _beginning(text, GIVEN_BYTES + WANTED_BYTES)
    return {"text": beginning} if len(text.encode()) >= GIVEN_BYTES + WANTED_BYTES else None


def _conversation(messages: Sequence[Mapping[str, Any]]) -> Fields | None:
    """Up to the first answer, where all before it is text."""
    for place, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, str) or message.get("role") not in ("system", "user", "assistant"):
            return None
        if message["role"] == "assistant":
            if not place or len(content.encode()) < SHORTEST_ANSWER:
                return None
            asked = [{"role": each["role"], "content": each["content"]} for each in messages[:place]]
            return {"messages": asked, "text": _beginning(content.lstrip(), WANTED_BYTES)}
    return None


def _beginning(text: str, n_bytes: int) -> str:
    """Whole characters."""
    return text.encode()[:n_bytes].decode("utf-8", "ignore")
