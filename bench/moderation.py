"""How well the moderation classifier finds what it shall find, on sentences that it was not trained with, and what it costs.

    python -m bench.moderation

F1 of "flagged or not" and of each group of categories, with 95 % bootstrap intervals over the sentences; how many harmless ones
are flagged, and how many blocks of this project's own documentation, which nobody labelled and which is harmless; time a
sentence, and of a stream.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from chatwright.evaluation.statistics import bootstrap_figure
from chatwright.moderation.classifier import Classifier, shipped
from chatwright.moderation.counts import FIGURES, counts, f1
from chatwright.moderation.sentences import Sentence, read_sentences
from chatwright.moderation.watch import TextWatch

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = ROOT / "bench" / "moderation_sentences"
LANGUAGES = ("en", "zh")


def held_out(language: str) -> list[Sentence]:
    """The held-out sentences of a language."""
    return read_sentences([HELD_OUT / f"heldout.{language}.txt"])


def table(sentences: Sequence[Sentence], classifier: Classifier) -> list[str]:
    """A line for each figure."""
    found = [classifier.judge(sentence.text).flagged for sentence in sentences]
    lines = []
    for figure in FIGURES:
        rows_N3 = counts(sentences, found, figure)
        hits, wrong, missed = map(int, rows_N3.sum(axis=0))
        interval = bootstrap_figure(rows_N3, f1)
        lines.append(
            f"{figure:24} F1 {interval.estimate:.2f} ({interval.low:.2f} to {interval.high:.2f})   of {hits + missed} found {hits},"
            f" wrongly {wrong}"
        )
    return lines


def documentation(language: str) -> list[str]:
    """Paragraphs, list items and rows of tables."""
    lines = [line for path in sorted((ROOT / "docs" / language).glob("*.md")) for line in path.read_text().splitlines()]
    return [line for line in lines if len(line) > 20 and not line.startswith("```")]


def cost_of_a_stream(classifier: Classifier, text: str, n_characters: int) -> tuple[float, float]:
    """(microseconds a piece, share of the pieces that were held back) of a text that comes in pieces of so many characters."""
    pieces = [text[start : start + n_characters] for start in range(0, len(text), n_characters)]
    watch = TextWatch(classifier)
    start_s = time.process_time()
    looks = [watch.look(piece) for piece in pieces]
    return 1e6 * (time.process_time() - start_s) / len(pieces), looks.count("hold") / len(looks)


def main() -> None:
    classifier = shipped()
    for language in LANGUAGES:
        sentences = held_out(language)
        print(f"{language}: {len(sentences)} held-out sentences")
        print("\n".join("  " + line for line in table(sentences, classifier)))
        lines = documentation(language)
        start = time.process_time()
        flagged = sum(bool(classifier.judge(line).flagged) for line in lines)
        took_s = time.process_time() - start
        us_a_character = 1e6 * took_s / sum(map(len, lines))
        print(f"  documentation: {flagged} of {len(lines)} lines flagged; {us_a_character:.1f} us a character")
        harmless = " ".join(line for line in lines if not classifier.judge(line).flagged)[:40_000]
        took_us, held = cost_of_a_stream(classifier, harmless, 4 if language == "en" else 2)
        print(f"  a stream of it: {took_us:.0f} us a piece, {100 * held:.1f} % of the pieces held back for a moment")


if __name__ == "__main__":
    main()
