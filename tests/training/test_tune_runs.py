"""Tuning from a model folder and a dataset to a result that serves: what was trained is what answers."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatwright.engine.load import load_text_model
from chatwright.engine.protocol import SamplingParams
from chatwright.engine.text import TextDelta, TextModel, TextRequest
from chatwright.errors import InvalidDatasetError, InvalidModelError, StorageError, TrainingError, UsageError
from chatwright.model.card import SECTIONS
from chatwright.model.save import save_model
from chatwright.settings import Settings
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.tokenizer import load_chat_template
from chatwright.training.base_model import BaseModel
from chatwright.training.config import TrainingConfig
from chatwright.training.history import History
from chatwright.training.loop import train
from chatwright.training.progress import Silent
from chatwright.training.run import Run
from chatwright.training.tune import Tuned, load_task, resume_tuning, start_tuning
from chatwright.training.tune_recipe import TuneOptions
from chatwright.training.tune_task import Rows
from tests.model import tiny_models
from tests.server.tiny import VOCAB, make_model_folder
from tests.training.tuning import chat, tiny_gpt

CPU = torch.device("cpu")
CONVERSATIONS = [
    chat("Where is my order?", "It is on its way to you."),
    chat("你们几点开门？", "我们早上九点开门。"),
    chat("Can I pay by card?", "Yes, by any card.", "And in cash?", "In the shop only."),
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3-shaped and random, with the tokenizer and template of a tiny model that chats."""
    folder = make_model_folder(tmp_path_factory.mktemp("base") / "tiny")
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    model = tiny_gpt(VOCAB)
    with torch.no_grad():
        model.embed.weight *= (
            4  # an output head that can be sure of a token, as a trained one: an adapter does not change it
        )
    save_model(model, folder.parent / "weights", extra={"eos_token_id": 2})
    for file in (folder.parent / "weights").iterdir():
        file.rename(folder / file.name)
    return folder


def conversations(n: int) -> list[dict[str, Any]]:
    return [{"messages": chat(f"What is {a} and {a}?", f"It is {a + a}.")} for a in range(n)]


def tune(model: Path, data: Dataset, path: Path, *, compare: bool = False, **options: Any) -> Tuned:
    values = {"method": "lora", "rank": 8, "batch": 2, "epochs": 1, "precision": "fp32"} | options
    if values["method"] not in ("lora", "dpo"):
        del values["rank"]
    return start_tuning(BaseModel.open(model, ""), data, TuneOptions(**values), path, device=CPU, compare=compare)


async def answers(model: TextModel, prompts: Sequence[list[dict[str, Any]]]) -> list[str]:
    texts = []
    for messages in prompts:
        request = TextRequest(await model.encode_chat(messages), SamplingParams(max_tokens=60, temperature=0.0))
        text = ""
        async for event in model.generate(request):
            if isinstance(event, TextDelta):
                text += event.text
        texts.append(text)
    return texts


