"""Tokens per second of one conversation, by the runner that `serve` would choose on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from chatwright.engine.blocks import BLOCK_TOKENS, blocks_for
from chatwright.engine.kernels.library import Kernels, load_kernels
from chatwright.engine.kernels.runner import KernelRunner, unsupported
from chatwright.engine.protocol import GenerateRequest, SamplingParams
from chatwright.engine.runner import ModelRunner
from chatwright.engine.scheduler import Scheduler
from chatwright.engine.sequence import Group
from chatwright.model.config import ModelConfig
from chatwright.model.load import load_model

N_TOKENS, PROMPT_TOKENS = 48, 8


def decode_speed(path: Path, config: ModelConfig, n_threads: int, n_tokens: int = N_TOKENS) -> float:
    """From the median time of a step, so that a busy moment of the machine does not count."""
    n_tokens = min(n_tokens, config.context_length - PROMPT_TOKENS - 1)
    kernels = load_kernels()
    runner: KernelRunner | ModelRunner
    if isinstance(kernels, Kernels) and unsupported(config) is None:
        runner = KernelRunner.load(kernels, path, "auto", max_step_tokens=64, n_threads=n_threads, store=None)
    else:
        runner = ModelRunner(load_model(path))
    n_blocks = blocks_for(PROMPT_TOKENS + n_tokens + 1)
    runner.allocate(n_blocks)
    scheduler = Scheduler(max_batch=1, max_step_tokens=64, cache_tokens=n_blocks * BLOCK_TOKENS, prefix_cache=False)
    prompt = [i % config.vocab_size for i in range(1, PROMPT_TOKENS + 1)]
    group = Group(GenerateRequest("speed", prompt, SamplingParams(max_tokens=n_tokens, temperature=0.0)))
    [sequence] = group.sequences
    scheduler.add(group)
    seconds = []
    for _ in range(n_tokens):
        began = time.perf_counter()
        chunks, _preempted = scheduler.schedule()
        [logits] = runner.step(chunks)
        scheduler.advance(chunks[0])
        sequence.append(int(logits[-1].argmax()))
        seconds.append(time.perf_counter() - began)
    scheduler.remove(sequence)
    runner.free(sequence)
    return 1 / median(seconds[1:] or seconds)
