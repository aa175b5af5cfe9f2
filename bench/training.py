"""Training beside the plain recipe: held-out bits per byte in equal time on equal text, and the time to reach its value.

    python -m bench.training DATASET [--seconds 300 --lrs 5e-4,1e-3,2e-3 --seeds 0,1,2 --fractions 0.25,0.5,1]

The plain recipe at three learning rates with the first seed and at the best of them with the others, and ours by `chatwright train
--minutes`; one evaluator for both: the same
held-out bytes, windows of 256 tokens with a stride of 128. The time in which ours reaches the plain recipe's best comes from runs
of ours that are shorter (a run's schedule belongs to its length), interpolated over the logarithm of time. The plain recipe's time
is its steps alone; ours has its evaluations, samples and checkpoints in it. One JSON line a figure. Use a machine that does nothing
else; the throughput of both is `bench/throughput.py`'s.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import torch

from bench.figures import report
from bench.plain_recipe import PlainData, Shape, plain_data, train_plain
from chatwright.evaluation.bits_per_byte import LanguageModel, bits_per_byte
from chatwright.evaluation.documents import EncodedDocument, document_boundary, encode_documents
from chatwright.machine import available_cores
from chatwright.model.load import load_language_model
from chatwright.text.dataset import Dataset
from chatwright.tokenizer.load import load_tokenizer

CONTEXT, STRIDE = 256, 128


def held_out_texts(dataset: Dataset, most_bytes: int) -> list[str]:
    """The first held-out documents."""
    texts, n_bytes = [], 0
    for text in dataset.texts("held_out", ["documents"]):
        if n_bytes >= most_bytes:
            break
        texts.append(text)
        n_bytes += len(text.encode())
    return texts


def score(model: LanguageModel, documents: list[EncodedDocument]) -> float:
    """The one evaluator."""
    return bits_per_byte(model, documents, CONTEXT, stride=STRIDE)


def ours_in(arguments: argparse.Namespace, texts: list[str], seconds: float, seed: int) -> tuple[float, float, int]:
    """Bits per byte, seconds from the first to the last event, and parameters of a run of `chatwright train`."""
    with tempfile.TemporaryDirectory(prefix="chatwright-bench-") as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "chatwright", "train", arguments.dataset, "--minutes", f"{seconds / 60:.4f}"]
        command += ["--seed", str(seed), "--out", str(run), *arguments.flags.split()]
        subprocess.run(command, check=True, stdout=sys.stderr)
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        began, ended = (
            datetime.fromisoformat(next(e["time"] for e in events if e["event"] == name))
            for name in ("started", "finished")
        )
        model, tokenizer = load_language_model(run / "model"), load_tokenizer(run / "model")
        boundary = document_boundary(tokenizer)
        documents = encode_documents(tokenizer, texts, start_id=boundary, end_id=boundary)
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        return score(model, documents), (ended - began).total_seconds(), n_parameters


def plain_in(data: PlainData, texts: list[str], arguments: argparse.Namespace, lr: float, seed: int) -> float:
    """Bits per byte of the plain recipe after the same seconds."""
    bf16 = arguments.plain_precision == "bf16"
    result = train_plain(data.stream, Shape(), seconds=arguments.seconds, lr=lr, seed=seed, bf16=bf16)
    return score(result.model, data.held_out[: len(texts)])


def time_to_reach(value: float, seconds: list[float], values: list[float]) -> float | None:
    """Where ours crosses `value`, by interpolation over ln(seconds); None when no run of ours reached it."""
    points = sorted(zip(seconds, values, strict=True))
    if points[0][1] <= value:
        return points[0][0]
    for (t0, v0), (t1, v1) in pairwise(points):
        if v1 <= value < v0:
            return math.exp(math.log(t0) + (v0 - value) / (v0 - v1) * math.log(t1 / t0))
    return None


def quality(arguments: argparse.Namespace) -> None:
    """Both recipes, in turns, seed by seed."""
    dataset = Dataset.open(arguments.dataset)
    texts = held_out_texts(dataset, arguments.held_out_bytes)
    data = plain_data(dataset, Shape().vocab_size)
    lrs = [float(lr) for lr in arguments.lrs.split(",")]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    fractions = [float(fraction) for fraction in arguments.fractions.split(",")]
    plain: dict[float, list[float]] = {lr: [] for lr in lrs}
    ours: dict[float, list[tuple[float, float, int]]] = {fraction: [] for fraction in fractions}
    for seed in seeds:
        swept = seed == seeds[0]
        for lr in lrs if swept else [min(lrs, key=lambda lr: plain[lr][0])]:
            plain[lr].append(plain_in(data, texts, arguments, lr, seed))
            report(
                "one run, plain recipe",
                round(plain[lr][-1], 4),
                "bits per byte",
                lr=lr,
                seed=seed,
                seconds=arguments.seconds,
            )
        for fraction in fractions:
            ours[fraction].append(ours_in(arguments, texts, fraction * arguments.seconds, seed))
            value, seconds, n_parameters = ours[fraction][-1]
            report(
                "one run, ours",
                round(value, 4),
                "bits per byte",
                seed=seed,
                seconds=round(seconds, 1),
                parameters=n_parameters,
            )
    best_lr = min(lrs, key=lambda lr: plain[lr][0])
    target = statistics.fmean(plain[best_lr])
    spread = statistics.stdev(plain[best_lr]) if len(seeds) > 1 else None
    common = {"n": len(seeds), "seeds": seeds, "dataset": Path(arguments.dataset).name}
    report(
        f"plain recipe after {arguments.seconds:g} s",
        round(target, 4),
        "bits per byte",
        sd=None if spread is None else round(spread, 4),
        lr=best_lr,
        lrs={str(lr): round(statistics.fmean(values), 4) for lr, values in plain.items()},
        precision=arguments.plain_precision,
        **common,
    )
    for fraction in fractions:
        values = [value for value, _, _ in ours[fraction]]
        report(
            f"ours after {fraction:g} of that time",
            round(statistics.fmean(values), 4),
            "bits per byte",
            sd=round(statistics.stdev(values), 4) if len(values) > 1 else None,
            seconds=round(statistics.fmean(seconds for _, seconds, _ in ours[fraction]), 1),
            ratio=round(statistics.fmean(values) / target, 4),
            **common,
        )
    reached = time_to_reach(
        target,
        [statistics.fmean(seconds for _, seconds, _ in ours[fraction]) for fraction in fractions],
        [statistics.fmean(value for value, _, _ in ours[fraction]) for fraction in fractions],
    )
    report(
        "time in which ours reaches the plain recipe's value",
        None if reached is None else round(reached, 1),
        "s",
        share_of_its_time=None if reached is None else round(reached / arguments.seconds, 3),
        **common,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("dataset")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--lrs", default="5e-4,1e-3,2e-3")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--fractions", default="0.25,0.5,1", help="of the seconds, for ours")
    parser.add_argument("--plain-precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--held-out-bytes", type=int, default=400_000)
    parser.add_argument("--flags", default="", help="more flags for chatwright train")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quality(arguments)


if __name__ == "__main__":
    main()
