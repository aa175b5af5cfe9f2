"""`bench`: how fast a model is on this machine, and at which quality, for one or several precisions side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, choice, number, read_settings
from chatwright.cli.progress import ProgressBar
from chatwright.errors import UsageError
from chatwright.i18n import _

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chatwright.cli.adapters import Chosen
    from chatwright.evaluation.benchmark import Plan
    from chatwright.evaluation.figure import Figure

_STREAMS, _PROMPTS = (1, 4, 16, 32), (128, 512, 2048)
_QUANTIZATIONS = ("auto", "int8", "int4", "bf16", "fp32")
# More than 4096 tokens of any language.
_MAX_TEXT_BYTES = 2**20


def bench(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model's name, or a path. Without one, the default model.")
    ] = None,
    quantization: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Precision of the weights: auto, int8, int4, bf16 or fp32; several take turns: auto,int8.",
            show_default=False,
        ),
    ] = None,
    streams: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Answers at the same time. Default: 1,4,16,32.", show_default=False),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="Lengths of prompts in tokens. Default: 128,512,2048, as far as the context reaches.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        str, typer.Option(metavar="N", help="How often everything is measured; the median counts. Default: 3.")
    ] = "3",
    text: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Text for the perplexity, 4096 tokens at most. Default: a few pages of English that come with Chatwright.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(metavar="N", help="Threads to compute with. Default: all cores.", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:0 or mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a figure.")] = False,
) -> None:
    """Measure how fast a model is on this machine, and at which quality."""
    import asyncio

    from chatwright.cli.complete import chosen_model

    output: Output = context.obj
    n_threads = number(threads, "--threads", least=1, most=1024, whole=True)
    settings = read_settings({"device": device, "threads": n_threads})
    kinds = _kinds(quantization) or [settings.quantization]
    asked = _Asked(
        _sizes(streams, "--streams", most=1024),
        _sizes(prompts, "--prompts", most=1_000_000),
        number(rounds, "--rounds", least=1, most=1000, whole=True),
    )
    own_text = None if text is None else _read(Path(text))
    with chosen_model(model, settings, output) as chosen:
        from chatwright.evaluation.benchmark import run_benchmark
        from chatwright.evaluation.figure import load_average, machine, versions
        from chatwright.evaluation.speed import bundled_text

        plan = asked.plan(chosen)
        room = {
            "max_batch": max(settings.max_batch, *plan.streams),
            "max_queue": max(settings.max_queue, *plan.streams),
            "kv_cache_tokens": max(settings.kv_cache_tokens, plan.cache_tokens()),
        }
        each = [settings.model_copy(update={**room, "quantization": kind}) for kind in kinds]
        busy = load_average()
        with BenchProgress(output) as progress:
            work = run_benchmark(
                chosen.path, chosen.name, plan, each, bundled_text() if own_text is None else own_text, progress
            )
            figures = asyncio.run(work)
    about = {
        "model": chosen.name,
        "text": "bundled" if text is None else Path(text).name,
        "threads": settings.n_threads,
        "device": settings.device,
        "load_before": busy,
        "machine": machine(),
        "versions": versions(),
    }
    if as_json:
        for figure in figures:
            output.data(json.dumps(figure.line(**about), ensure_ascii=False))
    else:
        _show(figures, kinds, plan, about, output)


@dataclass(frozen=True)
class _Asked:
    """What the user wants measured; None: the defaults, as far as the model's context reaches."""

    streams: tuple[int, ...] | None
    prompts: tuple[int, ...] | None
    rounds: int

    def plan(self, chosen: Chosen) -> Plan:
        """Raises UsageError for prompts that do not fit, and for a model that writes no text."""
        from chatwright.evaluation.benchmark import FIRST_TOKEN_PROMPT, Plan
        from chatwright.model.describe import describe_model

        info = describe_model(chosen.path)
        if not info.writes_text:
            raise UsageError(
                "{name} is an encoder and writes no text: there are no answers to measure.", name=chosen.name
            )
        longest = info.context_length - 1  # one token of an answer has to fit too
        for n in self.prompts or ():
            if n > longest:
                raise UsageError(
                    "A prompt of {n} tokens and an answer do not fit the context of {name}, which is {limit} tokens: take shorter"
                    " --prompts.",
                    n=n,
                    name=chosen.name,
                    limit=info.context_length,
                )
        prompts = tuple(n for n in _PROMPTS if n <= longest) if self.prompts is None else self.prompts
        first = min(FIRST_TOKEN_PROMPT, longest)
        return Plan(self.streams or _STREAMS, prompts, self.rounds, first, chosen.adapter)


