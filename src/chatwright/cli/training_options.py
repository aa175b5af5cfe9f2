"""The options of `train` that `plan` has too, and the request that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from chatwright.cli.output import choice, number
from chatwright.errors import UsageError
from chatwright.training.request import Request


def _option(name: str, metavar: str, help_text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=help_text, show_default=False)


Size = Annotated[str | None, _option("--size", "N", "Parameters, such as 3m or 120m.")]
Minutes = Annotated[
    str | None, _option("--minutes", "M", "Minutes of training; all else follows from it. Default: 10.")
]
Arch = Annotated[str, typer.Option("--arch", metavar="KIND", help="qwen3, gpt2 or rnn.")]
Cell = Annotated[str | None, _option("--cell", "KIND", "Of rnn: rnn or lstm.")]
Positions = Annotated[str | None, _option("--positions", "KIND", "Of gpt2: learned or sinusoidal.")]
TokenizerFolder = Annotated[
    str | None, _option("--tokenizer", "DIR", "A tokenizer's or a model's folder; trained anew without.")
]
VocabSize = Annotated[str | None, _option("--vocab-size", "N", "Tokens of the tokenizer that is trained.")]
Context = Annotated[str | None, _option("--context", "N", "Tokens of a row.")]
Steps = Annotated[str | None, _option("--steps", "N", "Steps, instead of minutes.")]
BatchTokens = Annotated[str | None, _option("--batch-tokens", "N", "Tokens of a step.")]
MicroRows = Annotated[str | None, _option("--micro-rows", "N", "Rows in memory at a time.")]
Optimizer = Annotated[str | None, _option("--optimizer", "KIND", "muon (with AdamW) or adamw.")]
Precision = Annotated[str, typer.Option("--precision", metavar="KIND", help="auto, fp32 or bf16.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model where a compiler is there.")]
Dropout = Annotated[str | None, _option("--dropout", "P", "Dropout.")]
FillInTheMiddle = Annotated[str | None, _option("--fim", "P", "Share of documents for filling in (suffix).")]


def build_request(
    *,
    size: str | None,
    minutes: str | None,
    arch: str,
    cell: str | None,
    positions: str | None,
    tokenizer: str | None,
    vocab_size: str | None,
    context: str | None,
    steps: str | None,
    batch_tokens: str | None,
    micro_rows: str | None,
    optimizer: str | None,
    precision: str,
    compile_: bool,
    dropout: str | None,
    fim: str | None,
    **others: Any,
) -> Request:
    """The request that the options' words mean. `others`: what only `train` has, as Request wants it. Raises UsageError."""
    from chatwright.model.presets import parse_size

    n_minutes = number(minutes, "--minutes", least=0, most=1_000_000)
    if n_minutes == 0:
        raise UsageError("--minutes 0 leaves no time to train. Give a positive number of minutes, such as 5.")
    return Request(
        size=None if size is None else parse_size(size),
        minutes=n_minutes,
        arch=choice(arch, "--arch", "qwen3", "gpt2", "rnn"),
        cell=choice(cell, "--cell", "rnn", "lstm"),
        positions=choice(positions, "--positions", "learned", "sinusoidal"),
        tokenizer=None if tokenizer is None else Path(tokenizer),
        vocab_size=number(vocab_size, "--vocab-size", least=262, most=262_144, whole=True),
        context=number(context, "--context", least=1, most=1 << 20, whole=True),
        steps=number(steps, "--steps", least=1, most=1 << 40, whole=True),
        batch_tokens=number(batch_tokens, "--batch-tokens", least=1, most=1 << 30, whole=True),
        micro_rows=number(micro_rows, "--micro-rows", least=1, most=1 << 20, whole=True),
        optimizer=choice(optimizer, "--optimizer", "muon", "adamw"),
        precision=choice(precision, "--precision", "auto", "fp32", "bf16"),
        compile=compile_,
        dropout=number(dropout, "--dropout", least=0, most=0.95),
        fim=number(fim, "--fim", least=0, most=1) or 0.0,
        **others,
    )
