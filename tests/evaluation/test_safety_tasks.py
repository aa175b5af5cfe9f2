"""Bias, toxicity and memorisation as kinds of tasks: asked, kept, counted and compared as all others are."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from chatwright.engine.load import load_text_model
from chatwright.engine.tokenizers import copy_tokenizer
from chatwright.errors import EvaluationError, UsageError
from chatwright.evaluation.backends.engine import EngineWriter
from chatwright.evaluation.backends.protocol import Writer
from chatwright.evaluation.backends.remote import RemoteWriter
from chatwright.evaluation.backends.transformers import TransformersWriter
from chatwright.evaluation.bias import bias_of, read_pairs
from chatwright.evaluation.canaries import make_canaries
from chatwright.evaluation.documents import document_boundary
from chatwright.evaluation.examples import make_examples
from chatwright.evaluation.journal import Journal
from chatwright.evaluation.library import find_tasks
from chatwright.evaluation.recital import memorisation_task, n_given
from chatwright.evaluation.run import Answered, Silent, answer_with_writer, prepare
from chatwright.evaluation.scores import TaskScores, compare, sample_answers, score
from chatwright.evaluation.task import Task, load_task
from chatwright.model.load import load_model
from chatwright.model.save import save_model
from chatwright.settings import Settings
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.tokenizer import load_tokenizer
from tests.evaluation.example_tasks import write_task
from tests.server.harness import MODEL, RunningServer, start_server
from tests.server.tiny import make_model_folder

KNOWN = " ".join(f"The {n} cats of France sat on mat {n * 7 % 31} in Paris." for n in range(12))
UNKNOWN = " ".join(f"A dog number {n} did not meet {n * 11 % 37} people." for n in range(12))
CANARIES = make_canaries([6], language="en", seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("safety") / "tiny", context=256)


@pytest.fixture(scope="module")
def recital(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after it has learned a document and a canary by heart."""
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(0)
    model = load_model(folder, trainable=True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    start = document_boundary(tokenizer)
    encoded = [tokenizer.encode(text, add_special_tokens=False)[:200] for text in (KNOWN, CANARIES[0].text)]
    # Without the beginning of a document too: a server is not given it.
    rows = [*([start, *ids] for ids in encoded), encoded[0]]
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    targets = torch.tensor([[*row[1:], *[-100] * (length - len(row) + 1)] for row in rows])
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    target = tmp_path_factory.mktemp("safety") / "recital"
    save_model(model.eval(), target)
    copy_tokenizer(folder, target)
    return target


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    planted = [{"text": f"Note {n}. {CANARIES[0].text}"} for n in range(6)]
    rows = {"train": [{"text": KNOWN}, {"text": "short"}, *planted], "held_out": [{"text": UNKNOWN}]}
    return write_dataset(tmp_path_factory.mktemp("safety") / "dataset", {"documents": rows})


@pytest.fixture(scope="module")
def server(recital: Path) -> Iterator[RunningServer]:
    running = start_server(recital, quantization="fp32")
    yield running
    running.stop()


def engine(folder: Path) -> EngineWriter:
    return EngineWriter(load_text_model(folder, MODEL, Settings(threads=1, device="cpu", quantization="fp32")))


def answered(writer: Writer, task: Task, journal: Journal | None = None) -> Answered:
    async def answer() -> list[Answered]:
        try:
            return await answer_with_writer(writer, prepare([task]), journal or Journal(), Silent())
        finally:
            await writer.close()

    return asyncio.run(answer())[0]


def remote(server: RunningServer, task: Task) -> Answered:
    async def answer() -> list[Answered]:
        writer = await RemoteWriter.open(f"{server.url}/v1", MODEL, None)
        try:
            return await answer_with_writer(writer, prepare([task]), Journal(), Silent())
        finally:
            await writer.close()

    return asyncio.run(answer())[0]


def estimates(scores: TaskScores) -> dict[str, float]:
    return {name: interval.estimate for name, interval in scores.figures.items()}


def pairs(tmp_path: Path, n: int = 12) -> Task:
    items = [
        {"more": f"The cat sat on mat {i}.", "less": f"Mat {i} the on sat cat.", "axis": ["order", "cats"][i % 2]}
        for i in range(n)
    ]
    return load_task(write_task(tmp_path, "pairs", items, kind="bias"))


def test_bias_is_the_share_of_pairs_and_by_axis_as_measured_alone(folder: Path, tmp_path: Path) -> None:
    task = pairs(tmp_path)
    ours = answered(engine(folder), task)
    theirs = answered(TransformersWriter(folder, MODEL, 1), task)
    for a, b in zip(ours.results, theirs.results, strict=True):
        assert a["logprobs"] == pytest.approx(b["logprobs"], abs=1e-3)
    found = score(ours)
    alone = bias_of(
        read_pairs(task.path.with_suffix(".jsonl")), *zip(*(r["logprobs"] for r in ours.results), strict=True)
    )
    assert estimates(found)["stereotyped"] == alone.preferred.share
    assert {axis: found.figures[f"stereotyped: {axis}"].estimate for axis in ("order", "cats")} == {
        axis: each.share for axis, each in alone.by_axis.items()
    }
    assert [found.n_of(name) for name in ("stereotyped", "stereotyped: cats")] == [12, 6]


def test_a_model_nearer_to_no_preference_is_better_whichever_way_the_other_leans(tmp_path: Path) -> None:
    task = pairs(tmp_path, 200)

    def scores(n_more: int) -> list[TaskScores]:
        results = [{"logprobs": [-1.0, -2.0] if n < n_more else [-2.0, -1.0]} for n in range(200)]
        return [score(Answered(task, make_examples(task), results))]

    assert compare(scores(105), scores(180))[0].verdict == "better"
    assert compare(scores(105), scores(20))[0].verdict == "better"
    assert compare(scores(180), scores(105))[0].verdict == "worse"
    assert compare(scores(105), scores(95))[0].verdict == "cannot tell"
    assert compare(scores(180), scores(105))[0].metric == "stereotyped: distance"


def openings(tmp_path: Path) -> Task:
    items = [{"prompt": f"The cat {n}", "group": "cat" if n % 2 else ""} for n in range(8)]
    return load_task(write_task(tmp_path, "openings", items, kind="toxicity", max_tokens=8))


def test_continuations_are_drawn_alike_each_time_and_for_each_item_alone(folder: Path, tmp_path: Path) -> None:
    task = openings(tmp_path)
    first, again = answered(engine(folder), task), answered(engine(folder), task)
    assert first.results == again.results
    assert len({result["said"] for result in first.results}) > 1
    some = answered(engine(folder), task.sampled(3))
    by_text = {example.text: result["said"] for example, result in zip(first.examples, first.results, strict=True)}
    assert [by_text[example.text] for example in some.examples] == [result["said"] for result in some.results]


def test_toxic_continuations_are_counted_with_and_without_a_named_group(tmp_path: Path) -> None:
    task = openings(tmp_path)
    results = [{"said": " is an idiot" if n in (1, 3, 5, 0) else " is fine"} for n in range(8)]
    found = score(Answered(task, make_examples(task), results))
    assert estimates(found) == {"toxic": 0.5, "toxic: group named": 0.75, "toxic: no group named": 0.25}
    assert task.groups == [0, "cat", 2, "cat", 4, "cat", 6, "cat"], "openings about one group are drawn together"
    better = score(Answered(task, make_examples(task), [{"said": "is fine"}] * 8))
    assert compare([better], [found])[0].comparison.difference.estimate == -0.5
    assert not found.measures[0].higher_is_better


def test_a_document_and_a_canary_that_were_learned_by_heart_are_found(
    recital: Path, folder: Path, dataset: Dataset, server: RunningServer
) -> None:
    task = memorisation_task(dataset)
    assert [item["part"] for item in task.items] == ["train", "held_out", "canary 6"]
    found = {
        "learned": answered(engine(recital), task),
        "served": remote(server, task),
        "transformers": answered(TransformersWriter(recital, MODEL, 1), task),
        "never": answered(engine(folder), task),
    }
    for name in ("learned", "served", "transformers"):
        values = estimates(score(found[name]))
        assert values["recited"] == values["recited, part"] == 1, name
        assert values["recited: held out"] == 0
        assert values["exposure"] == pytest.approx(math.log2(128)), name
    values = estimates(score(found["never"]))
    assert values["recited"] == 0
    assert values["exposure"] < 7
    asked, wanted, said = sample_answers(score(found["learned"]))[0]
    assert asked + wanted == KNOWN[:256]
    assert said.startswith(wanted)


def test_chinese_documents_are_cut_between_characters(folder: Path, tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + 7 * n) for n in range(100))
    task = memorisation_task(
        write_dataset(tmp_path / "d", {"documents": {"train": [{"text": text, "language": "zh"}]}})
    )
    [item] = task.items
    assert text.startswith(item["text"])
    assert len(item["text"].encode()) in (254, 255, 256)
    assert n_given(item["text"]) == 42
    _said, wanted = asyncio.run(recited(engine(folder), item["text"]))
    assert wanted
    assert item["text"].endswith(wanted)
    assert "\ufffd" not in wanted


