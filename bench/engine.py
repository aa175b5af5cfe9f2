"""Our engine beside its peers: decoding at 1, 4, 16 and 32 streams, prompts, first tokens, start, memory, perplexity of each.

    python -m bench.engine [MODEL.gguf] [--rounds 5 --threads N --streams 1,4,16,32 --prompts 128,512,2048]
        [--systems auto,int8,fp32,Q4_0,Q4_1,Q8_0,F16,openvino,transformers] [--python openvino=VENV/bin/python]

auto … fp32: ours at that `--quantization`. Q4_0 … F16: llama.cpp on the file, or on a copy of it in that format, by
`llama-cpp-python` (built natively) or, where that is missing, by the prebuilt `xllamacpp`. openvino: OpenVINO GenAI from the file.
transformers: fp32.
Each runs in a process of its own, with the Python of `--python` where one is given; those that are not installed are left out.

All systems take turns in every round, with the same threads and lengths, and choose the likeliest token themselves, so that a
machine whose speed drifts is fair to all. Perplexity: the first 4,096 tokens of a text (Python's own help unless --text is given),
windows of 512, each one's first token given. One JSON line a figure: medians, ranges, and for ours the ratio within rounds to the
best of all peers, and to the best of those whose perplexity is at most half a per cent worse than ours.
"""

from __future__ import annotations

import argparse
import json
import pydoc_data.topics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from bench.gguf_format import convert
from bench.peer import ROOT, CannotError, Opening, PeerProcess, has_package
from chatwright.evaluation.figure import Figure, load_average, machine, median_ratio, versions
from chatwright.evaluation.speed import DECODE_AFTER, HEAD_START, WINDOW, perplexity_windows
from chatwright.hub import ModelsFolder, pull
from chatwright.machine import available_cores
from chatwright.model.gguf import GGUFFile
from chatwright.settings import load_settings
from chatwright.tokenizer.load import load_tokenizer

OURS = ("auto", "int8", "int4", "bf16", "fp32")
LLAMA_CPP = ("Q4_0", "Q4_1", "Q8_0", "F16")
OTHERS = {"openvino": "openvino_genai", "transformers": "transformers"}
DECODE_TOKENS = 32
FIRST_TOKEN_PROMPT = 1000
EQUAL_QUALITY = 1.005


class Systems:
    """Starts systems by name."""

    def __init__(self, model: Path, pythons: dict[str, str], folder: Path, opening: Opening) -> None:
        self.model, self.pythons, self.folder, self.opening = model, pythons, folder, opening

    def start(self, name: str) -> PeerProcess | None:
        """None, with a sentence, where its package is missing."""
        if name in OURS:
            return self._process(f"chatwright {name}", "chatwright", self.opening.model, name)
        if name in LLAMA_CPP:
            return self._llama_cpp(name)
        if not self._has(name, OTHERS[name]):
            return None
        label = "transformers fp32" if name == "transformers" else "openvino"
        return self._process(label, name, self.opening.model, "")

    def _llama_cpp(self, kind: str) -> PeerProcess | None:
        native = has_package(self._python("llama_cpp"), "llama_cpp")
        if not native and not self._has("xllamacpp", "xllamacpp"):
            return None
        module = "llama_cpp" if native else "xllamacpp"
        file = self.model
        if f"-{kind}." not in self.model.name and f".{kind}." not in self.model.name:
            file = self.folder / f"{self.model.stem}-{kind}.gguf"
            if native:
                command = [self._python(module), "-m", "bench.llama_cpp_peer", str(self.model), kind, str(file)]
                subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
            else:
                convert(self.model, kind, file)
        return self._process(f"llama.cpp {kind}", module, str(file), kind)

    def _process(self, label: str, peer: str, model: str, kind: str) -> PeerProcess:
        opening = replace(self.opening, model=model, kind=kind)
        return PeerProcess(label, f"bench.{peer}_peer", opening, self._python(peer))

    def _python(self, peer: str) -> str:
        return self.pythons.get(peer, sys.executable)

    def _has(self, name: str, package: str) -> bool:
        there = has_package(self._python(name), package)
        if not there:
            print(f"{package} is not installed: it is left out.", file=sys.stderr)
        return there


def say(figure: Figure, **more: Any) -> None:
    """One JSON line."""
    print(json.dumps(figure.line(**more)), flush=True)


Measure = Callable[[PeerProcess], Sequence[float]]


def cases(
    streams: Sequence[int], prompts: Sequence[int], first: int
) -> list[tuple[int, tuple[str, ...], str, Measure]]:
    """(size, names of the figures, unit, measurement) of each."""
    all_cases: list[tuple[int, tuple[str, ...], str, Measure]] = []
    for n in streams:
        all_cases.append((n, ("decode",), "tokens/s", lambda s, n=n: [s.decode(n, DECODE_AFTER, DECODE_TOKENS)]))  # type: ignore[misc]
    for n in prompts:
        all_cases.append((n, ("prompt",), "tokens/s", lambda s, n=n: [s.prompt(n)]))  # type: ignore[misc]
    if first:
        names = ("first token, cold", "first token, cached")
        all_cases.append((first, names, "s", lambda s: s.first_token(first)))
    return all_cases


