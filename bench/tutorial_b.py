"""The figures of Tutorial B: is the default model better at the shop's customer service after LoRA, and is it worse elsewhere?

    python -m bench.tutorial_b FOLDER [--seeds 3] [--lora-only] [--measure-only]

Runs the commands of docs/en/tutorials/customer-service.md in FOLDER (a server is not started), tunes again with the other seeds
(--lora-only leaves out what stands behind the LoRA tuning on that page: folds and other methods), then asks the base model and each
adapter the questions of exam.jsonl: token F1 of the greedy answers and bits per byte of the true ones, each with a paired bootstrap
interval. No exam question is nearly a training question (tests/examples/test_shop.py). General text is the topics of Python's own
`pydoc`: bits per byte before and after. One JSON line a figure.
"""

from __future__ import annotations

import argparse
import json
import math
import pydoc_data.topics
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.figures import report
from bench.tutorial_a import run_commands
from chatwright.engine.tokenizers import load_text_side
from chatwright.evaluation.bits_per_byte import score_documents
from chatwright.evaluation.documents import DocumentScores, EncodedDocument, document_boundary, encode_documents
from chatwright.evaluation.generate import generate_answers
from chatwright.evaluation.statistics import mean_sd, paired_bootstrap
from chatwright.evaluation.text_metrics import exact_match, token_f1
from chatwright.hub import ModelsFolder
from chatwright.model.load import load_model
from chatwright.model.lora import load_adapter, merge_lora
from chatwright.settings import load_settings
from chatwright.tokenizer import encode_supervised
from examples.tutorial import PAGES, commands

EXAM, RUN = "playground/shop/en/exam.jsonl", "playground/shop-run"
ANSWER_TOKENS = 64
GENERAL_BYTES = 120_000


@dataclass(frozen=True)
class Marks:
    """What one model did: F1 and exactness of each answer, the scores of the true answers, and of general text."""

    f1: list[float]
    exact: list[bool]
    answers: DocumentScores
    general: DocumentScores


def tune(folder: Path, seeds: int, *, lora_only: bool) -> None:
    """The page's commands, and its tuning again with seeds 1, 2, …"""
    page = commands(PAGES["en", "customer-service"])
    tuning = next(command for command in page if command.startswith("chatwright tune") and "--method lora" in command)
    run_commands(page[: page.index(tuning) + 1] if lora_only else page, folder)
    again = [tuning.replace(RUN, f"{RUN}-{seed}") + f" --seed {seed}" for seed in range(1, seeds)]
    run_commands(again, folder)


def general_text() -> list[str]:
    """English prose that has nothing to do with a shop, out of Python itself."""
    texts, size = [], 0
    for _, topic in sorted(pydoc_data.topics.topics.items()):
        text = re.sub(r"[ \t]+", " ", topic).strip()
        texts.append(text)
        size += len(text.encode())
        if size > GENERAL_BYTES:
            break
    return texts


def measure(base: Path, adapter: Path | None, exam: list[dict[str, Any]]) -> Marks:
    """Ask a model everything."""
    tokenizer, template = load_text_side(base)
    assert template is not None, "the base model has no chat template"
    model = load_model(base)
    if adapter is not None:
        load_adapter(model, adapter)
        merge_lora(model)
    prompts, documents, references = [], [], []
    for row in exam:
        (encoded,) = encode_supervised(tokenizer, template, row["messages"])
        n_context = encoded.supervised.index(True)
        references.append(row["messages"][-1]["content"])
        prompts.append(encoded.ids[:n_context])
        documents.append(EncodedDocument(encoded.ids, len(references[-1].encode()), n_context))
    answers = generate_answers(model, prompts, max_tokens=ANSWER_TOKENS, stop_ids=tokenizer.eos_ids, context_length=512)
    said = [tokenizer.decode(answer.ids).strip() for answer in answers]
    start = document_boundary(tokenizer)
    general = encode_documents(tokenizer, general_text(), start_id=start, end_id=None)
    return Marks(
        f1=[token_f1(answer, reference) for answer, reference in zip(said, references, strict=True)],
        exact=[exact_match(answer, reference) for answer, reference in zip(said, references, strict=True)],
        answers=score_documents(model, documents, 512),
        general=score_documents(model, general, 512),
    )