async def test_the_server_with_the_adapter_says_what_was_trained(model_folder: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"conversations": {"train": [{"messages": m} for m in CONVERSATIONS]}})
    tuned = tune(model_folder, data, tmp_path / "run", rank=32, lr=1e-2, epochs=40, batch=1, packed=False)
    assert tuned.result == tmp_path / "run" / "adapter"
    adapter = json.loads((tuned.result / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(model_folder.resolve())
    served = load_text_model(model_folder, "tuned", Settings(home=tmp_path), adapter=tmp_path / "run")
    try:
        prompts = [m[:k] for m in CONVERSATIONS for k in range(1, len(m), 2)]
        expected = [m[k]["content"] for m in CONVERSATIONS for k in range(1, len(m), 2)]
        assert await answers(served, prompts) == expected
    finally:
        await served.close()


async def test_full_tuning_says_the_same_here_and_in_transformers(model_folder: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"conversations": {"train": [{"messages": m} for m in CONVERSATIONS]}})
    tuned = tune(model_folder, data, tmp_path / "run", method="full", lr=5e-3, epochs=40, batch=1)
    assert tuned.result == tmp_path / "run" / "model"
    served = load_text_model(tuned.result, "tuned", Settings(home=tmp_path))
    try:
        ours = await answers(served, [m[:1] for m in CONVERSATIONS])
    finally:
        await served.close()
    assert ours == [m[1]["content"] for m in CONVERSATIONS]
    tokenizer = AutoTokenizer.from_pretrained(tuned.result)
    model = AutoModelForCausalLM.from_pretrained(tuned.result)
    for messages, answer in zip(CONVERSATIONS, ours, strict=True):
        text = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        out = model.generate(ids, max_new_tokens=60, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(out, skip_special_tokens=True) == answer


def test_early_stopping_keeps_the_best_weights(model_folder: Path, tmp_path: Path) -> None:
    split = {"train": conversations(6), "held_out": [{"messages": chat("What is it?", "北京上海天气")}]}
    data = write_dataset(tmp_path / "data", {"conversations": split})
    tuned = tune(model_folder, data, tmp_path / "run", lr=3e-2, epochs=40, patience=2)
    assert tuned.stopped_early
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    seen = [entry["bits_per_byte"] for entry in history if "bits_per_byte" in entry]
    assert tuned.metrics["bits_per_byte"] == pytest.approx(min(seen), rel=1e-4)
    assert len(seen) < 20
    assert (tmp_path / "run" / "report.html").is_file()
    assert tuned.result is not None
    after, before = tuned.metrics["bits_per_byte"], tuned.before["bits_per_byte"]
    card = (tuned.result / "README.md").read_text()
    assert f"held-out bits_per_byte: {after:.4f} (before tuning: {before:.4f})" in card
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(SECTIONS)


def test_a_run_goes_on_to_the_same_bits(model_folder: Path, tmp_path: Path) -> None:
    split = {"train": conversations(4), "held_out": conversations(6)[4:]}
    data = write_dataset(tmp_path / "data", {"conversations": split})
    weights = []
    for name in ("undisturbed", "killed"):
        run = tune(
            model_folder,
            data,
            tmp_path / name,
            dropout=0.1,
            augmentations=("typos", "word-swap"),
            epochs=3,
            patience=0,
            batch=1,
            packed=False,
        ).run
        if name == "killed":  # as if it had been: without its last checkpoint and its result
            newest = sorted((run.path / "checkpoints").iterdir())[-1]
            assert newest.name == "step-000012"
            shutil.rmtree(newest)
            shutil.rmtree(run.path / "adapter")
            resume_tuning(Run.open(run.path))
        weights.append((run.path / "adapter" / "adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_weaker_adapter_lies_between_the_base_and_the_whole(model_folder: Path, tmp_path: Path) -> None:
    """The figure of the run is that of the adapter as it is written, and its factors are those of the whole one."""
    rows = [{"messages": messages} for messages in CONVERSATIONS]
    data = write_dataset(tmp_path / "data", {"conversations": {"train": rows, "held_out": rows}})
    whole = tune(model_folder, data, tmp_path / "whole", method="lora", lr=1e-2)
    weak = tune(model_folder, data, tmp_path / "weak", method="lora", lr=1e-2, strength=0.5)
    configs = [json.loads((tmp_path / name / "adapter/adapter_config.json").read_text()) for name in ("whole", "weak")]
    assert configs[1]["lora_alpha"] == configs[0]["lora_alpha"] / 2
    tensors = [load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("whole", "weak")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    before, after, between = (each["bits_per_byte"] for each in (whole.before, whole.metrics, weak.metrics))
    assert after < between < before


def test_folds_are_runs_with_a_summary_and_finished_ones_are_not_repeated(model_folder: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(9)}})
    only = tune(model_folder, data, tmp_path / "run", folds=3, final=False)
    assert only.folds is not None
    spread = only.folds.figures["bits_per_byte"]
    assert spread.n == 3
    assert spread.sd > 0
    assert only.folds.rows == [(6, 3)] * 3
    written = json.loads((tmp_path / "run" / "folds.json").read_text())
    assert written["figures"]["bits_per_byte"]["mean"] == spread.mean
    assert only.result is None
    assert not (tmp_path / "run" / "adapter").exists()
    assert not list((tmp_path / "run" / "folds").glob("*/checkpoints/*"))  # a fold is for its figures
    events = [(tmp_path / "run" / "folds" / fold / "events.jsonl").read_bytes() for fold in "123"]
    again = resume_tuning(Run.open(tmp_path / "run"))
    assert [(tmp_path / "run" / "folds" / fold / "events.jsonl").read_bytes() for fold in "123"] == events
    assert again.folds == only.folds


def test_after_folds_comes_the_model_itself(model_folder: Path, tmp_path: Path) -> None:
    split = {"train": conversations(4), "held_out": conversations(6)[4:]}
    data = write_dataset(tmp_path / "data", {"conversations": split})
    tuned = tune(model_folder, data, tmp_path / "run", folds=2)
    assert tuned.result is not None
    assert (tuned.result / "adapter_model.safetensors").is_file()
    assert tuned.folds is not None
    assert tuned.folds.figures.keys() == {*tuned.metrics, *(f"{name}_before" for name in tuned.before)}
    untouched = load_task("lora", BaseModel.open(model_folder, ""), data, 256, CPU, Silent())
    section = tuned.run.section("tune")
    base = untouched.objective(untouched.train, untouched.held_out, section, 1, tmp_path)
    base.model.eval()
    assert tuned.before == pytest.approx(base.evaluate(full=True))
    assert tuned.before["loss"] != tuned.metrics["loss"]
    assert resume_tuning(Run.open(tuned.run.path)).before == tuned.before


def test_before_and_after_are_both_measured_in_float32(model_folder: Path, tmp_path: Path) -> None:
    split = {"train": conversations(4), "held_out": conversations(6)[4:]}
    data = write_dataset(tmp_path / "data", {"conversations": split})
    # at such a rate the weights stay what they were, and so must the figures
    tuned = tune(model_folder, data, tmp_path / "run", precision="bf16", lr=1e-9, epochs=1)
    assert tuned.run.section("training")["precision"] == "bf16"
    assert tuned.before["bits_per_byte"] == pytest.approx(tuned.metrics["bits_per_byte"], rel=1e-5)


def test_augmentations_are_compared_by_folds(model_folder: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(6)}})
    tuned = tune(model_folder, data, tmp_path / "run", folds=2, compare=True, batch=4)
    assert tuned.comparisons is not None
    assert set(tuned.comparisons.differences) == {"word-dropout", "word-swap", "typos"}
    for name, each in tuned.comparisons.differences.items():
        plain = tuned.comparisons.figures["none"]["bits_per_byte"].values
        changed = tuned.comparisons.figures[name]["bits_per_byte"].values
        assert each.difference.values == tuple(b - a for a, b in zip(plain, changed, strict=True))
        assert each.verdict in ("helped", "hurt", "cannot tell")
    assert tuned.result is None
    assert json.loads((tmp_path / "run" / "augmentations.json").read_text())["metric"] == "bits_per_byte"


def test_preferences_move_the_model_towards_what_was_chosen(model_folder: Path, tmp_path: Path) -> None:
    pairs = [
        {
            "messages": chat(f"Is {number} open?"),
            "chosen": [{"role": "assistant", "content": "Yes, come in."}],
            "rejected": [{"role": "assistant", "content": "No. Go away."}],
        }
        for number in range(10)
    ]
    data = write_dataset(tmp_path / "data", {"preferences": {"train": pairs[:8], "held_out": pairs[8:]}})
    tuned = tune(model_folder, data, tmp_path / "run", method="dpo", lr=5e-3, epochs=3)
    assert tuned.metrics["accuracy"] == 1.0
    assert tuned.metrics["margin"] > 0.1
    assert tuned.result == tmp_path / "run" / "adapter"
    full = tune(model_folder, data, tmp_path / "full", method="dpo", rank=0, lr=1e-3, epochs=1)
    assert full.result == tmp_path / "full" / "model"
    assert full.metrics["margin"] > 0


def test_a_tiny_dataset_and_a_context_longer_than_it_still_train(model_folder: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(1)}})
    tuned = tune(model_folder, data, tmp_path / "run", batch=64, context=256)
    assert tuned.run.section("training")["batch_rows"] == 1
    assert "there are only 1 rows" in tuned.run.reasons()["training"]["batch_rows"]
    assert tuned.result is not None


