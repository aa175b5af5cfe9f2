"""Does `evaluate --against` say "cannot tell" between seeds of one recipe, and "better" for more training?

    python -m bench.seeds FOLDER [--seeds 4] [--steps 60]

Trains small models on this repository's documentation and source, one a seed, and one with a quarter of the steps; compares each pair
of seeds, and the first seed with the short run, on held-out pieces, which are drawn by the file that they are of. A JSON line a
comparison. What is claimed with a smallest difference of interest of 0 % is said beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    lines = [json.dumps({"text": row["text"], "group": str(row["source"]).partition("#")[0]}) for row in rows]
    (folder / "held-out.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def train(folder: Path, name: str, steps: int, seed: int) -> None:
    options = ("--size", "0.3m", "--steps", steps, "--batch-tokens", 1024, "--context", 256, "--seed", seed)
    chatwright("train", folder / "dataset", "--tokenizer", folder / "tokenizer", *options, "--out", folder / name)


def compare(folder: Path, first: str, second: str, percent: float) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        chatwright(
            *("evaluate", folder / first, "--against", folder / second, "--tasks", folder / "held-out.jsonl"),
            *("--quantization", "fp32", "--smallest-difference", percent, "--no-card", "--json"),
        )
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Seeds of one recipe, and more training, under --against.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    make_data(folder)
    names = [f"seed-{seed}" for seed in range(arguments.seeds)]
    for seed, name in enumerate(names):
        train(folder, name, arguments.steps, seed)
    train(folder, "short", arguments.steps // 4, 0)
    for first, second in [*itertools.combinations(names, 2), (names[0], "short")]:
        found = compare(folder, first, second, 1.0)
        [told] = found["comparisons"]
        [task] = found["models"][0]["tasks"]
        share = {key: round(100 * told["difference"][key] / told["second"], 2) for key in ("value", "low", "high")}
        without = compare(folder, first, second, 0.0)["comparisons"][0]["verdict"]
        line = {"first": first, "second": second, "percent": share, "p": told["p_value_corrected"]}
        counts = {"n": task["n"], "files": task.get("n_groups")}
        print(json.dumps(line | {"verdict": told["verdict"], "at 0 %": without} | counts), flush=True)


if __name__ == "__main__":
    main()
