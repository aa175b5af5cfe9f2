"""Chat tuning: packed and unpacked, large and small micro-batches give the same losses; augmented packs still fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from chatwright.model.gpt import GPT
from chatwright.training.chat_rows import Example
from chatwright.training.sft import ChatTuning, answer_loss, collate, evaluation_batches
from tests.server.tiny import VOCAB, make_model_folder
from tests.training.tuning import chat, load_chat, make_examples, tiny_gpt

CPU = torch.device("cpu")
CONVERSATIONS = [
    chat("Hello", "Hi there"),
    chat("What is the capital of France?", "The capital of France is Paris.", "And Japan?", "Tokyo, of course, Tokyo."),
    chat("你好", "你好，世界！", system="Be brief."),
    chat("Add", "def add(a, b):\n    return a + b"),
    chat("Smile", "🙂"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("sft") / "tiny")


@pytest.fixture(scope="module")
def examples(folder: Path) -> list[Example]:
    return make_examples(folder, CONVERSATIONS)


def make(
    model: GPT, folder: Path, train: Sequence[Example], held_out: Sequence[Example] = (), **changes: Any
) -> ChatTuning:
    _tokenizer, _template, encode = load_chat(folder)
    values: dict[str, Any] = {
        "context_length": 256,
        "packed": True,
        "augmentations": (),
        "seed": 0,
        "encode": encode,
        "ask": list,
        "write": lambda folder: None,
        "result_name": "model",
    }
    return ChatTuning(model, train, held_out, **values | changes)


def gradients(model: GPT, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), retain_graph=True))


def plain_loss(model: GPT, example: Example) -> torch.Tensor:
    """The plainest possible: one conversation through the whole model, the loss of its supervised tokens."""
    logits_TV = model(torch.from_numpy(example.inputs.astype("int64"))[None])[0]
    targets_T = torch.from_numpy(example.targets.astype("int64"))
    return F.cross_entropy(logits_TV, targets_T, reduction="none")[torch.from_numpy(example.learned)].sum()


@pytest.mark.parametrize("changes", [{}, {"windows": (7, None)}, {"family": "gpt2", "positions": "learned"}])
def test_packed_and_unpacked_conversations_have_the_same_loss_and_gradients(
    examples: list[Example], changes: dict[str, Any]
) -> None:
    model = tiny_gpt(VOCAB, **changes)
    alone = torch.stack([plain_loss(model, example) for example in examples]).sum()
    packed = answer_loss(model, collate([examples[:3], examples[3:]], CPU))
    padded = answer_loss(model, collate([[example] for example in examples], CPU))
    for other in (packed, padded):
        assert other.item() == pytest.approx(alone.item(), rel=1e-5)
        for ours, plain in zip(gradients(model, other), gradients(model, alone), strict=True):
            assert torch.allclose(ours, plain, atol=1e-4, rtol=1e-3)


def test_micro_batches_sum_to_the_batch(folder: Path, examples: list[Example]) -> None:
    tuning = make(tiny_gpt(VOCAB), folder, examples, packed=False)
    whole = tuning.batch(range(tuning.n_rows), 0)
    parts = [tuning.batch([row], 0) for row in range(tuning.n_rows)]
    assert (
        tuning.weight(whole)
        == sum(tuning.weight(part) for part in parts)
        == sum(int(e.learned.sum()) for e in examples)
    )
    assert tuning.loss(whole).item() == pytest.approx(sum(tuning.loss(part).item() for part in parts), rel=1e-5)


def test_a_row_is_a_pack_within_the_context_and_every_conversation_is_in_one(
    folder: Path, examples: list[Example]
) -> None:
    tuning = make(tiny_gpt(VOCAB), folder, examples, context_length=max(map(len, examples)))
    assert 1 < tuning.n_rows < len(examples)
    assert sorted(index for items in tuning.packs for index in items) == list(range(len(examples)))
    assert tuning.batch(range(tuning.n_rows), 0).ids.shape[1] <= max(map(len, examples))
    assert set(tuning.documents(range(tuning.n_rows), 0)) == {example.name for example in examples}


def test_held_out_figures_are_the_plain_ones(folder: Path, examples: list[Example]) -> None:
    model = tiny_gpt(VOCAB).eval()
    figures = make(model, folder, examples, examples).evaluate(full=True)
    nats = sum(plain_loss(model, example).item() for example in examples)
    answers = [
        message["content"] for messages in CONVERSATIONS for message in messages if message["role"] == "assistant"
    ]
    assert figures["loss"] == pytest.approx(nats / sum(int(example.learned.sum()) for example in examples), rel=1e-5)
    assert figures["bits_per_byte"] == pytest.approx(nats / math.log(2) / len("".join(answers).encode()), rel=1e-5)
    assert make(model, folder, examples).evaluate(full=True) == {}


def test_a_glance_at_held_out_data_is_the_same_part_each_time(examples: list[Example]) -> None:
    assert sum(len(batch) for batch in evaluation_batches(examples, None)) == len(examples)
    glance = evaluation_batches(examples, len(examples[0]) + len(examples[1]))
    assert sorted(example.id for batch in glance for example in batch) == ["c0", "c1"]
    assert evaluation_batches(examples, 1) == [[examples[0]]]


@pytest.mark.parametrize("room", [0, 40])
def test_augmented_packs_fit_keep_their_answers_and_are_reproducible(
    folder: Path, examples: list[Example], room: int
) -> None:
    capacity = max(map(len, examples)) + room
    names = ("word-dropout", "word-swap", "typos")
    tuning = make(tiny_gpt(VOCAB), folder, examples, context_length=capacity, augmentations=names)
    rows = range(tuning.n_rows)
    plain = make(tiny_gpt(VOCAB), folder, examples, context_length=capacity).batch(rows, 0)
    seen = set()
    for epoch in range(8):
        batch = tuning.batch(rows, epoch)
        assert batch.ids.shape[1] <= capacity
        assert torch.equal(batch.targets, plain.targets)
        assert torch.equal(batch.ids, tuning.batch(rows, epoch).ids)
        seen.add(str(batch.ids.tolist()))
    assert len(seen) > 1


def test_dropout_makes_packed_losses_vary_and_evaluation_not(folder: Path, examples: list[Example]) -> None:
    torch.manual_seed(0)
    model = GPT(tiny_gpt(VOCAB).config, dropout=0.3)
    batch = collate([examples], CPU)
    assert answer_loss(model, batch).item() != answer_loss(model, batch).item()
    model.eval()
    assert answer_loss(model, batch).item() == answer_loss(model, batch).item()
