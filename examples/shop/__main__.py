"""python -m examples.shop FOLDER [--seed 0] [--rows N]: write the made data of the shop."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from examples.shop import __doc__ as about
from examples.shop.facts import LANGUAGES, Language
from examples.shop.make import Row, conversations, entities, exam, intents, preferences

FILES: dict[str, Callable[[Language, int], list[Row]]] = {
    "conversations.jsonl": conversations,
    "exam.jsonl": exam,
    "preferences.jsonl": preferences,
    "intents.jsonl": intents,
    "entities.jsonl": entities,
}


def write(folder: Path, seed: int, n_rows: int | None = None) -> dict[str, int]:
    """Write FOLDER/LANGUAGE/FILE for each; returns the number of rows by path."""
    counts = {}
    for language in LANGUAGES:
        (folder / language).mkdir(parents=True)
        for name, make in FILES.items():
            rows = make(language, seed)[:n_rows]
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / language / name).write_text("".join(lines), encoding="utf-8")
            counts[f"{language}/{name}"] = len(rows)
    (folder / "README.md").write_text(f"{about}\nSeed {seed}.\n", encoding="utf-8")
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.shop", description="Customer service of a shop that does not exist."
    )
    parser.add_argument("folder", type=Path, help="the folder to make")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws and orders otherwise (default 0)")
    parser.add_argument("--rows", type=int, help="at most this many rows a file")
    chosen = parser.parse_args(arguments)
    if chosen.folder.exists():
        sys.exit(f"{chosen.folder} exists already: remove it, or name another folder.")
    for name, n_rows in write(chosen.folder, chosen.seed, chosen.rows).items():
        print(f"{chosen.folder / name}: {n_rows} rows", file=sys.stderr)


if __name__ == "__main__":
    main()
