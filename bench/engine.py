"""Tokens per second of our engine's step beside its peers: 1, 4, 16 and 32 streams, and prompts; with the perplexity of each.

    python -m bench.engine [MODEL.gguf] [--rounds 5 --threads N --streams 1,4,16,32 --prompts 128,512,2048]
        [--systems auto,int8,fp32,Q4_0,Q4_1,Q8_0,F16,transformers]

auto … fp32: ours at that `--quantization`. Q4_0 … F16: llama.cpp on the file, or on a copy that it made of it in that format
(`llama-cpp-python`, built natively). transformers: fp32. All systems take turns in every round, with the same threads and tokens
and no sampling, so that a machine whose speed drifts is fair to all. Perplexity: 4,096 tokens of Python's own help, windows of 512,
each text's first token given. One JSON line a figure: medians, ranges, the ratio to the best of llama.cpp's formats within rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import pydoc_data.topics
import statistics
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from chatwright.engine.blocks import blocks_for
from chatwright.engine.kernels.library import Kernels, load_kernels
from chatwright.engine.kernels.runner import KernelRunner
from chatwright.engine.protocol import GenerateRequest, SamplingParams
from chatwright.engine.scheduler import Chunk
from chatwright.engine.sequence import Group, Sequence
from chatwright.hub import ModelsFolder
from chatwright.machine import available_cores
from chatwright.model.gguf import GGUFFile
from chatwright.settings import load_settings
from chatwright.tokenizer.load import load_tokenizer

OURS = ("auto", "int8", "int4", "bf16", "fp32")
DECODE_AFTER, DECODE_TOKENS = 128, 32
SCORED_TOKENS, WINDOW = 4096, 512
STEP_TOKENS = 512


class System(Protocol):
    """What is compared."""

    name: str

    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """Tokens per second of all streams together, each behind a prompt."""

    def prompt(self, n_tokens: int) -> float:
        """Prompt tokens per second, logits of the last only."""

    def perplexity(self, ids: list[int], window: int) -> float:
        """Over all tokens but each window's first."""


class Ours:
    """The kernels' runner, without scheduler and sampler."""

    def __init__(
        self, kernels: Kernels, model: Path, quantization: str, *, threads: int, max_streams: int, context: int
    ) -> None:
        self.name = f"chatwright {quantization}"
        self.runner = KernelRunner.load(
            kernels,
            model,
            quantization,
            max_step_tokens=STEP_TOKENS + max_streams,
            n_threads=threads,
            store=None,  # type: ignore[arg-type]
        )
        self.runner.allocate(blocks_for(context) + max_streams)

    def _sequence(self, ids: list[int], number: int, room: int, *, scored: bool = False) -> Sequence:
        request = GenerateRequest("bench", ids, SamplingParams(), 1, 0 if scored else None)
        [choice] = Group(request).sequences
        each = blocks_for(room)
        choice.blocks = list(range(number * each, (number + 1) * each))
        return choice

    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """See System."""
        ids = list(range(1000, 1000 + n_prompt))
        streams = [self._sequence(ids, number, n_prompt + n_tokens) for number in range(n_streams)]
        for stream in streams:
            self.runner.step([Chunk(stream, 0, n_prompt)])
        start = time.perf_counter()
        for _ in range(n_tokens):
            for stream in streams:
                stream.append(5)
            self.runner.step([Chunk(s, len(s.token_ids) - 1, len(s.token_ids)) for s in streams])
        seconds = time.perf_counter() - start
        for stream in streams:
            self.runner.free(stream)
        return n_streams * n_tokens / seconds

    def prompt(self, n_tokens: int) -> float:
        """See System."""
        stream = self._sequence(list(range(1000, 1000 + n_tokens)), 0, n_tokens)
        start = time.perf_counter()
        for first in range(0, n_tokens, STEP_TOKENS):
            self.runner.step([Chunk(stream, first, min(first + STEP_TOKENS, n_tokens))])
        seconds = time.perf_counter() - start
        self.runner.free(stream)
        return n_tokens / seconds

    def perplexity(self, ids: list[int], window: int) -> float:
        """See System."""
        nats, count = 0.0, 0
        for first in range(0, len(ids), window):
            part = ids[first : first + window]
            [logits] = self.runner.step([Chunk(self._sequence(part, 0, window, scored=True), 0, len(part))])
            shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
            scores = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
            nats -= scores[np.arange(len(part) - 1), part[1:]].sum()
            count += len(part) - 1
        return math.exp(nats / count)