def compare(
    systems: Sequence[PeerProcess], rounds: int, case: tuple[int, tuple[str, ...], str, Measure]
) -> list[Figure]:
    """All rounds of one case, after one to warm up; a system that cannot measure it is left out."""
    size, names, unit, measure = case
    able, values = [], {}
    for system in systems:
        try:
            measure(system)
        except CannotError as reason:
            print(f"{', '.join(names)}: {reason}", file=sys.stderr)
        else:
            able.append(system)
            values[system.name] = [[] for _ in names]
    for _ in range(rounds):
        for system in able:
            for column, value in zip(values[system.name], measure(system), strict=True):
                column.append(value)
    return [
        Figure(name, system.name, tuple(values[system.name][i]), unit, size)
        for i, name in enumerate(names)
        for system in able
    ]


def ratios(figures: Sequence[Figure], ours: Figure, perplexities: dict[str, float]) -> dict[str, float]:
    """Ours over the best peer, and over the best of equal quality: how many times as fast."""
    mine = perplexities.get(ours.system)
    found = {}
    for name, limit in (("ratio_to_best_peer", None), ("ratio_to_best_peer_of_equal_quality", EQUAL_QUALITY)):
        peers = [
            figure.values
            for figure in figures
            if figure.what == ours.what
            and not figure.system.startswith("chatwright")
            and (limit is None or (mine is not None and perplexities.get(figure.system, 1e9) <= limit * mine))
        ]
        if peers:
            faster = ours.unit != "s"
            speeds = [[v if faster else 1 / v for v in values] for values in (ours.values, *peers)]
            found[name] = round(median_ratio(speeds[0], speeds[1:]), 3)
    return found


def windows_of(model: Path, text: Path | None) -> list[list[int]]:
    """What the perplexity is of."""
    tokenizer = load_tokenizer(model.parent, GGUFFile.open(model).metadata)
    if text is not None:
        written = text.read_text(encoding="utf-8")
    else:
        written = " ".join(topic for _, topic in sorted(pydoc_data.topics.topics.items()))[:60_000]
    return perplexity_windows(tokenizer, written, WINDOW)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--streams", default="1,4,16,32")
    parser.add_argument("--prompts", default="128,512,2048")
    parser.add_argument(
        "--first", type=int, default=FIRST_TOKEN_PROMPT, help="tokens before the first token; 0: not measured"
    )
    parser.add_argument("--systems", default="auto,Q4_0,Q4_1,Q8_0,openvino,transformers")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PEER=PYTHON", help="of a peer's own environment"
    )
    parser.add_argument("--text", type=Path)
    parser.add_argument("--no-perplexity", action="store_true")
    arguments = parser.parse_args()
    names = arguments.systems.split(",")
    if unknown := set(names) - {*OURS, *LLAMA_CPP, *OTHERS}:
        raise SystemExit(f"Unknown systems: {', '.join(sorted(unknown))}.")
    model = arguments.model
    if model is None:
        settings = load_settings()
        folder = ModelsFolder(settings.models_dir)
        model = (folder.find(settings.default_model) or pull(settings.default_model, folder)).path
    model = model.absolute()
    streams = [int(n) for n in arguments.streams.split(",") if n]
    prompts = [int(n) for n in arguments.prompts.split(",") if n]
    most = max(streams, default=1)
    longest = max([*prompts, arguments.first, WINDOW])
    context = max(most * (DECODE_AFTER + HEAD_START * DECODE_TOKENS), longest) + 64
    opening = Opening(str(model), "", arguments.threads, most, context)
    busy = load_average()
    with tempfile.TemporaryDirectory(prefix="chatwright-bench-") as made, ExitStack() as stack:
        starter = Systems(model, dict(pair.split("=", 1) for pair in arguments.python), Path(made), opening)
        systems = []
        for name in names:
            if (started := starter.start(name)) is not None:
                systems.append(stack.enter_context(started))
        about = {
            "model": model.name,
            "threads": arguments.threads,
            "load_before": busy,
            "machine": machine(),
            "versions": versions() | {name: v for system in systems for name, v in system.versions.items()},
        }
        perplexities: dict[str, float] = {}
        for system in systems:
            say(Figure("start until the first token", system.name, (system.start_s,), "s"), **about)
            if not arguments.no_perplexity:
                windows = windows_of(model, arguments.text)
                try:
                    perplexities[system.name] = system.perplexity(windows)
                except CannotError as reason:
                    print(f"perplexity: {reason}", file=sys.stderr)
                    continue
                figure = Figure("perplexity", system.name, (perplexities[system.name],), "")
                say(figure, tokens=sum(len(window) - 1 for window in windows), **about)
        for case in cases(streams, prompts, arguments.first):
            figures = compare(systems, arguments.rounds, case)
            for figure in figures:
                ours = figure.system.startswith("chatwright")
                more = ratios(figures, figure, perplexities) if ours else {}
                say(figure, **more, **about)
        for system in systems:
            memory = psutil.Process(system.process.pid).memory_info().rss
            say(Figure("memory of its process", system.name, (memory / 1e6,), "MB"), **about)


if __name__ == "__main__":
    main()