def test_what_cannot_be_trained_on_is_a_sentence_before_anything_is_written(model_folder: Path, tmp_path: Path) -> None:
    silent = write_dataset(tmp_path / "silent", {"conversations": {"train": [{"messages": chat("Hello")}] * 3}})
    texts = write_dataset(tmp_path / "texts", {"documents": {"train": [{"text": "Hello"}]}})
    labels = write_dataset(tmp_path / "labels", {"labelled": {"train": [{"text": "a", "label": "x"}] * 3}})
    spans = write_dataset(tmp_path / "spans", {"tagged": {"train": [{"text": "a", "spans": []}]}})
    good = write_dataset(tmp_path / "good", {"conversations": {"train": conversations(2)}})
    for kind, words, data, options in (
        (InvalidDatasetError, r"None of the 3 training rows .* no answer to learn from \(3\)", silent, {}),
        (InvalidDatasetError, r"needs conversations, and .* has documents \(chatwright train\)", texts, {}),
        (InvalidDatasetError, r"has labelled \(--method classify\)", labels, {"method": "dpo"}),
        (InvalidDatasetError, r"All 3 training texts have the label 'x'", labels, {"method": "classify"}),
        (InvalidDatasetError, r"None of the 1 training texts has a labelled span", spans, {"method": "tag"}),
        (InvalidDatasetError, r"2 groups of rows .* --folds 2 at most", good, {"folds": 3}),
        (UsageError, r"--context 512 is more than the model can read \(256", good, {"context": 512}),
        (UsageError, r"--alpha has no meaning for --method classify", labels, {"method": "classify", "alpha": 1.0}),
    ):
        with pytest.raises(kind, match=words):
            tune(model_folder, data, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_chat_template_is_told_so(model_folder: Path, tmp_path: Path) -> None:
    plain = base_folder(model_folder, tmp_path / "plain", "<|turn|>", "<|done|>")
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(2)}})
    with pytest.raises(InvalidModelError, match="has no chat template"):
        tune(plain, data, tmp_path / "run")


