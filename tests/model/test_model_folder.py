"""Whole model folders: everything that serving needs, written at once, and fixed positions that any GPT-2 loader reads."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, GPT2LMHeadModel

from chatwright.errors import StorageError, UsageError
from chatwright.model.card import ModelCard
from chatwright.model.describe import describe_model
from chatwright.model.folder import new_file, new_folder, write_model_folder
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from chatwright.model.presets import config_for_size
from chatwright.model.save import save_model
from tests.model.tiny_models import random_ids, randomise


def tiny(arch: str, positions: str | None = None) -> GPT:
    model = GPT(config_for_size(150_000, 512, 64, arch, positions=positions)).eval()  # type: ignore[arg-type]
    randomise(model)
    return model


def write_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


@torch.no_grad()
def test_sinusoidal_positions_are_written_as_a_table_that_gpt2_reads(tmp_path: Path) -> None:
    ours = tiny("gpt2", "sinusoidal")
    save_model(ours, tmp_path / "out")
    ids = random_ids(2, 64)
    expected = ours(ids)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(theirs(ids).logits, expected, atol=1e-4, rtol=0)
    again = load_model(tmp_path / "out")
    assert again.config.positions == "learned"
    torch.testing.assert_close(again(ids), expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_weights_can_be_read_by_whom_the_other_files_can(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        save_model(tiny("qwen3"), tmp_path / "whole")
        save_model(tiny("qwen3"), tmp_path / "shards", max_shard_size=100_000)
    finally:
        os.umask(before)
    files = list(tmp_path.rglob("*.*"))
    assert len([file for file in files if file.suffix == ".safetensors"]) > 2
    assert {file.stat().st_mode & 0o777 for file in files} == {mode}


def test_a_model_folder_is_complete(tmp_path: Path) -> None:
    model = tiny("qwen3")
    card = "---\nlicense: unknown\nlanguage:\n- zh\n---\n"
    write_model_folder(
        model,
        tmp_path / "out",
        write_tokenizer=write_tokenizer,
        generation={"eos_token_id": [7, 9], "pad_token_id": 7, "temperature": 0.7, "do_sample": True},
        card=card,
    )
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["eos_token_id"], config["pad_token_id"]) == ([7, 9], 7)
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [7, 9]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.eos_token_id == [7, 9]
    assert describe_model(tmp_path / "out").languages == ("zh",)


def test_a_tokenizer_that_fails_leaves_no_model(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        write_model_folder(tiny("gpt2"), tmp_path / "out", write_tokenizer=fails, generation={}, card="")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        save_model(tiny("gpt2"), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_card_says_what_a_model_is_made_of(tmp_path: Path) -> None:
    card = ModelCard(
        title="Notes\n---\nlicense: mit",
        pipeline_tag="text-generation",
        languages=["zh", "en"],
        base_model="smollm2: 135m",
        dataset_fingerprint="abc123",
        recipe={"steps": 100, "optimizer": "muon"},
        scores={"bits_per_byte": "1.23 ± 0.02"},
    )
    save_model(tiny("qwen3"), tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text(card.render(), encoding="utf-8")
    info = describe_model(tmp_path / "out")
    assert (info.license, info.languages) == ("unknown", ("zh", "en"))
    for said in ("base_model: 'smollm2: 135m'", "abc123", "steps: 100", "1.23 ± 0.02", "# Notes --- license: mit"):
        assert said in card.render()


@pytest.mark.parametrize("new", [new_folder, new_file])
def test_sigterm_leaves_nothing_half_written(
    new: Callable[[Path], AbstractContextManager[Path]], tmp_path: Path
) -> None:
    """A quantisation that a service manager ended left a hidden folder of the model's size."""
    with pytest.raises(SystemExit) as ended, new(tmp_path / "model") as whole:  # noqa: PT012 — ended within
        part = whole / "part" if whole.is_dir() else whole
        part.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):  # the handler runs between two operations
            part.read_text()
    assert ended.value.code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_who_handles_sigterm_goes_on_handling_it(tmp_path: Path) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        with new_folder(tmp_path / "model") as whole:
            os.kill(os.getpid(), signal.SIGTERM)
            (whole / "x").write_text("whole")
        assert received == [signal.SIGTERM]
        assert (tmp_path / "model" / "x").read_text() == "whole"
    finally:
        signal.signal(signal.SIGTERM, before)
