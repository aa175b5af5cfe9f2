"""DPO on whole answers: log probabilities are sums of the plain ones, the reference stays the start, answers are never cut away."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from chatwright.model.gpt import GPT
from chatwright.model.lora import LoraConfig, add_lora
from chatwright.training.chat_rows import CUT, NO_ROOM, NOTHING_TO_LEARN, SPLIT, Notes
from chatwright.training.preference import SAME, Pair, PreferenceTuning, answer_log_probabilities, pairs_of
from tests.model.tiny_models import factors
from tests.server.tiny import VOCAB, make_model_folder
from tests.training.tuning import chat, load_chat, tiny_gpt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("dpo") / "tiny")


def row(number: int, context: list[dict[str, Any]], chosen: str, rejected: str) -> dict[str, Any]:
    sides = {
        name: [{"role": "assistant", "content": text}] for name, text in (("chosen", chosen), ("rejected", rejected))
    }
    return {"id": f"p{number}", "source": "", "cluster": number, "messages": context, **sides}


ROWS = [
    row(0, chat("Hello"), "Hi there", "Go away, I do not want to talk"),
    row(1, chat("Capital?", "Of what?", "Of France"), "Paris.", "Tokyo"),
    row(2, chat("你好", system="Be brief."), "你好，世界！", "猫坐在垫子上，狗没有"),
]


def make_pairs(folder: Path, rows: list[dict[str, Any]], context: int = 256) -> tuple[list[Pair], Notes]:
    notes = Notes()
    return pairs_of(rows, load_chat(folder)[2], context, notes), notes


def make(model: GPT, pairs: list[Pair], tmp_path: Path, held_out: list[Pair] | None = None) -> PreferenceTuning:
    return PreferenceTuning(
        model,
        pairs,
        held_out or [],
        beta=0.1,
        reference_file=tmp_path / "reference.safetensors",
        ask=list,
        write=lambda folder: None,
        result_name="adapter",
    )


def plain_log_probability(model: GPT, ids: list[int], learned: list[bool]) -> float:
    logs_TV = F.log_softmax(model(torch.tensor([ids]))[0].double(), dim=-1)
    return sum(float(logs_TV[place - 1, ids[place]]) for place in range(1, len(ids)) if learned[place])


def test_log_probabilities_are_sums_over_the_answer_and_its_end_only(folder: Path) -> None:
    tokenizer = load_chat(folder)[0]
    pairs, _notes = make_pairs(folder, ROWS)
    model = tiny_gpt(VOCAB).eval()
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    with torch.no_grad():
        ours = answer_log_probabilities(model, answers).tolist()
        plain = [plain_log_probability(model, list(r.ids), list(r.supervised)) for [r] in answers]
    assert ours == pytest.approx(plain, rel=1e-4)
    for pair, given in zip(pairs, ROWS, strict=True):
        [chosen] = pair.chosen
        learned = [i for i, own in zip(chosen.ids, chosen.supervised, strict=True) if own]
        assert tokenizer.decode(learned) == given["chosen"][0]["content"]  # not "Of what?", an answer of the context
        assert learned[-1] in tokenizer.eos_ids


def test_the_loss_equals_a_plain_reference_and_its_gradient_trains_only_the_adapter(
    folder: Path, tmp_path: Path
) -> None:
    pairs, _notes = make_pairs(folder, ROWS)
    model = tiny_gpt(VOCAB)
    add_lora(model, LoraConfig(r=4), seed=0)
    tuning = make(model, pairs, tmp_path)
    assert tuning.loss([0, 1, 2]).item() == pytest.approx(3 * math.log(2), rel=1e-5)
    with torch.no_grad():
        for factor in factors(model):
            factor += 0.05 * torch.randn_like(factor)
    expected = 0.0
    for pair in pairs:
        [chosen], [rejected] = pair.chosen, pair.rejected
        margin = 0.0
        for sign, answer in ((1, chosen), (-1, rejected)):
            with torch.no_grad():
                policy = plain_log_probability(model, list(answer.ids), list(answer.supervised))
                base = plain_log_probability(tiny_gpt(VOCAB), list(answer.ids), list(answer.supervised))
                margin += sign * (policy - base)
        expected += math.log1p(math.exp(-0.1 * margin))
    loss = tuning.loss(tuning.batch([2, 0, 1], 0))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert tuning.weight(tuning.batch([2, 0, 1], 0)) == 3
    loss.backward()
    assert {name.rsplit(".", 1)[1] for name, p in model.named_parameters() if p.grad is not None} == {
        "lora_a",
        "lora_b",
    }


def test_the_reference_is_kept_and_belongs_to_its_pairs(folder: Path, tmp_path: Path) -> None:
    pairs, _notes = make_pairs(folder, ROWS)
    model = tiny_gpt(VOCAB)
    first = make(model, pairs, tmp_path).reference
    with torch.no_grad():
        model.embed.weight += 0.1
    assert (make(model, pairs, tmp_path).reference == first).all()
    assert make(model, pairs[:2], tmp_path).reference.shape == (2, 2)
    (tmp_path / "reference.safetensors").write_bytes(b"torn")
    assert (make(model, pairs, tmp_path).reference != first).any()


def test_held_out_pairs_are_scored(folder: Path, tmp_path: Path) -> None:
    pairs, _notes = make_pairs(folder, ROWS)
    model = tiny_gpt(VOCAB)
    tuning = make(model, pairs[:1], tmp_path, pairs[1:])
    assert tuning.evaluate(full=True) == pytest.approx({"loss": math.log(2), "accuracy": 0.5, "margin": 0.0}, abs=1e-5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _step in range(10):
        optimizer.zero_grad()
        tuning.loss([0]).backward()
        optimizer.step()
    assert tuning.loss([0]).item() < 0.5 * math.log(2)
    assert make(model, pairs, tmp_path / "..").evaluate(full=True) == {}


def test_pairs_that_teach_nothing_are_left_out_and_counted(folder: Path) -> None:
    rows = [
        row(0, chat("Hello"), "Hi", "Hi"),
        row(1, chat("Hello"), "Hi", " "),
        row(2, chat("Hello " * 300), "Hi", "Ho"),
        row(3, chat("Hello"), "word " * 300, "Go"),
        row(4, chat(*["Hello there, my friend", "Hi there"] * 20, "Bye"), "Good bye", "Go"),
        ROWS[0],
    ]
    pairs, notes = make_pairs(folder, rows, 100)
    assert notes.counts == {SAME: 1, NOTHING_TO_LEARN: 1, NO_ROOM: 1, CUT: 1, SPLIT: 1}
    assert [pair.name for pair in pairs] == ["p3", "p4", "p0"]
    assert all(pair.n_inputs <= 100 for pair in pairs)
    for pair in pairs:
        assert all(any(r.supervised[1:]) for r in (*pair.chosen, *pair.rejected))