@pytest.mark.parametrize(
    ("begin", "end", "role"),
    [("<|im_start|>", "<|im_end|>", "assistant"), ("<start_of_turn>", "<end_of_turn>", "model")],
)
@pytest.mark.parametrize("method", ["lora", "full"])
async def test_a_base_model_learns_the_format_that_its_vocabulary_has_tokens_for(
    method: str, begin: str, end: str, role: str, model_folder: Path, tmp_path: Path
) -> None:
    """Template and end token are in what comes of it, and only there."""
    base = base_folder(model_folder, tmp_path / "base", begin, end)
    data = write_dataset(tmp_path / "data", {"conversations": {"train": [{"messages": m} for m in CONVERSATIONS]}})
    options = {"rank": 32, "lr": 1e-2} if method == "lora" else {"lr": 5e-3}
    tuned = tune(base, data, tmp_path / "run", method=method, epochs=40, batch=1, packed=False, **options)
    assert tuned.result is not None
    assert f"{begin}{role}\n" in load_chat_text(tuned.result, CONVERSATIONS[0][:1])
    assert not (base / "chat_template.jinja").exists()
    served = load_text_model(
        tuned.result if method == "full" else base,
        "tuned",
        Settings(home=tmp_path, quantization="fp32"),
        adapter=tmp_path / "run" if method == "lora" else None,
    )
    try:
        assert served.tokenizer.special_ids[end] in served.tokenizer.eos_ids
        expected = [m[k]["content"] for m in CONVERSATIONS for k in range(1, len(m), 2)]
        assert await answers(served, [m[:k] for m in CONVERSATIONS for k in range(1, len(m), 2)]) == expected
    finally:
        await served.close()


