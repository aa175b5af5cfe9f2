"""`tokenizer train`: a vocabulary of the user's own, and how well it fits their text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import typer

from chatwright.cli.models import JSON_HELP
from chatwright.cli.output import Output, number
from chatwright.errors import UsageError
from chatwright.i18n import _, format_size

if TYPE_CHECKING:
    from chatwright.text.dataset import Dataset
    from chatwright.tokenizer.corpus import Fertility
    from chatwright.tokenizer.vocab_size import VocabChoice

Split = Literal["train", "held_out"]
Item = TypeVar("Item")

# Measuring more would say the same.
MEASURED_BYTES = 8 * 2**20


def train(
    context: typer.Context,
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="A dataset's folder, as `chatwright prepare` makes it.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for the tokenizer; it must not exist yet.")
    ],
    vocab_size: Annotated[
        str,
        typer.Option(
            "--vocab-size", metavar="auto|N", help="Number of tokens; auto weighs the text and the size of the model."
        ),
    ] = "auto",
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern", metavar="qwen2|gpt2", help="How text is cut before merging: as Qwen2 does, or as GPT-2 does."
        ),
    ] = "qwen2",
    size: Annotated[
        str,
        typer.Option(
            "--size", metavar="PARAMETERS", help="The model that the vocabulary is for, such as 3m or 10m: for auto."
        ),
    ] = "10m",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Train a tokenizer on a dataset and show how many bytes a token holds in each language."""
    from chatwright.model.folder import check_new_folder, new_folder
    from chatwright.model.presets import parse_size
    from chatwright.text.dataset import Dataset
    from chatwright.tokenizer.corpus import enough_bytes, sample
    from chatwright.tokenizer.save import write_json
    from chatwright.tokenizer.train import MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, Pattern, train_tokenizer
    from chatwright.tokenizer.vocab_size import explain_vocab_size

    output: Output = context.obj
    if pattern not in get_args(Pattern):
        raise UsageError("--pattern is qwen2 or gpt2, not {pattern!r}.", pattern=pattern)
    check_new_folder(out)
    data = Dataset.open(dataset)
    n_bytes = sum(data.n_bytes("train", kind) for kind in data.kinds)
    choice = None
    if vocab_size == "auto":
        choice = explain_vocab_size(n_bytes, parse_size(size))
        output.say(_why(choice, n_bytes, size))
        wanted = choice.size
    else:
        wanted = number(vocab_size, "--vocab-size", least=MIN_VOCAB_SIZE, most=MAX_VOCAB_SIZE, whole=True)
    limit = enough_bytes(wanted)
    if n_bytes > limit:
        output.say(
            _(
                "Training on {limit} of the {total} of text, spread evenly over it: more hardly changes {size} tokens.",
                limit=format_size(limit),
                total=format_size(n_bytes),
                size=wanted,
            )
        )
    with new_folder(out) as folder:
        texts = sample(data.texts("train"), n_bytes, limit)
        trained = train_tokenizer(_watched(texts, min(n_bytes, limit), output), wanted, pattern)  # type: ignore[arg-type]
        if trained.vocab_size < wanted:
            output.say(
                _(
                    "The text has no more repeated pairs than give {size} tokens, fewer than {wanted}.",
                    size=trained.vocab_size,
                    wanted=wanted,
                )
            )
        measured = {split: _measure(trained.tokenizer, data, split) for split in get_args(Split)}
        report = {
            "pattern": pattern,
            "vocab_size": trained.vocab_size,
            "asked_vocab_size": None if choice else wanted,
            "chosen_by": choice and choice.bound,
            "dataset": data.path.name,
            "dataset_fingerprint": data.fingerprint,
            "dataset_bytes": n_bytes,
            "trained_on_bytes": min(n_bytes, limit),
            "bytes_per_token": {split: _as_json(languages) for split, languages in measured.items()},
        }
        trained.save(folder)
        write_json(folder / "report.json", report)
    if as_json:
        output.json({"path": str(out), **report})
    else:
        _print_table(output, measured)
    output.say(_("The tokenizer with {size} tokens is ready in {path}.", size=trained.vocab_size, path=out))


def _why(choice: VocabChoice, n_bytes: int, size: str) -> str:
    if choice.bound == "text":
        return _(
            "{size} tokens: so many can {bytes} of text teach (the rarest should be seen 20 times); a model of {model} could "
            "afford {by_model}.",
            size=choice.size,
            bytes=format_size(n_bytes),
            model=size,
            by_model=choice.by_model,
        )
    if choice.bound == "model":
        return _(
            "{size} tokens: so many can a model of {model} parameters afford (a quarter of them in the embedding); {bytes} of "
            "text could teach {by_text}.",
            size=choice.size,
            bytes=format_size(n_bytes),
            model=size,
            by_text=choice.by_text,
        )
    return _(
        "{size} tokens, the limit of what is chosen by itself: {bytes} of text could teach {by_text}, and a model of {model} "
        "parameters could afford {by_model}.",
        size=choice.size,
        bytes=format_size(n_bytes),
        by_text=choice.by_text,
        model=size,
        by_model=choice.by_model,
    )


def _watched(texts: Iterable[str], n_bytes: int, output: Output) -> Iterator[str]:
    """The texts, with a bar on standard error that counts their bytes; a message where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    drawn = console.is_terminal and not output.quiet
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not drawn, transient=True) as bar:
        if not drawn:
            output.say(_("Reading {bytes} of text…", bytes=format_size(n_bytes)))
        task = bar.add_task(_("Reading"), total=n_bytes)
        for text in texts:
            yield text
            bar.advance(task, len(text.encode(errors="replace")))
    output.say(_("Merging the most frequent pairs…"))


def _measure(tokenizer: Any, data: Dataset, split: Split) -> dict[str, Fertility]:
    from chatwright.text.rows import row_text
    from chatwright.tokenizer.corpus import measure

    n_bytes = sum(data.n_bytes(split, kind) for kind in data.kinds)
    rows = ((row["language"], row_text(kind, row)) for kind in data.kinds for row in data.rows(split, kind))
    return measure(tokenizer, _every(rows, -(-n_bytes // MEASURED_BYTES)))


def _every(items: Iterable[Item], step: int) -> Iterator[Item]:
    return (item for place, item in enumerate(items) if place % max(step, 1) == 0)


def _as_json(languages: dict[str, Fertility]) -> dict[str, float]:
    from chatwright.tokenizer.corpus import Fertility

    total = sum(languages.values(), Fertility())
    return {name: round(each.bytes_per_token, 4) for name, each in {"all": total, **languages}.items()}


def _print_table(output: Output, measured: dict[Split, dict[str, Fertility]]) -> None:
    from chatwright.tokenizer.corpus import Fertility

    rows = []
    for language in [None, *dict.fromkeys(name for languages in measured.values() for name in languages)]:
        row = [_("all") if language is None else language]
        for languages in measured.values():
            found = sum(languages.values(), Fertility()) if language is None else languages.get(language, Fertility())
            row += [format_size(found.n_bytes), f"{found.bytes_per_token:.2f}" if found.n_tokens else "-"]
        rows.append(row)
    headings = [_("LANGUAGE"), _("TRAINING TEXT"), _("BYTES/TOKEN"), _("HELD-OUT TEXT"), _("BYTES/TOKEN")]
    output.table(headings, rows)
