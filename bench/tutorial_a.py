"""The figures of Tutorial A: bits per byte beside Kneser-Ney n-grams on the same held-out documents, and verbatim copies.

    python -m bench.tutorial_a FOLDER [--measure-only]

Runs the commands of docs/en/tutorials/documents.md in FOLDER, as they stand there (a server is not started), then measures. With
`--measure-only` the dataset and the run lie there already. One JSON line a figure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.figures import report
from chatwright.evaluation.bits_per_byte import score_documents
from chatwright.evaluation.documents import EncodedDocument, document_boundary, encode_bytes, encode_documents
from chatwright.evaluation.generate import generate_answers
from chatwright.evaluation.memorisation import longest_copied_runs
from chatwright.evaluation.ngram import KneserNey
from chatwright.model.load import load_model
from chatwright.text.dataset import Dataset
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.tokenizer import Tokenizer
from examples.tutorial import PAGES, ROOT, commands

DATASET, RUN = "playground/manuals-dataset", "playground/manuals-run"
NOT_HERE = ("chatwright serve", "chatwright complete", "curl", "cat")
N_SAMPLES, SAMPLE_TOKENS = 50, 256


def run_commands(page: Sequence[str], folder: Path) -> None:
    """Every command but the server's and those that only look at something, with this environment's programs."""
    folder.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in page:
        if not command.startswith(NOT_HERE):
            print(f"$ {command}", file=sys.stderr)
            environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
            subprocess.run(command, shell=True, check=True, cwd=folder, env=environment, stdout=sys.stderr)


def held_out_by_language(dataset: Dataset) -> dict[str, list[str]]:
    """Held-out texts by language, and all of them under "all"."""
    texts: dict[str, list[str]] = {"all": []}
    for row in dataset.rows("held_out", "documents"):
        texts["all"].append(row["text"])
        texts.setdefault(row["language"], []).append(row["text"])
    return texts


def measure_bits_per_byte(dataset: Dataset, tokenizer: Tokenizer, model: Any) -> None:
    """The model's, and those of 5-grams of its own tokens and of bytes, trained on the same split."""
    boundary = document_boundary(tokenizer)
    train = encode_documents(tokenizer, dataset.texts("train", ["documents"]), start_id=boundary, end_id=boundary)
    held_out = held_out_by_language(dataset)

    def encode(texts: list[str]) -> list[EncodedDocument]:
        return encode_documents(tokenizer, texts, start_id=boundary, end_id=boundary)

    by_tokens = KneserNey.fit(train, tokenizer.vocab_size, order=5)
    for language, texts in held_out.items():
        documents = encode(texts)
        scores = score_documents(model, documents, model.config.context_length)
        figure = {"n": len(documents), "bytes": int(scores.n_bytes.sum()), "language": language}
        report("held-out bits per byte, model", round(scores.bits_per_byte, 4), "bits/byte", **figure)
        baseline = by_tokens.score(documents).bits_per_byte
        report(
            "held-out bits per byte, 5-gram Kneser-Ney over the same tokens", round(baseline, 4), "bits/byte", **figure
        )
    del by_tokens, train
    by_bytes = KneserNey.fit(encode_bytes(dataset.texts("train", ["documents"])), 257, order=5)
    baseline = by_bytes.score(encode_bytes(held_out["all"])).bits_per_byte
    report(
        "held-out bits per byte, 5-gram Kneser-Ney over bytes", round(baseline, 4), "bits/byte", n=len(held_out["all"])
    )


def measure_copies(dataset: Dataset, tokenizer: Tokenizer, model: Any) -> None:
    """The longest stretch of each sample that stands in the training text, character by character."""
    boundary = document_boundary(tokenizer)
    answers = generate_answers(
        model,
        [[boundary]] * N_SAMPLES,
        max_tokens=min(SAMPLE_TOKENS, model.config.context_length - 1),
        stop_ids=frozenset({boundary}),
        temperature=1.0,
    )
    samples = [tokenizer.decode(list(answer.ids)) for answer in answers]
    runs = longest_copied_runs(samples, dataset.texts("train", ["documents"]))
    worst, sample = max(zip(runs, samples, strict=True), key=lambda pair: pair[0].length)
    report(
        "longest verbatim copy in 50 samples",
        worst.length,
        "characters",
        n=len(samples),
        copied=sample[worst.start : worst.start + worst.length],
        longer_than_60=sum(run.length > 60 for run in runs),
        sampled_characters=sum(map(len, samples)),
    )


def main() -> None:
    """Run the tutorial, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--measure-only", action="store_true")
    arguments = parser.parse_args()
    if not arguments.measure_only:
        run_commands(commands(PAGES["en", "documents"]), arguments.folder)
    dataset = Dataset.open(arguments.folder / DATASET)
    folder = arguments.folder / RUN / "model"
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    n_bytes = {split: dataset.n_bytes(split, "documents") for split in ("train", "held_out")}
    report("text", sum(n_bytes.values()), "bytes", **n_bytes, languages=dataset.languages("train", "documents"))
    report("parameters", sum(parameter.numel() for parameter in model.parameters()), "")
    measure_bits_per_byte(dataset, tokenizer, model)
    measure_copies(dataset, tokenizer, model)


if __name__ == "__main__":
    main()