def load_chat_text(folder: Path, messages: list[dict[str, Any]]) -> str:
    template = load_chat_template(folder)
    assert template is not None
    try:
        return template.render(messages)
    finally:
        template.close()


def base_folder(model_folder: Path, folder: Path, begin: str, end: str) -> Path:
    """A base model: no template, its answers end with the text only, and turns have these tokens."""
    shutil.copytree(model_folder, folder)
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    for name in ("tokenizer.json", "config.json"):
        text = (folder / name).read_text().replace("<|im_start|>", begin).replace("<|im_end|>", end)
        (folder / name).write_text(text.replace('"eos_token_id": 2', '"eos_token_id": 0'))
    return folder


def test_a_run_does_not_go_on_with_another_dataset_or_model(model_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(2)}})
    run = tune(base, data, tmp_path / "run").run
    for name in (
        "chat_template.jinja",
        "tokenizer.json",
        "config.json",
    ):  # the same ids no longer, or not the same model
        whole = (base / name).read_bytes()
        (base / name).write_bytes(whole + b"\n")
        with pytest.raises(TrainingError, match="its config, tokenizer or chat template has changed"):
            resume_tuning(run)
        (base / name).write_bytes(whole)
    assert resume_tuning(run).result is not None
    save_model(tiny_gpt(VOCAB, seed=1), tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / "model.safetensors", base / "model.safetensors")
    with pytest.raises(TrainingError, match="its weights have changed"):
        resume_tuning(run)
    shutil.rmtree(tmp_path / "data")
    write_dataset(tmp_path / "data", {"conversations": {"train": conversations(3)}})
    with pytest.raises(TrainingError, match="has changed since the run"):
        resume_tuning(run)


def test_a_row_edited_in_place_is_noticed_before_a_run_and_before_it_goes_on(
    model_folder: Path, tmp_path: Path
) -> None:
    """The same length, the same manifest: only the bytes of the shard tell."""
    data = write_dataset(tmp_path / "data", {"conversations": {"train": [{"messages": chat("Is it?", "Yes sir")}] * 3}})
    run = tune(model_folder, data, tmp_path / "run").run
    shard = data.path / "conversations" / "train-00000.jsonl"
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b"Yes sir", b"No! sir"))
    words = rf"{shard} was changed after .* Put the old file back, or prepare the dataset again"
    with pytest.raises(InvalidDatasetError, match=words):
        resume_tuning(run)
    with pytest.raises(InvalidDatasetError, match=words):
        tune(model_folder, Dataset.open(data.path), tmp_path / "another")
    assert not (tmp_path / "another").exists()
    shard.write_bytes(whole)
    assert resume_tuning(run).result is not None


def test_a_run_goes_on_with_the_threads_that_it_began_with(model_folder: Path, tmp_path: Path) -> None:
    """Their number decides in which order sums are made."""
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(4)}})
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        run = tune(model_folder, data, tmp_path / "run", folds=2).run
        torch.set_num_threads(1)
        resume_tuning(run)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        resume_tuning(Run.open(run.path / "folds" / "1"))
        assert torch.get_num_threads() == 3
        assert all(entry["event"] != "environment_changed" for entry in run.events.read())
    finally:
        torch.set_num_threads(threads)


