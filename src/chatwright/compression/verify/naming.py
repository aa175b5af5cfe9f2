"""How the sides of a comparison are named on a command line.

MODEL                  our decoder on PyTorch in float32: a model's name, a folder, a run, a GGUF file
torch[/fp16|bf16]:MODEL    the same, in that precision
engine[/int8|int4|bf16|fp32]:MODEL    our engine, as `serve` runs it
hf[/fp16|bf16]:DIR     an HF folder under Transformers
llama:FILE             a GGUF file under llama.cpp
http://HOST[#NAME]        a server with OpenAI's API, and the model's name there
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from chatwright.compression.progress import Progress
from chatwright.compression.source import Source
from chatwright.compression.verify.answers import Answering, compare_answers
from chatwright.compression.verify.compare import compare_sides
from chatwright.compression.verify.llama import LlamaSide
from chatwright.compression.verify.ours import DTYPES, EngineSide, TorchSide, with_quantization
from chatwright.compression.verify.report import Finding, Report, finding
from chatwright.compression.verify.server import ServerSide
from chatwright.compression.verify.side import AnswerSide, Precision, Side
from chatwright.compression.verify.transformers_side import TransformersSide
from chatwright.errors import ChatwrightError, UsageError
from chatwright.settings import Settings

_OPTIONS = {"torch": tuple(DTYPES), "engine": ("int8", "int4", "bf16", "fp32"), "hf": tuple(DTYPES), "llama": ()}

Resolve = Callable[[str], tuple[Path, Path | None]]  # a model's name or path → its files, and an adapter


def open_side(name: str, settings: Settings, resolve: Resolve) -> Side | ServerSide:
    """The side of that name, loaded. Raises UsageError for a name that is none, and what loading raises."""
    if name.startswith(("http://", "https://")):
        return ServerSide(name, name)
    kind, option, what = parse(name)
    if kind == "llama":
        return LlamaSide(name, resolve(what)[0], settings.n_threads)
    if kind == "hf":
        return TransformersSide(name, Path(what).expanduser(), _precision(option))
    path, adapter = resolve(what)
    if kind == "engine":
        return EngineSide(name, path, with_quantization(settings, option), adapter)
    return TorchSide(name, path, _precision(option), adapter)


def parse(name: str) -> tuple[str, str | None, str]:
    """(kind, option, what is named). A model's own name may hold colons; only the known kinds are prefixes."""
    prefix, colon, what = name.partition(":")
    kind, slash, option = prefix.partition("/")
    if not colon or kind not in _OPTIONS:
        return "torch", None, name
    if slash and option not in _OPTIONS[kind]:
        raise UsageError(
            "{name}: {kind} takes one of {choices} behind the slash, not {option!r}.",
            name=name[:200],
            kind=kind,
            choices=", ".join(_OPTIONS[kind]) or "-",
            option=option[:40],
        )
    if not what:
        raise UsageError("{name}: a model's name or path is missing behind the colon.", name=name[:200])
    return kind, option or None, what


def verify(
    a: str,
    b: str,
    settings: Settings,
    resolve: Resolve,
    *,
    n_greedy: int = 24,
    tie: float = 0.1,
    progress: Progress | None = None,
) -> Report:
    """Opens both sides, A the reference, and compares all that both show."""
    first = open_side(a, settings, resolve)
    try:
        second = open_side(b, settings, resolve)
        try:
            if isinstance(first, ServerSide) or isinstance(second, ServerSide):
                sides = _answering(first), _answering(second)
                chats = all(isinstance(side, ServerSide) or side.has_template for side in (first, second))
                return compare_answers(*sides, n_greedy=n_greedy, tie=tie, chats=chats, progress=progress)
            sources = _source(first, a), _source(second, b)
            report = compare_sides(first, second, sources, n_greedy=n_greedy, tie=tie, progress=progress)
            report.findings += _activations(first, second, report)
            return report
        finally:
            second.close()
    finally:
        first.close()


def _answering(side: Side | ServerSide) -> AnswerSide:
    return side if isinstance(side, ServerSide) else Answering(side)


def _activations(a: Side, b: Side, report: Report) -> list[Finding]:
    """What to do where llama.cpp's arithmetic hides whether the weights are the same."""
    coarse = next((each for each in (a, b) if isinstance(each, LlamaSide) and each.precision in ("int8", "int4")), None)
    if coarse is None or report.differs or not any(found.kind == "greedy" for found in report.findings):
        return []
    return [
        finding(
            "rounding",
            False,
            "Beside weights of 8 or 4 bits llama.cpp rounds activations to 8 bits, which tips more than ties. To compare the"
            " weights alone: chatwright export {path} --to gguf --type F32 --out FILE, then verify llama:FILE.",
            path=coarse.checkpoint.path,
        )
    ]


def _source(side: Side, name: str) -> Source | None:
    """The files of a side; None where Chatwright does not read them."""
    if isinstance(side, TorchSide | EngineSide):
        return side.source
    if isinstance(side, LlamaSide):
        return Source(side.checkpoint)
    try:
        return Source.open(Path(parse(name)[2]).expanduser())
    except ChatwrightError:
        return None


def _precision(option: str | None) -> Precision:
    return next((kind for kind in get_args(Precision) if kind == option), "fp32")
