"""Answers in bulk are those that each prompt gets alone, from the model's own next-token distribution."""

from __future__ import annotations

import pytest
import torch

from chatwright.evaluation.generate import generate_answers
from chatwright.model.gpt import GPT
from tests.engine.conftest import VOCAB, tiny_model

PROMPTS = [[1, 2, 3], [50], [7] * 40, list(range(20))]


@pytest.fixture(scope="module")
def model() -> GPT:
    return tiny_model()


def greedy(model: GPT, prompt: list[int], n: int) -> list[int]:
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


class Plain(torch.nn.Module):
    """The same model, known only by `hidden` and `logits`, as an RNN is."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.inner = model

    def hidden(self, ids_BT: torch.Tensor) -> torch.Tensor:
        return self.inner.hidden(ids_BT)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner.logits(x)


@pytest.mark.parametrize("max_batch", [1, 2, 32])
def test_greedy_answers_are_the_likeliest_tokens(model: GPT, max_batch: int) -> None:
    answers = generate_answers(model, PROMPTS, max_tokens=12, max_batch=max_batch)
    assert [list(a.ids) for a in answers] == [greedy(model, prompt, 12) for prompt in PROMPTS]
    assert not any(a.stopped for a in answers)


def test_any_model_with_hidden_and_logits_answers_alike(model: GPT) -> None:
    ours = generate_answers(model, PROMPTS, max_tokens=8, temperature=1.0, seed=3)
    assert generate_answers(Plain(model), PROMPTS, max_tokens=8, temperature=1.0, seed=3) == ours


def test_sampled_answers_depend_on_seed_and_prompt_only(model: GPT) -> None:
    def sampled(prompts: list[list[int]], seed: int) -> list[tuple[int, ...]]:
        return [a.ids for a in generate_answers(model, prompts, max_tokens=10, temperature=1.5, seed=seed)]

    first = sampled(PROMPTS, 0)
    assert sampled(PROMPTS, 0) == first
    assert sampled(PROMPTS[:1], 0) == first[:1]
    assert sampled(PROMPTS, 1) != first
    same = sampled([PROMPTS[0]] * 6, 0)
    assert len(set(same)) > 1, "the first draw was given to all"


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(model: GPT) -> None:
    whole = greedy(model, PROMPTS[0], 12)
    stop = whole[5]
    [answer] = generate_answers(model, PROMPTS[:1], max_tokens=12, stop_ids=frozenset({stop}))
    assert answer.stopped
    assert list(answer.ids) == whole[: whole.index(stop)]


def test_a_prompt_longer_than_the_context_loses_its_beginning_and_says_so(model: GPT) -> None:
    prompt = [i % VOCAB for i in range(700)]
    [answer] = generate_answers(model, [prompt], max_tokens=10)
    assert answer.n_cut == 700 - (512 - 10)
    assert list(answer.ids) == greedy(model, prompt[-502:], 10)