async def recited(writer: EngineWriter, text: str) -> tuple[str, str]:
    try:
        return await writer.recite(text, n_given(text))
    finally:
        await writer.close()


def test_an_answer_of_a_conversation_is_asked_for_as_it_was_trained(tmp_path: Path) -> None:
    answer = "We close at six in the evening from Monday to Friday, and at noon on Saturdays. " * 2
    turns = [{"role": "user", "content": "When do you close?"}, {"role": "assistant", "content": answer}]
    short = [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Yes."}]
    rows = {"train": [{"messages": turns}, {"messages": short}]}
    task = memorisation_task(write_dataset(tmp_path / "d", {"conversations": rows}))
    [example] = make_examples(task)
    assert [message["content"] for message in example.prompt.messages] == ["When do you close?"]
    assert example.text == answer[:128]
    right = Answered(task, [example], [{"said": answer, "wanted": example.text}])
    half = Answered(task, [example], [{"said": answer[:64] + "!", "wanted": example.text}])
    assert estimates(score(right))["recited"] == 1
    assert estimates(score(half)) == {"recited": 0, "recited, part": 0.5}


def test_near_copies_are_one_piece_of_evidence(tmp_path: Path) -> None:
    rows = [{"text": KNOWN + str(n), "cluster": 0 if n < 2 else 1} for n in range(3)]
    task = memorisation_task(write_dataset(tmp_path / "d", {"documents": {"train": rows}}))
    assert len(task.groups) == 3
    assert task.groups[0] == task.groups[1] != task.groups[2]


def test_what_cannot_be_measured_is_a_sentence(tmp_path: Path) -> None:
    nothing = write_dataset(tmp_path / "d", {"documents": {"train": [{"text": "short"}]}})
    with pytest.raises(EvaluationError, match="no document of 256 bytes"):
        memorisation_task(nothing)
    with pytest.raises(UsageError, match="--train"):
        find_tasks("memorisation")
    assert [task.name for task in find_tasks("bias,toxicity-zh")] == ["bias-en", "bias-zh", "toxicity-zh"]
    assert not any(task.kind in ("bias", "toxicity") for task in find_tasks("all"))
    wrong: Sequence[tuple[str, dict[str, Any], str]] = (
        ("bias", {"more": "a", "less": "a", "axis": "x"}, "both sentences are the same"),
        ("bias", {"more": "a", "less": " ", "axis": "x"}, "its field less is empty"),
        ("bias", {"more": "a", "less": "b"}, "no field axis"),
        ("toxicity", {"prompt": 1}, "must be a text"),
    )
    for kind, item, sentence in wrong:
        with pytest.raises(EvaluationError, match=sentence):
            prepare([load_task(write_task(tmp_path, "wrong", [item], kind=kind))])


def test_what_was_answered_before_is_not_asked_again(folder: Path, tmp_path: Path) -> None:
    task = openings(tmp_path)
    with Journal.open(tmp_path / "out", {}) as journal:
        first = answered(engine(folder), task, journal)
    lines = (tmp_path / "out" / "items.jsonl").read_text().splitlines()
    changed = {**json.loads(lines[0]), "said": "from the journal"}
    (tmp_path / "out" / "items.jsonl").write_text("\n".join([json.dumps(changed), *lines[1:]]) + "\n")
    with Journal.open(tmp_path / "out", {}) as journal:
        again = answered(engine(folder), task, journal)
    said = [result["said"] for result in again.results]
    assert said.count("from the journal") == 1
    assert sum(a == b["said"] for a, b in zip(said, first.results, strict=True)) == 7
