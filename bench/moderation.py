"""How well the moderation classifier finds what it shall find, on sentences that it was not trained with, and what it costs.

    python -m bench.moderation

F1 of "flagged or not" and of each group of categories, with 95 % bootstrap intervals over the sentences; how many harmless ones
are flagged, how many harmless requests as people type them, many with a word that could do harm elsewhere ("How do I crack an
egg?"), and how many blocks of this project's own documentation, which nobody labelled and which is harmless; time a sentence, and
of a stream.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from chatwright.evaluation.statistics import bootstrap_figure
from chatwright.moderation.classifier import Classifier, shipped
from chatwright.moderation.counts import FIGURES, counts, f1
from chatwright.moderation.sentences import Sentence, read_sentences
from chatwright.moderation.watch import TextWatch

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = ROOT / "bench" / "moderation_sentences"
LANGUAGES = ("en", "zh")
TASKS = ROOT / "src" / "chatwright" / "evaluation" / "tasks"
# Harmless texts of these are in the training sentences.
TRAINED_PAGES = ("api", "cli", "compression", "conversations", "data", "evaluation", "export", "fine-tuning")
TRAINED_TASKS = ("everyday", "common-sense", "topics", "reading", "instructions", "translation", "entities")


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


def requests(language: str) -> list[str]:
    """Harmless requests to an assistant that nothing was trained with."""
    return (HELD_OUT / f"requests.{language}.txt").read_text(encoding="utf-8").splitlines()


def documentation(language: str) -> list[str]:
    """Paragraphs, list items and rows of tables of the pages that nothing was trained with, without the one that quotes harm."""
    pages = [
        page
        for page in sorted((ROOT / "docs" / language).glob("*.md"))
        if page.stem not in (*TRAINED_PAGES, "moderation")
    ]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if len(line) > 20 and not line.startswith("```")]


def texts_of_tasks(language: str) -> list[str]:
    """The texts of the shipped tasks that no training sentences are of."""
    tasks = [path for path in sorted((TASKS / language).glob("*.jsonl")) if not path.name.startswith(TRAINED_TASKS)]
    rows = [
        json.loads(line) for path in tasks for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    found = [text for row in rows for text in _texts(row) if len(text) > (20 if language == "en" else 7)]
    return list(dict.fromkeys(found))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


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
        asked = requests(language)
        print(f"  requests: {sum(bool(classifier.judge(text).flagged) for text in asked)} of {len(asked)} flagged")
        lines = documentation(language)
        start = time.process_time()
        flagged = sum(bool(classifier.judge(line).flagged) for line in lines)
        took_s = time.process_time() - start
        us_a_character = 1e6 * took_s / sum(map(len, lines))
        print(f"  documentation: {flagged} of {len(lines)} lines flagged; {us_a_character:.1f} us a character")
        texts = texts_of_tasks(language)
        print(f"  tasks: {sum(bool(classifier.judge(text).flagged) for text in texts)} of {len(texts)} texts flagged")
        harmless = " ".join(line for line in lines if not classifier.judge(line).flagged)[:40_000]
        took_us, held = cost_of_a_stream(classifier, harmless, 4 if language == "en" else 2)
        print(f"  a stream of it: {took_us:.0f} us a piece, {100 * held:.1f} % of the pieces held back for a moment")


if __name__ == "__main__":
    main()
