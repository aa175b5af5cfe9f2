"""Does `evaluate --against` say "cannot tell" between seeds of one recipe, and "better" for more training?

    python -m bench.seeds FOLDER [--seeds 4] [--steps 60]

Trains small models on this repository's documentation and source, one a seed, and one with a quarter of the steps; compares each
pair of seeds, and the first seed with the short run, on held-out pieces, which are drawn by the file that they are of. A JSON line
a comparison. What is claimed with a smallest difference of interest of 0 % is said beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

from chatwright.engine.load import load_text_model
from chatwright.evaluation.backends.engine import EngineWriter
from chatwright.evaluation.journal import Journal
from chatwright.evaluation.run import Silent, answer_with_writer, prepare
from chatwright.evaluation.scores import TaskScores, compare, score
from chatwright.evaluation.task import Task, text_task
from chatwright.hub import ModelsFolder
from chatwright.settings import load_settings
from chatwright.text.dataset import Dataset

ROOT = Path(__file__).parents[1]


def chatwright(*arguments: object) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "chatwright", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def make_data(folder: Path) -> None:
    """FOLDER/dataset, FOLDER/tokenizer, and FOLDER/held-out.jsonl with the file of each piece as its group."""
    text = folder / "text"
    text.mkdir(parents=True)
    for file in sorted([*(ROOT / "docs" / "en").rglob("*.md"), *(ROOT / "src").rglob("*.py")]):
        shutil.copy(file, text / ("-".join(file.relative_to(ROOT).parts) + ".txt"))
    options = ("--max-document", 4000, "--no-filter", "--near-duplicates", "off", "--held-out", 0.1)
    chatwright("prepare", text, "--out", folder / "dataset", *options)
    chatwright("tokenizer", "train", folder / "dataset", "--vocab-size", 512, "--out", folder / "tokenizer")
    rows = Dataset.open(folder / "dataset").rows("held_out", "documents")
    lines = [json.dumps({"text": row["text"], "group": str(row["source"]).partition(": part ")[0]}) for row in rows]
    (folder / "held-out.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def train(folder: Path, name: str, steps: int, seed: int) -> None:
    options = ("--size", "0.3m", "--steps", steps, "--batch-tokens", 1024, "--context", 256, "--seed", seed)
    chatwright("train", folder / "dataset", "--tokenizer", folder / "tokenizer", *options, "--out", folder / name)


def answers(folder: Path, name: str, task: Task) -> TaskScores:
    """What `evaluate` says of one model on the held-out pieces."""
    _name, path = ModelsFolder(folder).resolve(str(folder / name), allow_path=True)
    writer = EngineWriter(load_text_model(path, name, load_settings({"quantization": "fp32"})))

    async def ask() -> TaskScores:
        try:
            return score((await answer_with_writer(writer, prepare([task]), Journal(), Silent()))[0])
        finally:
            await writer.close()

    return asyncio.run(ask())


def main() -> None:
    parser = argparse.ArgumentParser(description="Seeds of one recipe, and more training, under --against.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pieces", type=int, default=200)
    parser.add_argument("--compare-only", action="store_true", help="the models lie in FOLDER already")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    names = [f"seed-{seed}" for seed in range(arguments.seeds)]
    if not arguments.compare_only:
        make_data(folder)
        for seed, name in enumerate(names):
            train(folder, name, arguments.steps, seed)
        train(folder, "short", arguments.steps // 4, 0)
    task = text_task(folder / "held-out.jsonl").sampled(arguments.pieces)
    scores = {name: answers(folder, name, task) for name in [*names, "short"]}
    print(json.dumps({name: each.figures["bits_per_byte"].estimate for name, each in scores.items()}), flush=True)
    for first, second in [*itertools.combinations(names, 2), (names[0], "short")]:
        told, strict = (compare([scores[first]], [scores[second]], smallest)[0] for smallest in (0.01, 0.0))
        difference = told.comparison.difference
        percent = [
            round(100 * each / told.second, 2) for each in (difference.estimate, difference.low, difference.high)
        ]
        line = {"first": first, "second": second, "difference, %": percent, "verdict": told.verdict}
        more = {"at 0 %": strict.verdict, "p at 0 %": strict.p_value, "n": scores[first].n}
        print(json.dumps(line | more | {"files": len(set(scores[first].groups or ()))}), flush=True)


if __name__ == "__main__":
    main()
