"""Train the classifier of /v1/moderations from labelled sentences.

python scripts/train_moderation.py                      # the shipped one, from the sentences in src/chatwright/moderation/data
python scripts/train_moderation.py --folds 5            # F1 by cross-validation on them, and nothing is written
python scripts/train_moderation.py --data mine.txt --out FOLDER     # with sentences of one's own beside them
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from chatwright.moderation.classifier import Classifier
from chatwright.moderation.counts import FIGURES, counts, f1
from chatwright.moderation.fitting import fit
from chatwright.moderation.sentences import Sentence, read_sentences, shipped

DATA = Path(__file__).resolve().parents[1] / "src" / "chatwright" / "moderation" / "data"


def cross_validated(sentences: list[Sentence], n_folds: int) -> list[frozenset[str]]:
    """What is found in each sentence by a classifier that did not see it. Folds are dealt by the sentences' hashes."""
    order = sorted(range(len(sentences)), key=lambda i: hashlib.sha256(sentences[i].text.encode()).hexdigest())
    found: dict[int, frozenset[str]] = {}
    for fold in range(n_folds):
        held_out = set(order[fold::n_folds])
        classifier = fit([sentence for i, sentence in enumerate(sentences) if i not in held_out])
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
