"""Answers of a model in memory to many prompts at once, without a server: samples while it trains, and answers to be scored.

A GPT goes through the engine's own scheduler, runner and sampler (continuous batching, KV cache), so that what is measured here is
what `serve` would say; any other model with `hidden` and `logits` (the RNN) through a plain loop that computes each prefix again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from chatwright.engine.blocks import BLOCK_TOKENS, blocks_for
from chatwright.engine.protocol import GenerateRequest, SamplingParams
from chatwright.engine.runner import ModelRunner
from chatwright.engine.sampler import adjust_logits, sample
from chatwright.engine.scheduler import Scheduler
from chatwright.engine.sequence import Group
from chatwright.engine.sequence import Sequence as Choice
from chatwright.evaluation.bits_per_byte import LanguageModel
from chatwright.model.gpt import GPT

# As in the server: long enough for efficient products; the batch bounds the cache.
MAX_STEP_TOKENS = 512


@dataclass(frozen=True)
class Answer:
    """`ids` without the token that stopped it. `stopped`: a stop token came, not the limit. `n_cut`: tokens at the beginning of
    the prompt that the context had no room for."""

    ids: tuple[int, ...]
    stopped: bool
    n_cut: int = 0


def generate_answers(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    stop_ids: frozenset[int] = frozenset(),
    context_length: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    max_batch: int = 32,
) -> list[Answer]:
    """One answer a prompt, in their order. Prompt i draws from `seed + i`, so an answer depends on nothing beside its prompt.

    `context_length` defaults to the GPT's own; a prompt that leaves no room for `max_tokens` loses its beginning. The model is put
    into eval mode meanwhile.
    """
    assert isinstance(model, nn.Module)
    if context_length is None:
        context_length = model.config.context_length if isinstance(model, GPT) else 1 << 16
    max_tokens = min(max_tokens, context_length - 1)
    room = context_length - max_tokens
    sampling = SamplingParams(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, stop_ids=stop_ids
    )
    requests = [
        GenerateRequest(str(i), list(prompt)[-room:], replace(sampling, seed=seed + i))
        for i, prompt in enumerate(prompts)
    ]
    assert all(request.prompt_ids for request in requests), "an empty prompt has no last token to continue"
    was_training = model.training
    model.eval()
    try:
        if isinstance(model, GPT):
            done = _with_engine(model, requests, max_batch)
        else:
            done = [_alone(model, Group(request).sequences[0]) for request in requests]
    finally:
        model.train(was_training)
    return [
        Answer(tuple(choice.token_ids[choice.n_prompt :]), choice.finished, max(0, len(prompt) - room))
        for choice, prompt in zip(done, prompts, strict=True)
    ]


def _with_engine(model: GPT, requests: Sequence[GenerateRequest], max_batch: int) -> list[Choice]:
    """What the engine's thread does, step by step and in this one. `finished` then says: by a stop token."""
    runner = ModelRunner(model)
    # Room for the longest that can run at the same time, and no more: the GPU may be full of a model in training. Without the
    # prefix cache an answer depends on nothing that was asked before, not even in its rounding.
    n_blocks = sum(sorted(blocks_for(len(r.prompt_ids) + r.sampling.max_tokens + 1) for r in requests)[-max_batch:])
    runner.allocate(n_blocks)
    scheduler = Scheduler(
        max_batch=max_batch,
        max_step_tokens=MAX_STEP_TOKENS,
        cache_tokens=n_blocks * BLOCK_TOKENS,
        prefix_cache=False,
    )
    choices = []
    for request in requests:
        group = Group(request)
        choices += group.sequences
        scheduler.add(group)
    while scheduler.has_work():
        chunks, preempted = scheduler.schedule()
        for choice in preempted:
            runner.free(choice)
        for chunk, logits_nV in zip(chunks, runner.step(chunks), strict=True):
            scheduler.advance(chunk)
            if not chunk.reaches_end:
                continue
            choice = chunk.sequence
            stopped = _append_next(choice, logits_nV[-1])
            if stopped or choice.n_output >= choice.group.request.sampling.max_tokens:
                scheduler.remove(choice)
                runner.free(choice)
                choice.finished = stopped
    return choices


@torch.no_grad()
def _alone(model: LanguageModel, choice: Choice) -> Choice:
    assert isinstance(model, nn.Module)
    device = next(model.parameters()).device
    while choice.n_output < choice.group.request.sampling.max_tokens and not choice.finished:
        ids_1T = torch.tensor([choice.token_ids], device=device)
        logits_V = model.logits(model.hidden(ids_1T)[0, -1]).float().cpu().numpy()
        choice.finished = _append_next(choice, logits_V)
    return choice


def _append_next(choice: Choice, logits_V: np.ndarray[tuple[int], np.dtype[np.float32]]) -> bool:
    """Choose the next token and keep it; True when it is a stop token, which is not kept."""
    sampling = choice.group.request.sampling
    adjusted = adjust_logits(logits_V, sampling, choice.group.request.prompt_ids, choice.output_counts)
    token_id = sample(adjusted, sampling, choice.index, choice.n_output)
    if token_id in sampling.stop_ids:
        return True
    choice.append(token_id)
    return False
