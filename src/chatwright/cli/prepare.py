"""`prepare`: documents or conversations become a dataset, with a report of what was done to them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from chatwright.cli.output import Output, number, read_settings
from chatwright.cli.progress import ProgressBar, PullProgress, byte_columns
from chatwright.errors import UsageError
from chatwright.i18n import _

if TYPE_CHECKING:
    from chatwright.text.dataset import Dataset
    from chatwright.text.readers import Input


def prepare(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Files, folders, archives, hf:ORG/NAME or modelscope:ORG/NAME. Read: txt, md, html, pdf, docx, csv, jsonl, json, "
            "parquet, yaml; ChatGPT exports; conversations, preferences, labelled texts in the usual formats.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DATASET", help="The folder to make; it must not exist.")],
    mask: Annotated[
        bool, typer.Option("--mask", help="Replace personal data by placeholders such as [EMAIL].")
    ] = False,
    held_out: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|PATH",
            help="Share of the text to hold out, or a file or folder whose rows are held out. Default: 0.05, at most"
            " 20 MB of documents or 5000 rows; of little, 20 rows, or a fifth where that is less.",
        ),
    ] = None,
    languages: Annotated[
        str | None, typer.Option(metavar="CODES", help="Keep only these languages, such as en,zh.")
    ] = None,
    near_duplicates: Annotated[
        str,
        typer.Option(
            metavar="SIMILARITY|off",
            help="Drop what is so similar to an earlier row. Default: 0.8.",
            show_default=False,
        ),
    ] = "0.8",
    min_chars: Annotated[
        str,
        typer.Option(
            metavar="N", help="Drop documents with fewer letters and digits. Default: 20.", show_default=False
        ),
    ] = "20",
    no_filter: Annotated[bool, typer.Option("--no-filter", help="Keep documents of poor quality.")] = False,
    max_document: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Cut longer documents at paragraphs. Default: 100000.")
    ] = None,
    on_bad_row: Annotated[
        str,
        typer.Option(
            metavar="skip|stop", help="What to do at a row that cannot be read. Default: skip.", show_default=False
        ),
    ] = "skip",
    seed: Annotated[
        str, typer.Option(metavar="N", help="Draws the held-out rows. Default: 0.", show_default=False)
    ] = "0",
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Processes that work at once. Default: one a core.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a dataset of documents or conversations: read, clean, remove duplicates, mask, split, report."""
    from chatwright.text.options import PrepareOptions
    from chatwright.text.prepare import prepare as prepare_dataset

    output: Output = context.obj
    settings = read_settings()
    output.log_to_stderr(settings)
    share, held_out_path = _share_or_path(held_out)
    if on_bad_row not in ("skip", "stop"):
        raise UsageError("--on-bad-row takes skip or stop, not {value!r}.", value=on_bad_row)
    options = PrepareOptions(
        held_out=share,
        seed=number(seed, "--seed", least=0, most=2**63 - 1, whole=True),
        languages=tuple(part.strip() for part in (languages or "").split(",") if part.strip()),
        near_duplicates=None
        if near_duplicates == "off"
        else number(near_duplicates, "--near-duplicates", least=0.5, most=1),
        min_chars=number(min_chars, "--min-chars", least=0, most=1_000_000, whole=True),
        max_document=number(max_document, "--max-document", least=2_000, most=4_000_000, whole=True),
        filters=not no_filter,
        mask=mask,
        on_bad_row=on_bad_row,  # type: ignore[arg-type]
    )
    with PrepareProgress(output) as progress:
        dataset = prepare_dataset(
            [_resolved(each, output) for each in inputs],
            out,
            options,
            held_out=[_resolved(held_out_path, output)] if held_out_path else (),
            workers=number(workers, "--workers", least=1, most=1024, whole=True),
            progress=progress,
        )
    if json:
        output.json(dataset.manifest.model_dump())
        return
    _show(dataset, output, share_chosen=held_out is not None)


def _share_or_path(text: str | None) -> tuple[float | None, str | None]:
    if text is None:
        return None, None
    try:
        float(text)
    except ValueError:
        return None, text
    return number(text, "--held-out", least=0, most=0.9), None


def _resolved(text: str, output: Output) -> str | Input:
    """A data set of a hub is fetched into the home folder first."""
    if not text.startswith(("hf:", "modelscope:")):
        return text
    from chatwright.hub.datasets import resolve_dataset

    with PullProgress(output) as progress:
        return resolve_dataset(text, read_settings().home / "datasets", progress)


def _show(dataset: Dataset, output: Output, *, share_chosen: bool) -> None:
    from chatwright.text.advice import advice
    from chatwright.text.report import tables

    for table in tables(dataset.manifest):
        if table.rows:
            output.data(f"\n{table.title}")
            output.table(table.headings, table.rows)
    output.say("")
    for sentence in advice(dataset.manifest, share_chosen=share_chosen):
        output.say(sentence)
    output.say(
        _(
            "The dataset is in {path}; report.html in it shows this, dropped.jsonl names what was dropped.",
            path=dataset.path,
        )
    )
    path = str(dataset.path)
    if "documents" in dataset.kinds:
        output.say(_("Next: {command}", command=f"chatwright train {path} --minutes 10 --out RUN"))
    if "conversations" in dataset.kinds:
        output.say(_("Next: {command}", command=f"chatwright tune MODEL {path} --method lora --out RUN"))


class PrepareProgress(ProgressBar):
    """Draws what a preparation reports (see `chatwright.text.progress.Progress`); a line a phase where there is no terminal."""

    def __init__(self, output: Output) -> None:
        super().__init__(output, *byte_columns())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is KeyboardInterrupt:
            self.output.say(_("Interrupted. The same command goes on where it stopped."))

    def begin(self, label: str, total_bytes: int, done_bytes: int) -> None:
        """See Progress."""
        self.bar.reset(self.task, total=total_bytes, completed=done_bytes, description=label, visible=True)
        if not self.drawn:
            self.output.say(f"{label}…")

    def advance(self, n_bytes: int) -> None:
        """See Progress."""
        self.bar.update(self.task, advance=n_bytes)

    def end(self) -> None:
        """See Progress."""
        self.bar.update(self.task, visible=False)
        sys.stderr.flush()
