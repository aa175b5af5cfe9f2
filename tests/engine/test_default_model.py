"""The default model says here what it says under Transformers, from the same dequantised weights."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatwright.engine.load import load_text_model
from chatwright.engine.protocol import SamplingParams
from chatwright.engine.text import TextDelta, TextRequest
from chatwright.settings import Settings

pytestmark = pytest.mark.model

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at",
    "The three branches of government are",
    "Dear Sir or Madam,\n\nI am writing to",
    "请问你知道Python编程语言的历史？",
    "Q: What is 12 + 30?\nA:",
]
N_TOKENS = 64
# Where the reference's two best logits are closer than this, rounding decides, and either continuation is right.
TIE = 1e-3


@pytest.mark.timeout(600)
@pytest.mark.slow
async def test_greedy_continuations_equal_transformers(default_model: Path) -> None:
    model = load_text_model(default_model, "default", Settings(quantization="fp32"))
    tokenizer = AutoTokenizer.from_pretrained(default_model.parent, gguf_file=default_model.name)
    reference = AutoModelForCausalLM.from_pretrained(
        default_model.parent, gguf_file=default_model.name, dtype=torch.float32
    ).eval()

    async def continue_greedily(prompt: str) -> tuple[list[int], list[int]]:
        ids = await model.encode(prompt)
        sampling = SamplingParams(max_tokens=N_TOKENS, temperature=0.0)
        answer: list[int] = []
        async for event in model.generate(TextRequest(ids, sampling)):
            if isinstance(event, TextDelta):
                answer += [token.id for token in event.tokens]
        return ids, answer

    # All at once: the batch must not change anything either.
    results = await asyncio.gather(*map(continue_greedily, PROMPTS))
    await model.close()
    compared = 0
    for prompt, (ids, answer) in zip(PROMPTS, results, strict=True):
        assert ids == tokenizer(prompt)["input_ids"]
        # One pass over prompt and answer gives what the reference would choose after each of our tokens: up to the first
        # difference that is its own greedy continuation.
        with torch.inference_mode():
            logits = reference(torch.tensor([ids + answer])).logits[0, len(ids) - 1 :]
        n_compared = 0
        for row, token in zip(logits, [*answer, None], strict=True):
            best = row.topk(2)
            if best.values[0] - best.values[1] < TIE:
                break
            if token is None:  # our answer is over: at the limit, or because the model said so
                assert len(answer) == N_TOKENS or int(best.indices[0]) in model.tokenizer.eos_ids, prompt
                break
            assert token == int(best.indices[0]), f"{prompt!r} parts after {n_compared} tokens"
            n_compared += 1
        compared += n_compared
    assert compared > 200, f"only {compared} tokens were compared"
