"""Train the classifier of /v1/moderations from labelled sentences.

python scripts/train_moderation.py                      # the shipped one, from the sentences in src/chatwright/moderation/data
python scripts/train_moderation.py --folds 5            # F1 by cross-validation on them, and nothing is written
python scripts/train_moderation.py --data mine.txt --out FOLDER     # with sentences of one's own beside them
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

from chatwright.moderation.classifier import Classifier
from chatwright.moderation.counts import FIGURES, counts, f1
from chatwright.moderation.fitting import fit
from chatwright.moderation.sentences import Sentence, read_sentences, shipped
from chatwright.moderation.words import words_of

DATA = Path(__file__).resolve().parents[1] / "src" / "chatwright" / "moderation" / "data"


# Sentences that share this part of their runs of words are in one fold: else the one would tell the other's label.
ALIKE = 0.2


def alike(sentences: list[Sentence]) -> list[int]:
    """For each sentence the number of the group that it belongs to: all that are near each other, or near to one that is."""
    group = list(range(len(sentences)))

    def first(number: int) -> int:
        while group[number] != number:
            number = group[number]
        return number

    seen: list[set[tuple[str, ...]]] = []
    holding: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, sentence in enumerate(sentences):
        words = words_of(sentence.text)
        sizes = (3, 4) if any("\u3400" <= word <= "\u9fff" for word in words) else (2, 3)
        runs = {tuple(words[i : i + size]) for size in sizes for i in range(len(words) - size + 1)}
        shared = Counter(other for run in runs for other in holding[run])
        for other, n_shared in shared.items():
            if n_shared >= ALIKE * len(runs | seen[other]):
                group[first(number)] = first(other)
        for run in runs:
            holding[run].append(number)
        seen.append(runs)
    return [first(number) for number in range(len(sentences))]


def cross_validated(sentences: list[Sentence], n_folds: int) -> list[frozenset[str]]:
    """What is found in each sentence by a classifier that saw neither it nor one like it. Folds are dealt by hashes."""
    fold_of = [int(hashlib.sha256(sentences[i].text.encode()).hexdigest(), 16) % n_folds for i in alike(sentences)]
    found: dict[int, frozenset[str]] = {}
    for fold in range(n_folds):
        classifier = fit([sentence for sentence, its in zip(sentences, fold_of, strict=True) if its != fold])
        held_out = [i for i, its in enumerate(fold_of) if its == fold]
        found |= {i: classifier.judge(sentences[i].text).flagged for i in held_out}
    return [found[i] for i in range(len(sentences))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="labelled sentences beside the shipped ones")
    parser.add_argument("--folds", type=int, default=0, help="only measure, by cross-validation")
    parser.add_argument("--out", type=Path, default=DATA, help="where to write the classifier")
    given = parser.parse_args()
    sentences = [*shipped(), *read_sentences(given.data)]
    if given.folds:
        found = cross_validated(sentences, given.folds)
        for figure in FIGURES:
            sums = counts(sentences, found, figure).sum(axis=0, keepdims=True)
            hits, wrong, missed = map(int, sums[0])
            print(f"{figure:24} F1 {f1(sums)[0]:.3f}   found {hits}, wrongly {wrong}, missed {missed}")
        return
    classifier: Classifier = fit(sentences)
    classifier.save(given.out)
    print(f"{len(sentences)} sentences, {len(classifier.names)} features: {given.out}")


if __name__ == "__main__":
    main()
