"""Where the constants of the plan's expected bits per byte come from: many small runs, and a fit.

    python -m bench.plan_calibration run RUNS.jsonl DATASET… [--sizes 0.3m,1m,3m --tokens 0.25m,1m,3m --most 5e12]
    python -m bench.plan_calibration fit RUNS.jsonl

`run` trains each size on each number of tokens with the recipe's own settings and appends one line a run to RUNS.jsonl (runs that
are there are not done again; those of more than `--most` parameters x tokens are left out; `--limit N` stops after N). `fit` prints
the constants for `chatwright.training.expectation` and how far they are off: on the runs themselves, and on each dataset when it
was left out of the fit.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chatwright.evaluation.documents import document_boundary
from chatwright.model.gpt import GPT
from chatwright.model.init import initialise
from chatwright.model.presets import parse_size
from chatwright.model.rnn import RNN
from chatwright.model.rnn_config import RNNConfig
from chatwright.text.dataset import Dataset
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.train import train_tokenizer
from chatwright.training.difficulty import Difficulty, measure_difficulty
from chatwright.training.distributed import World
from chatwright.training.expectation import CONSTANTS, Constants, Expected, expect
from chatwright.training.optimizer import Optimizers
from chatwright.training.plan import sample_tokenizer
from chatwright.training.pretraining import Pretraining, read_held_out
from chatwright.training.progress import Silent
from chatwright.training.recipe import Recipe, best_batch_tokens, fit_tokens, resolve
from chatwright.training.request import Request
from chatwright.training.run import TOKENIZER
from chatwright.training.speed import measure_machine
from chatwright.training.stats import text_stats
from chatwright.training.step import Stepper
from chatwright.training.text_side import prepare_tokens


def run_one(dataset: Dataset, request: Request, work: Path, device: torch.device) -> dict[str, Any]:
    """Trains one model and scores it; no run folder, no evaluations on the way."""
    stats, machine = text_stats(dataset), measure_machine(device)
    recipe = resolve(stats, request, machine)
    difficulty = measure_difficulty(dataset, stats.kinds, sample_tokenizer(dataset, stats, recipe))
    assert difficulty is not None, "the dataset has no held-out text"
    folder = work / f"{dataset.fingerprint[:12]}-{recipe.vocab_size}"
    if not (folder / TOKENIZER).exists():
        folder.mkdir(parents=True, exist_ok=True)
        pattern = "gpt2" if request.arch == "gpt2" else "qwen2"
        train_tokenizer(dataset.texts("train", stats.kinds), recipe.vocab_size, pattern).save(folder / TOKENIZER)
    tokenizer = load_tokenizer(folder / TOKENIZER)
    tokens = prepare_tokens(folder, dataset, stats.kinds, 0.0, 0, Silent())
    recipe = fit_tokens(recipe, tokens.n_tokens, tokens.n_bytes, tokenizer.vocab_size)
    model = RNN(recipe.model) if isinstance(recipe.model, RNNConfig) else GPT(recipe.model, recipe.dropout)
    initialise(model, request.seed)
    boundary = document_boundary(tokenizer)
    held_out = read_held_out(dataset, stats.kinds, tokenizer, boundary, part_bytes=1, most_bytes=400_000)
    objective = Pretraining(
        model.to(device),
        tokenizer,
        tokens,
        held_out,
        context_length=recipe.context_length,
        seed=request.seed,
        name_documents=lambda numbers: [],
        write_model=lambda trained, target: None,
    )
    stepper = Stepper(objective, recipe.training, Optimizers(model, recipe.training), World())
    model.train()
    began = time.perf_counter()
    for step in range(recipe.training.n_steps):
        stepper.step(step)
    seconds = time.perf_counter() - began
    with torch.no_grad(), stepper.autocast():
        figures = objective.evaluate(full=True)
    return describe(recipe, figures["bits_per_byte"]) | {
        "difficulty": asdict(difficulty),
        "seconds": round(seconds, 1),
    }


def describe(recipe: Recipe, bits_per_byte: float) -> dict[str, Any]:
    """What the law is a function of, and what came out."""
    return {
        "arch": recipe.request.arch if recipe.request.arch != "rnn" else recipe.request.cell or "lstm",
        "expected_from": asdict(Expected.of(recipe)),
        "n_parameters": recipe.n_parameters,
        "n_steps": recipe.training.n_steps,
        "tokens_per_step": recipe.tokens_per_step,
        "seed": recipe.request.seed,
        "bits_per_byte": round(bits_per_byte, 5),
    }


def run(arguments: argparse.Namespace) -> None:
    """Every combination that is not there yet, the cheapest first."""
    file: Path = arguments.runs
    done = {json.loads(line)["key"] for line in file.read_text().splitlines()} if file.exists() else set()
    device = torch.device(arguments.device)
    grid = list(product(arguments.arch.split(","), arguments.sizes.split(","), arguments.tokens.split(",")))
    n_runs = 0
    grid.sort(key=lambda each: parse_size(each[1]) * parse_size(each[2]))
    for (arch, size, tokens), path in product(grid, arguments.datasets):
        n_tokens = parse_size(tokens)
        if parse_size(size) * n_tokens > arguments.most:
            continue
        dataset = Dataset.open(path)
        key = f"{Path(path).name} {dataset.fingerprint[:8]} {arch} {size} {tokens} {arguments.seed}"
        if key in done or n_runs == arguments.limit:
            continue
        n_runs += 1
        batch = best_batch_tokens(n_tokens)
        request = Request(
            size=parse_size(size),
            arch="rnn" if arch in ("rnn", "lstm") else arch,
            cell=arch if arch in ("rnn", "lstm") else None,
            steps=max(1, n_tokens // batch),
            batch_tokens=batch,
            seed=arguments.seed,
        )
        figure = {"key": key, "dataset": Path(path).name} | run_one(dataset, request, arguments.work, device)
        with file.open("a") as out:
            out.write(json.dumps(figure) + "\n")
        print(key, figure["bits_per_byte"], f"{figure['seconds']} s", file=sys.stderr, flush=True)


def fit(arguments: argparse.Namespace) -> None:
    """The constants, by least squares of the relative error."""
    rows = [json.loads(line) for line in arguments.runs.read_text().splitlines()]
    rows = [row for row in rows if row["arch"] in ("qwen3", "gpt2")]
    constants = fitted(rows)
    print(json.dumps({"constants": asdict(constants), "n": len(rows), **errors(rows, constants)}, indent=2))
    for name in sorted({row["dataset"] for row in rows}):
        others = [row for row in rows if row["dataset"] != name]
        if others:
            figure = errors([row for row in rows if row["dataset"] == name], fitted(others))
            print(json.dumps({"left out of the fit": name, **figure}))


def fitted(rows: list[dict[str, Any]]) -> Constants:
    """Gauss-Newton, damped, from the constants that are there: few numbers and a smooth law need no more."""
    names = list(asdict(CONSTANTS))
    values = np.array(list(asdict(CONSTANTS).values()))
    prior, weight = values.copy(), 1e-3
    for _ in range(200):
        base = residuals(rows, Constants(*values))
        steps = np.maximum(1e-4, 1e-4 * np.abs(values))
        jacobian = np.stack(
            [
                (residuals(rows, Constants(*(values + step * (np.arange(len(names)) == i)))) - base) / step
                for i, step in enumerate(steps)
            ],
            axis=1,
        )
        left = jacobian.T @ jacobian + weight * np.eye(len(names))
        change = np.linalg.solve(left, -jacobian.T @ base - weight * (values - prior))
        values = values + np.clip(change, -0.1, 0.1)
        if np.abs(change).max() < 1e-7:
            break
    return Constants(*(round(float(value), 4) for value in values))


def residuals(rows: list[dict[str, Any]], constants: Constants) -> np.ndarray[Any, np.dtype[np.float64]]:
    """ln of expected over measured."""
    return np.array(
        [
            math.log(
                expect(Difficulty(**row["difficulty"]), Expected(**row["expected_from"]), constants).bits_per_byte
                / row["bits_per_byte"]
            )
            for row in rows
        ]
    )


def errors(rows: list[dict[str, Any]], constants: Constants) -> dict[str, Any]:
    """Relative errors of the expectation in percent."""
    relative = 100 * np.abs(np.exp(residuals(rows, constants)) - 1)
    return {
        "mean_error_percent": round(float(relative.mean()), 2),
        "max_error_percent": round(float(relative.max()), 2),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("runs", type=Path)
    runner.add_argument("datasets", nargs="+")
    runner.add_argument("--sizes", default="0.3m,1m,3m,10m")
    runner.add_argument("--tokens", default="0.25m,0.5m,1m,2m,4m")
    runner.add_argument("--most", type=float, default=5e12, help="parameters x tokens of the largest run")
    runner.add_argument("--limit", type=int, default=-1, help="runs to do")
    runner.add_argument("--arch", default="qwen3")
    runner.add_argument("--seed", type=int, default=0)
    runner.add_argument("--device", default="cpu")
    runner.add_argument("--work", type=Path, default=Path("calibration-work"))
    fitter = verbs.add_parser("fit")
    fitter.add_argument("runs", type=Path)
    arguments = parser.parse_args()
    {"run": run, "fit": fit}[arguments.verb](arguments)


if __name__ == "__main__":
    main()
