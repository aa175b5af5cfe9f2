"""What quantising costs: perplexity of each variant beside its source on the same held-out documents, with intervals.

    python -m bench.compression MODEL DATASET FOLDER [--bytes 60000] [--windows N] [--eight-bit-share 0.1] [--only int4-gptq]

Writes MODEL to FOLDER as int8, as int4 by rounding and as int4 by GPTQ calibrated on the dataset's training split, loads each from
disk and scores it on documents of the held-out split. One JSON line a variant: perplexity, its change in per cent with a 95 %
bootstrap interval over documents, bytes on disk; then the calibrated one against the rounded one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from bench.figures import report
from chatwright.compression.bill import Bill, Measured, score, weights_size
from chatwright.compression.quantize import EIGHT_BIT_SHARE, QuantizeOptions, quantize
from chatwright.compression.texts import held_out_documents, held_out_texts
from chatwright.evaluation.documents import DocumentScores, EncodedDocument
from chatwright.model.load import load_model
from chatwright.training.base_model import BaseModel

VARIANTS = {"int8": ("int8", "round"), "int4-round": ("int4", "round"), "int4-gptq": ("int4", "gptq")}


def scored(path: Path, documents: list[EncodedDocument]) -> Measured:
    model = load_model(path)
    return Measured(weights_size(path), 0, None, score(model, documents))


def change(figure: str, before: Measured, after: Measured) -> None:
    bill = Bill(before, after)
    interval, scores = bill.perplexity_change, after.scores
    assert interval is not None
    assert isinstance(scores, DocumentScores)
    shown = {name: round(100 * getattr(interval, name), 3) for name in ("estimate", "low", "high")}
    assert bill.n_documents > 1, "NaN is no JSON"
    report(figure, shown["estimate"], "%", low=shown["low"], high=shown["high"], n=bill.n_documents,
           n_tokens=int(scores.n_tokens.sum()), perplexity=round(scores.perplexity, 4), size_bytes=after.size_bytes)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compression", description="What quantising costs.")
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bytes", type=int, default=60_000, help="held-out text to score")
    parser.add_argument("--windows", type=int, help="calibration windows")
    parser.add_argument("--eight-bit-share", type=float, default=EIGHT_BIT_SHARE, help="of the calibrated one")
    parser.add_argument("--only", choices=VARIANTS, action="append", help="variants to make; default: all")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    base = BaseModel.open(chosen.model, "")
    documents = held_out_documents(held_out_texts(chosen.dataset, None), base.tokenizer(), chosen.bytes)
    found = {"source": scored(chosen.model, documents)}
    for name in chosen.only or VARIANTS:
        to, method = VARIANTS[name]
        out = chosen.folder / name
        calibration = chosen.dataset if method == "gptq" else None
        options = QuantizeOptions(
            to=to,  # type: ignore[arg-type]
            method=method,  # type: ignore[arg-type]
            calibration=calibration,
            n_windows=chosen.windows,
            eight_bit_share=chosen.eight_bit_share,
            measure=False,
        )
        quantize(base, options, out, n_threads=chosen.threads)
        found[name] = scored(out, documents)
        change(f"{name}: change of perplexity", found["source"], found[name])
    if {"int4-gptq", "int4-round"} <= found.keys():
        change("int4-gptq against int4-round: change of perplexity", found["int4-round"], found["int4-gptq"])
    source = found["source"].scores
    assert source is not None
    report("perplexity of the source", round(source.perplexity, 4), "", size_bytes=found["source"].size_bytes)


if __name__ == "__main__":
    main()