class Transformers:
    """Transformers' model in fp32 with its own cache."""

    name = "transformers fp32"

    def __init__(self, model: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(
            model.parent, gguf_file=model.name, dtype=torch.float32
        ).eval()

    @torch.inference_mode()
    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """See System."""
        ids = torch.arange(1000, 1000 + n_prompt).repeat(n_streams, 1)
        cache = self.model(ids, use_cache=True, logits_to_keep=1).past_key_values
        start = time.perf_counter()
        for _ in range(n_tokens):
            cache = self.model(torch.full((n_streams, 1), 5), past_key_values=cache, use_cache=True).past_key_values
        return n_streams * n_tokens / (time.perf_counter() - start)

    @torch.inference_mode()
    def prompt(self, n_tokens: int) -> float:
        """See System."""
        start = time.perf_counter()
        self.model(torch.arange(1000, 1000 + n_tokens)[None], use_cache=True, logits_to_keep=1)
        return n_tokens / (time.perf_counter() - start)

    @torch.inference_mode()
    def perplexity(self, ids: list[int], window: int) -> float:
        """See System."""
        nats, count = 0.0, 0
        for first in range(0, len(ids), window):
            part = torch.tensor(ids[first : first + window])
            scores = self.model(part[None]).logits[0, :-1].double().log_softmax(-1)
            nats -= float(scores.gather(1, part[1:, None]).sum())
            count += len(part) - 1
        return math.exp(nats / count)


def make(name: str, model: Path, folder: Path, threads: int, max_streams: int, context: int) -> System:
    """The system of that name."""
    if name in OURS:
        kernels = load_kernels()
        if not isinstance(kernels, Kernels):
            raise SystemExit(kernels.reason)
        return Ours(kernels, model, name, threads=threads, max_streams=max_streams, context=context)
    if name == "transformers":
        return Transformers(model)
    from bench.llama_cpp_peer import LlamaCpp, requantise  # only where it is asked for: no extra of ours installs it

    file = requantise(model, name, folder)
    return LlamaCpp(file, name=f"llama.cpp {name}", threads=threads, max_streams=max_streams, context=context)


def say(figure: str, system: str, **values: object) -> None:
    """One JSON line."""
    versions = {}
    for package in ("chatwright", "torch", "transformers", "llama-cpp-python"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    line = {"figure": figure, "system": system, **values, "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    print(json.dumps(line | {"versions": versions}), flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--streams", default="1,4,16,32")
    parser.add_argument("--prompts", default="128,512,2048")
    parser.add_argument("--systems", default="auto,Q4_0,Q4_1,Q8_0,transformers")
    parser.add_argument("--no-perplexity", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = arguments.model
    if model is None:
        settings = load_settings()
        found = ModelsFolder(settings.models_dir).find(settings.default_model)
        if found is None:
            raise SystemExit(f"Pull the model first: chatwright pull {settings.default_model}")
        model = Path(found.path)
    streams = [int(n) for n in arguments.streams.split(",") if n]
    prompts = [int(n) for n in arguments.prompts.split(",") if n]
    context = max([n * (DECODE_AFTER + DECODE_TOKENS) for n in streams] + prompts + [WINDOW]) + 64
    file = GGUFFile.open(model)
    tokenizer = load_tokenizer(model.parent, file.metadata)
    text = " ".join(topic for _, topic in sorted(pydoc_data.topics.topics.items()))[:60_000]
    ids = tokenizer.encode(text)[:SCORED_TOKENS]
    with tempfile.TemporaryDirectory(prefix="chatwright-bench-") as folder:
        names = arguments.systems.split(",")
        if find_spec("llama_cpp") is None:
            names = [name for name in names if name in (*OURS, "transformers")]
            print("llama-cpp-python is not installed: its systems are left out.", file=sys.stderr)
        systems = [
            make(name, model, Path(folder), arguments.threads, max(streams, default=1), context) for name in names
        ]
        common = {"threads": arguments.threads, "n": arguments.rounds}
        if not arguments.no_perplexity:
            for system in systems:
                say("perplexity", system.name, value=round(system.perplexity(ids, WINDOW), 3), tokens=len(ids))
        cases = [
            (f"decode, {n} streams in total", lambda s, n=n: s.decode(n, DECODE_AFTER, DECODE_TOKENS)) for n in streams
        ]
        cases += [(f"prompt of {n}", lambda s, n=n: s.prompt(n)) for n in prompts]
        for figure, run in cases:
            for system in systems:
                run(system)  # warm up
            rounds = [[run(system) for system in systems] for _ in range(arguments.rounds)]
            peers = [i for i, system in enumerate(systems) if not isinstance(system, Ours)]
            for i, system in enumerate(systems):
                values = [row[i] for row in rounds]
                more = {}
                if isinstance(system, Ours) and peers:
                    ratios = [row[i] / max(row[j] for j in peers) for row in rounds]
                    more["ratio_to_best_peer"] = round(statistics.median(ratios), 2)
                say(
                    figure,
                    system.name,
                    value=round(statistics.median(values), 1),
                    unit="tokens/s",
                    range=[round(min(values), 1), round(max(values), 1)],
                    **more,
                    **common,
                )


if __name__ == "__main__":
    main()
