"""Tokens per second of our engine beside Transformers on the default model: decoding at 1 and 16 streams, and a prompt of 512.

The two take turns (A B A B …) in one process with the same threads, so that a machine whose speed drifts is fair to both. One
JSON line a figure: median and range over the rounds, ratio to the peer, machine, versions. Weights and precision are the same
(the GGUF's, dequantised to fp32), so quality is the same too; `tests/engine/test_default_model.py` proves it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from chatwright.engine.blocks import blocks_for
from chatwright.engine.protocol import GenerateRequest, SamplingParams
from chatwright.engine.runner import ModelRunner
from chatwright.engine.scheduler import Chunk
from chatwright.engine.sequence import Group, Sequence
from chatwright.hub import ModelsFolder
from chatwright.settings import load_settings

PROMPT_TOKENS = 512
DECODE_TOKENS = 32
MAX_STREAMS = 16
BLOCKS_EACH = blocks_for(PROMPT_TOKENS + DECODE_TOKENS)


def sequence(n_tokens: int, number: int = 0) -> Sequence:
    """A prompt of arbitrary tokens, with blocks of its own for as long as it gets."""
    [choice] = Group(GenerateRequest("bench", list(range(1000, 1000 + n_tokens)), SamplingParams())).sequences
    choice.blocks = list(range(number * BLOCKS_EACH, (number + 1) * BLOCKS_EACH))
    return choice


def our_decode(runner: ModelRunner, n_streams: int) -> float:
    """Tokens per second of all streams together, after a prompt of 64."""
    streams = [sequence(64, number) for number in range(n_streams)]
    for stream in streams:
        runner.step([Chunk(stream, 0, 64)])
    start = time.perf_counter()
    for _ in range(DECODE_TOKENS):
        for stream in streams:
            stream.append(5)
        runner.step([Chunk(s, len(s.token_ids) - 1, len(s.token_ids)) for s in streams])
    seconds = time.perf_counter() - start
    for stream in streams:
        runner.free(stream)
    return n_streams * DECODE_TOKENS / seconds


def our_prompt(runner: ModelRunner) -> float:
    """Prompt tokens per second, in the chunks that the scheduler makes."""
    prompt = sequence(PROMPT_TOKENS)
    start = time.perf_counter()
    for first in range(0, PROMPT_TOKENS, 256):
        runner.step([Chunk(prompt, first, first + 256)])
    seconds = time.perf_counter() - start
    runner.free(prompt)
    return PROMPT_TOKENS / seconds


@torch.inference_mode()
def peer_decode(model: torch.nn.Module, n_streams: int) -> float:
    """The same with Transformers' forward and its own cache: no sampling either."""
    ids = torch.arange(1000, 1064).repeat(n_streams, 1)
    cache = model(ids, use_cache=True).past_key_values
    start = time.perf_counter()
    for _ in range(DECODE_TOKENS):
        cache = model(torch.full((n_streams, 1), 5), past_key_values=cache, use_cache=True).past_key_values
    return n_streams * DECODE_TOKENS / (time.perf_counter() - start)


@torch.inference_mode()
def peer_prompt(model: torch.nn.Module) -> float:
    """One forward pass over the prompt, logits of the last token only."""
    start = time.perf_counter()
    model(torch.arange(1000, 1000 + PROMPT_TOKENS)[None], use_cache=True, logits_to_keep=1)
    return PROMPT_TOKENS / (time.perf_counter() - start)


def compare(name: str, rounds: int, ours: Callable[[], float], peers: Callable[[], float]) -> None:
    """Take turns, then print the figure."""
    ours(), peers()  # warm up
    pairs = [(ours(), peers()) for _ in range(rounds)]
    mine, theirs = (list(values) for values in zip(*pairs, strict=True))
    figure = {
        "figure": name,
        "unit": "tokens/s",
        "median": round(statistics.median(mine), 1),
        "range": [round(min(mine), 1), round(max(mine), 1)],
        "transformers_median": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(a / b for a, b in pairs), 2),
        "n": rounds,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {package: version(package) for package in ("chatwright", "torch", "transformers")},
    }
    print(json.dumps(figure), flush=True)


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    settings = load_settings()
    model = ModelsFolder(settings.models_dir).find(settings.default_model)
    if model is None:
        raise SystemExit(f"Pull the model first: chatwright pull {settings.default_model}")
    path = Path(model.path)
    runner = ModelRunner.load(path, device="cpu", n_threads=settings.n_threads)
    runner.allocate(MAX_STREAMS * BLOCKS_EACH)
    peer = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    for n_streams in (1, MAX_STREAMS):
        compare(
            f"decode, {n_streams} streams in total",
            arguments.rounds,
            lambda n=n_streams: our_decode(runner, n),  # type: ignore[misc]
            lambda n=n_streams: peer_decode(peer, n),  # type: ignore[misc]
        )
    compare("prompt of 512", arguments.rounds, lambda: our_prompt(runner), lambda: peer_prompt(peer))


if __name__ == "__main__":
    main()