def out_of_memory(*_arguments: object, **_options: object) -> Any:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize("folds", [0, 2])
@pytest.mark.parametrize(
    "where",
    [
        "tune.load_task",
        "tune.measure_before",
        "cross_validation.measure_before",
        "base_model.load_model",
        "step.Stepper.step",
    ],
)
def test_memory_that_runs_out_anywhere_is_a_sentence_of_tune(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, folds: int
) -> None:
    if where.startswith("cross") and not folds:
        pytest.skip("only folds come there")
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(4)}})
    with monkeypatch.context() as patch:
        patch.setattr(f"chatwright.training.{where}", out_of_memory)
        with pytest.raises(TrainingError, match=r"Memory ran out\. .*--context.*--method lora") as raised:
            tune(model_folder, data, tmp_path / "run", folds=folds)
    assert "--size" not in str(raised.value)
    if (tmp_path / "run").exists():
        with monkeypatch.context() as patch:
            patch.setattr(f"chatwright.training.{where}", out_of_memory)
            with pytest.raises(TrainingError, match="--method lora"):
                resume_tuning(Run.open(tmp_path / "run"))
        assert resume_tuning(Run.open(tmp_path / "run")).result is not None


def full_disk(*_arguments: object, **_options: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_at_the_reference_or_at_the_details_is_a_sentence(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = {"messages": chat("Open?"), **{side: chat("", side)[1:] for side in ("chosen", "rejected")}}
    preferences = write_dataset(tmp_path / "pairs", {"preferences": {"train": [pair] * 3}})
    texts = [{"text": f"{label} text {n}", "label": label} for label in ("good", "bad") for n in range(4)]
    labels = write_dataset(tmp_path / "texts", {"labelled": {"train": texts, "held_out": texts[::2]}})
    with monkeypatch.context() as patch:
        patch.setattr("chatwright.training.preference.save_file", full_disk)
        with pytest.raises(StorageError, match=r"reference's log probabilities cannot be written .*No space left"):
            tune(model_folder, preferences, tmp_path / "dpo", method="dpo")
    assert resume_tuning(Run.open(tmp_path / "dpo")).result is not None

    with monkeypatch.context() as patch:

        def train_and_fill(*arguments: Any, **options: Any) -> Any:
            result = train(*arguments, **options)
            patch.setattr("chatwright.training.run.write_atomically", full_disk)
            return result

        patch.setattr("chatwright.training.tune.train", train_and_fill)
        with pytest.raises(StorageError, match=r"held_out\.json cannot be written: No space left"):
            tune(model_folder, labels, tmp_path / "labels", method="classify")
    assert resume_tuning(Run.open(tmp_path / "labels")).details["labels"] == ["bad", "good"]


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        ("conversations", {"messages": "Hello"}, "messages is not a list"),
        ("conversations", {"messages": [{"content": "Hello"}]}, "a message has no role"),
        ("preferences", {"messages": [], "chosen": [], "rejected": None}, "rejected is not a list"),
        ("labelled", {"text": "a", "label": 3}, "label is not a text"),
        ("tagged", {"text": "a", "spans": [{"start": "0", "end": 1, "label": "x"}]}, "a span needs start and end"),
    ],
)
def test_a_row_that_another_program_wrote_wrongly_is_named(
    tmp_path: Path, kind: Any, row: dict[str, Any], words: str
) -> None:
    rows = {"train": [{"language": "en", **row}]}
    with pytest.raises(InvalidDatasetError, match=words):
        list(Rows(_unchecked(tmp_path / "data", kind, rows), METHOD_OF[kind], Silent()).read("train"))


METHOD_OF: dict[str, Any] = {"conversations": "lora", "preferences": "dpo", "labelled": "classify", "tagged": "tag"}