class BenchProgress(ProgressBar):
    """Draws what `chatwright.evaluation.benchmark.Progress` reports."""

    def __init__(self, output: Output) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

        super().__init__(output, BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
        self.n_done = -1
        self.last = ""

    def begin(self, n_measurements: int) -> None:
        """See Progress."""
        self.bar.reset(self.task, total=n_measurements, completed=0, visible=True)

    def step(self, what: str, size: int | None, system: str) -> None:
        """See Progress."""
        self.n_done += 1
        label = figure_label(what, size)
        self.bar.update(self.task, completed=self.n_done, description=f"{system}: {label}")
        if not self.drawn and label != self.last:
            self.output.say(f"{label}…")
        self.last = label


def figure_label(what: str, size: int | None) -> str:
    """A figure's name in the user's language."""
    match what:
        case "load":
            return _("loading, until the first token")
        case "memory":
            return _("memory that this took")
        case "perplexity":
            return _("perplexity")
        case "decode" if size == 1:
            return _("one answer")
        case "decode":
            return _("{n} answers at once, in total", n=size)
        case "prompt":
            return _("a prompt of {n} tokens", n=size)
        case "first token, cached":
            return _("… when all but its end was computed before")
        case _:
            return _("first token after {n} tokens", n=size)


def _show(
    figures: Sequence[Figure], kinds: Sequence[str], plan: Plan, about: Mapping[str, Any], output: Output
) -> None:
    """A table with a column for each precision, between a line that says on what and one that says how."""
    machine = about["machine"]
    output.data(
        _(
            "{model} on {cpu}, {cores} cores, {memory} GB; {threads} threads",
            model=about["model"],
            cpu=machine["cpu"],
            cores=machine["cores"],
            memory=f"{machine['memory_gib']:.0f}",
            threads=about["threads"],
        )
    )
    rows: dict[tuple[str, int | None], dict[str, str]] = {}
    for figure in figures:
        rows.setdefault((figure.what, figure.size), {})[figure.system] = _value(figure)
    table = [[figure_label(*which), *(cells[kind] for kind in kinds)] for which, cells in rows.items()]
    output.table(["", *kinds], table)
    output.data(
        _("Medians of {n} rounds, lowest to highest in brackets; answers after 129 tokens, greedy.", n=plan.rounds)
    )
    if about["load_before"] is not None and about["load_before"] > 0.5 * machine["cores"]:
        busy = f"{about['load_before']:.1f}"
        output.say(_("Other programs kept {n} cores busy: on a quiet machine it is faster.", n=busy))


def _value(figure: Figure) -> str:
    match figure.unit:
        case "tokens/s":
            value = _("{n} tokens/s", n=_digits(figure.value))
        case "s":
            value = _("{n} s", n=_digits(figure.value))
        case "MB":
            value = f"{figure.value:,.0f} MB"
        case _:
            value = f"{figure.value:.3f}"
    if figure.n == 1:
        return value
    return f"{value} ({_digits(min(figure.values))}–{_digits(max(figure.values))})"


def _digits(value: float) -> str:
    """Three digits, and whole numbers whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _kinds(given: Sequence[str] | None) -> list[str]:
    """Precisions, each once. Raises UsageError."""
    kinds = [kind.strip() for part in given or () for kind in part.split(",")]
    for kind in kinds:
        choice(kind, "--quantization", *_QUANTIZATIONS)
    return list(dict.fromkeys(kinds))


def _sizes(given: str | None, option: str, *, most: int) -> tuple[int, ...] | None:
    """Whole numbers between commas, each once, ascending. Raises UsageError."""
    if given is None:
        return None
    return tuple(sorted({number(part.strip(), option, least=1, most=most, whole=True) for part in given.split(",")}))


def _read(path: Path) -> str:
    """The beginning of a text file. Raises UsageError."""
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(_MAX_TEXT_BYTES)
        return data.decode("utf-8", errors="strict" if len(data) < _MAX_TEXT_BYTES else "ignore")
    except OSError as error:
        raise UsageError("{path} cannot be read ({reason}).", path=path, reason=error.strerror) from error
    except UnicodeDecodeError as error:
        raise UsageError("{path} is not UTF-8 text (byte {position}).", path=path, position=error.start) from error