def compare_answers(base: Marks, tuned: Sequence[Marks], which: str, called: str) -> None:
    """A mark of each answer ("f1" or "exact"), averaged over seeds before the questions are resampled."""
    before = [float(mark) for mark in getattr(base, which)]
    by_seed = [[float(mark) for mark in getattr(each, which)] for each in tuned]
    after = [fmean(marks) for marks in zip(*by_seed, strict=True)]
    value, sd = mean_sd([fmean(marks) for marks in by_seed])
    gain = paired_bootstrap(after, before)
    interval = [round(gain.difference.low, 4), round(gain.difference.high, 4)]
    n = {"n": len(before), "seeds": len(tuned)}
    report(f"{called}, base model", round(fmean(before), 4), "share", **n)
    report(f"{called}, LoRA", round(value, 4), "share", sd_over_seeds=round(sd, 4) if len(tuned) > 1 else None, **n)
    report(f"{called}, gain", round(gain.difference.estimate, 4), "share", interval_95=interval, p=gain.p_value, **n)


def compare_bits(base: Marks, tuned: Sequence[Marks], which: str, called: str) -> None:
    """Bits per byte of the true answers or of general text, before and after."""
    before: DocumentScores = getattr(base, which)
    after: list[DocumentScores] = [getattr(each, which) for each in tuned]
    value, sd = mean_sd([scores.bits_per_byte for scores in after])
    nats = [fmean(of_row) for of_row in zip(*(scores.nats for scores in after), strict=True)]
    change = paired_bootstrap(nats, before.nats.tolist(), (before.n_bytes * math.log(2)).tolist())
    interval = [round(change.difference.low, 4), round(change.difference.high, 4)]
    n = {"n": len(before.nats), "bytes": int(before.n_bytes.sum()), "seeds": len(tuned)}
    report(f"bits per byte of {called}, base model", round(before.bits_per_byte, 4), "bits/byte", **n)
    report(
        f"bits per byte of {called}, LoRA",
        round(value, 4),
        "bits/byte",
        sd_over_seeds=round(sd, 4) if len(tuned) > 1 else None,
        **n,
    )
    report(
        f"bits per byte of {called}, change",
        round(change.difference.estimate, 4),
        "bits/byte",
        interval_95=interval,
        **n,
    )
    report(f"bits per byte of {called}, LoRA over base", round(value / before.bits_per_byte, 4), "ratio", **n)


def main() -> None:
    """Run the tutorial, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lora-only", action="store_true", help="neither folds nor the page's other methods")
    parser.add_argument("--measure-only", action="store_true")
    arguments = parser.parse_args()
    if not arguments.measure_only:
        tune(arguments.folder, arguments.seeds, lora_only=arguments.lora_only)
    settings = load_settings()
    model = ModelsFolder(settings.models_dir).find(settings.default_model)
    assert model is not None, "the tutorial pulls it"
    exam = [json.loads(line) for line in (arguments.folder / EXAM).read_text(encoding="utf-8").splitlines()]
    base = measure(model.path, None, exam)
    names = [RUN, *(f"{RUN}-{seed}" for seed in range(1, arguments.seeds))]
    tuned = [measure(model.path, arguments.folder / name / "adapter", exam) for name in names]
    compare_answers(base, tuned, "f1", "token F1")
    compare_answers(base, tuned, "exact", "exact answers")
    compare_bits(base, tuned, "answers", "the true answers")
    compare_bits(base, tuned, "general", "general text")


if __name__ == "__main__":
    main()