def _unchecked(path: Path, kind: Any, rows: Any) -> Dataset:
    """A dataset whose only row was edited by hand."""
    good = {"conversations": {"messages": []}, "preferences": {"messages": [], "chosen": [], "rejected": []}}
    data = write_dataset(path, {kind: {"train": [good.get(kind, {"text": "a", "label": "x", "spans": []})]}})
    [shard] = path.glob("*/train-*.jsonl")
    line = json.dumps({"id": "r", "source": "", "cluster": 0, **rows["train"][0]}) + "\n"
    shard.write_text(line)
    return data


def test_losses_do_not_depend_on_packing_or_micro_batches(model_folder: Path, tmp_path: Path) -> None:
    answers = [
        "Yes.",
        "It is on its way to you, and will be with you tomorrow.",
        "你好，世界！我们今天去北京。",
        "No, not in the shop.",
    ]
    conversations = [{"messages": chat(f"Question {n}?", answers[n] * (1 + n % 2))} for n in range(4)]
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations}})
    task = load_task("full", BaseModel.open(model_folder, ""), data, 256, CPU, Silent())
    tune_section = {"rank": 0, "dropout": 0.0, "pack_length": 256, "augmentations": [], "method": "full"}
    losses = {}
    for name, packed, micro_rows in (("packed", True, 4), ("one at a time", False, 1), ("all at once", False, 4)):
        section = tune_section | {"packed": packed, "epochs": 50.0, "data": ""}
        objective = task.objective(task.train, [], section, 0, tmp_path)
        rows = objective.n_rows
        assert rows == (2 if packed else 4)
        config = TrainingConfig(n_steps=50, batch_rows=rows, micro_rows=min(rows, micro_rows), lr=3e-4)
        run = Run.create(tmp_path / name, "tune", {"training": config.to_dict()})
        train(objective, config, run)
        losses[name] = [value for _step, value in History.read(run).series["loss"]]
        assert len(losses[name]) == 50
    assert losses["packed"][-1] < 0.8 * losses["packed"][0]
    assert losses["one at a time"] == pytest.approx(losses["all at once"], rel=1e-5)
    assert losses["packed"] == pytest.approx(losses["all at once"], rel=1e-5)


def test_a_gguf_model_becomes_a_complete_folder(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = json.loads((model_folder / "tokenizer.json").read_text())
    template = (model_folder / "chat_template.jinja").read_text()

    class Writer(gguf.GGUFWriter):
        """Writes the tokenizer of the folder instead of a stand-in."""

        def add_token_list(self, tokens: Any) -> None:
            special = {token["content"] for token in backend["added_tokens"]}
            vocab = sorted(backend["model"]["vocab"], key=backend["model"]["vocab"].__getitem__)
            self.add_tokenizer_model("gpt2")
            self.add_tokenizer_pre("gpt-2")
            super().add_token_list(vocab)
            self.add_token_types([3 if token in special else 1 for token in vocab])
            self.add_token_merges([" ".join(merge) for merge in backend["model"]["merges"]])
            self.add_eos_token_id(vocab.index("<|im_end|>"))
            self.add_chat_template(template)

    monkeypatch.setattr(tiny_models.gguf, "GGUFWriter", Writer)
    tiny_models.write_gguf(AutoModelForCausalLM.from_pretrained(model_folder), tmp_path / "base.gguf")
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(3)}})
    tuned = tune(tmp_path / "base.gguf", data, tmp_path / "run", method="full")
    assert tuned.result is not None
    text = "What is 3 and 3? 你好，世界！ 🙂"
    ids = BaseModel.open(model_folder, "").tokenizer().encode(text)
    theirs = AutoTokenizer.from_pretrained(tuned.result)
    assert BaseModel.open(tuned.result, "").tokenizer().encode(text) == ids
    assert theirs(text, add_special_tokens=False).input_ids == ids
    assert theirs.chat_template == template
    assert AutoModelForCausalLM.from_pretrained(tuned.result).config.vocab_size == VOCAB
