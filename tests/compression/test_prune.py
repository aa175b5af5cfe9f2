"""Pruning: shapes stay those of an ordinary model, what is not used goes first, healing helps, and bad input is a sentence."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from chatwright.cli.edge import run as command
from chatwright.compression.export_hf import export_hf
from chatwright.compression.importance import measure_importance
from chatwright.compression.prune import prune, pruned_shape
from chatwright.compression.pruning import PruneOptions, prune_model
from chatwright.compression.quantize import QuantizeOptions, quantize
from chatwright.compression.source import Source
from chatwright.compression.study import matrices
from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.training.base_model import BaseModel
from chatwright.training.progress import Silent
from tests.compression.models import make_folder
from tests.training.corpus import make_dataset
from tests.training.tuning import tiny_gpt

IDS = torch.arange(3, 60)[None]
WIDE = {"intermediate_size": 128, "num_attention_heads": 8, "num_key_value_heads": 4}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("source") / "tiny", **WIDE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "text", 120, 8).path


def run(source: Path, out: Path, **options: Any) -> Any:
    return prune_model(BaseModel.open(source, ""), PruneOptions(**options), out, n_threads=1)


def config(**changes: Any) -> ModelConfig:
    return replace(tiny_gpt(64).config, **changes)


def test_shapes_stay_divisible_and_groups_whole() -> None:
    smollm = config(n_layer=30, d_model=576, n_head=9, n_kv_head=3, head_dim=64, d_ff=1536, windows=())
    shape = pruned_shape(smollm, 0.25, ("heads", "ffn"))
    assert (shape.n_layer, shape.n_kv_head, shape.queries, shape.d_ff) == (30, 2, 3, 1152)
    assert pruned_shape(smollm, 0.25, ("layers",)).n_layer == 22
    both = pruned_shape(smollm, 0.25, ("ffn", "layers"))
    assert (both.n_layer, both.d_ff) == (26, 1344)
    for ratio in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        shape = pruned_shape(smollm, ratio, ("heads", "ffn", "layers"))
        assert shape.d_ff % 32 == shape.n_kv_head * shape.queries * 64 % 32 == 0
        assert min(shape.n_layer, shape.n_kv_head, shape.queries, shape.d_ff) > 0


def test_what_does_nothing_is_what_goes() -> None:
    """Channels and heads whose outputs are never read, and a layer that adds nothing, are taken out without a trace."""
    model: GPT = tiny_gpt(64, n_layer=3, n_head=8, n_kv_head=4, head_dim=16, d_ff=96).eval().requires_grad_(False)
    idle = torch.randperm(96)[:32]
    for layer in model.layers:
        layer.feed_forward.down.weight[:, idle] = 0
        layer.attention.out.weight[:, 32:64] = 0  # the two queries of the second group
    for matrix in (model.layers[1].feed_forward.down, model.layers[1].attention.out):
        matrix.weight.zero_()
    with torch.no_grad():
        before = model(IDS)
    windows = IDS.repeat(4, 1)
    shape = pruned_shape(model.config, 0.45, ("heads", "ffn", "layers"))
    assert (shape.n_layer, shape.n_kv_head, shape.d_ff) == (2, 3, 64)
    smaller = prune(model, shape, measure_importance(model, windows, Silent()), windows, Silent())
    with torch.no_grad():
        assert float((smaller(IDS) - before).abs().max()) < 0.05 * float(before.std())


def test_what_is_left_is_fitted_to_say_what_was_said(source: Path) -> None:
    """Without the fit the same channels' removal costs more."""
    windows = torch.randint(3, 300, (8, 48), generator=torch.Generator().manual_seed(0))
    model = load_model(source)
    shape = pruned_shape(model.config, 0.5, ("ffn",))
    importance = measure_importance(model, windows, Silent())
    with torch.no_grad():
        before = model(windows)
    cut = load_model(source)
    for index, layer in enumerate(cut.layers):
        gone = importance.channels[index].topk(model.config.d_ff - shape.d_ff, largest=False).indices
        layer.feed_forward.down.weight[:, gone] = 0
    with torch.no_grad():
        plain = float((cut(windows) - before).square().mean())
        fitted = float((prune(model, shape, importance, windows, Silent())(windows) - before).square().mean())
    assert fitted < 0.9 * plain


def test_a_healed_model_is_a_smaller_ordinary_one(source: Path, data: Path, tmp_path: Path) -> None:
    bill = run(source, tmp_path / "out", ratio=0.25, heal=data, minutes=0.05)
    made = load_model(tmp_path / "out").config
    assert (made.n_kv_head, made.n_head, made.d_ff) == (3, 6, 96)
    assert bill.after.n_parameters < bill.before.n_parameters
    [note] = bill.notes
    unhealed = float(note.split()[2])
    assert bill.after.scores.bits_per_byte < unhealed
    assert not [entry for entry in (tmp_path / "out").iterdir() if "heal" in entry.name]
    healed_on, card = Dataset.open(data), (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"## Data\n\n- fingerprint: {healed_on.fingerprint}\n- text: " in card
    assert f"{healed_on.n_bytes('train', 'documents'):,} bytes" in card
    assert "- minutes of healing: 0.05\n" in card
    assert f"- bits per byte: {bill.after.scores.bits_per_byte:.4f} (before: " in card


class Interrupting(Silent):
    """Ctrl-C after some steps; counts the steps that were done, and keeps what was said."""

    def __init__(self, after: int) -> None:
        self.after, self.steps, self.said = after, list[int](), list[str]()

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        self.steps.append(step)
        if len(self.steps) == self.after:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_healing_goes_on_with_the_same_command(
    source: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def heal(progress: Interrupting, **changes: Any) -> Any:
        options = PruneOptions(**{"ratio": 0.25, "heal": data, "minutes": 0.05, **changes})
        return prune_model(BaseModel.open(source, ""), options, tmp_path / "out", n_threads=1, progress=progress)

    first = Interrupting(3)
    with pytest.raises(KeyboardInterrupt):
        heal(first)
    kept = tmp_path / "out-healing"
    assert str(kept) in first.said[-1]
    assert not (tmp_path / "out").exists()
    n_steps = json.loads((kept / "steps.json").read_text())["n_steps"]
    other = make_dataset(tmp_path / "other", 120, 9).path
    for changes, settings in (
        ({"minutes": 1.0}, "--minutes 0.05"),
        ({"ratio": 0.5, "seed": 7}, "--ratio 0.25 --seed 0"),
        ({"what": ("ffn",)}, "--what heads,ffn"),
        ({"calibration": other}, f"--calibration {data}"),
        ({"heal": other}, f"--heal {data}"),
    ):
        with pytest.raises(UsageError, match=rf"interrupted, of a command with {re.escape(settings)}\. Repeat"):
            heal(Interrupting(0), **changes)
    config = (kept / "config.toml").read_text(encoding="utf-8")
    (kept / "config.toml").write_text(re.sub('weights = "[0-9a-f]+"', 'weights = "0"', config), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"interrupted, and {re.escape(str(source))} has changed since"):
        heal(Interrupting(0))
    (kept / "config.toml").write_text(config, encoding="utf-8")
    assert command(["runs", "resume", str(kept)]) == 1
    assert "repeat the `chatwright prune` command" in capsys.readouterr().err
    second = Interrupting(0)
    bill = heal(second)
    assert first.steps + second.steps == list(range(1, n_steps + 1))
    assert not kept.exists()
    assert re.search(rf"steps of healing\W+{n_steps}\b", (tmp_path / "out" / "README.md").read_text())
    assert bill.after.scores.bits_per_byte < float(bill.notes[0].split()[2])


def test_a_part_that_cannot_give_so_little_stays_and_is_said(data: Path, tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", intermediate_size=128)
    bill = run(source, tmp_path / "out", ratio=0.25, calibration=data, measure=False)
    assert "All 4 heads stay" in bill.notes[0]
    assert load_model(tmp_path / "out").config.n_head == 4


@pytest.mark.parametrize(
    ("to", "command"), [("int4", "chatwright quantize --to int4"), ("BF16", "chatwright export --to hf --type BF16")]
)
def test_that_a_small_source_becomes_floats_is_said(
    source: Path, data: Path, tmp_path: Path, to: str, command: str
) -> None:
    small = tmp_path / "small"
    if to == "int4":
        quantize(BaseModel.open(source, ""), QuantizeOptions(to="int4", measure=False), small, n_threads=1)
    else:
        export_hf(Source.open(source), small, "BF16")
    bill = run(small, tmp_path / "out", ratio=0.25, calibration=data, measure=False)
    assert bill.after.size_bytes > bill.before.size_bytes
    [note] = bill.notes
    assert "are written in float32" in note
    assert command in note
    assert note in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_studies_say_that_nothing_gets_faster(source: Path, data: Path, tmp_path: Path) -> None:
    for number, options in enumerate(
        ({"unstructured": "magnitude"}, {"unstructured": "wanda", "calibration": data}, {"low_rank": True})
    ):
        bill = run(source, tmp_path / str(number), ratio=0.5, measure=False, **options)
        assert "faster" in bill.notes[0]
        weights = matrices(load_model(tmp_path / str(number)))
        if "unstructured" in options:
            assert all(float((weight == 0).float().mean()) == 0.5 for weight in weights)
        else:
            assert all(int(torch.linalg.matrix_rank(w, rtol=1e-4)) < 0.6 * min(w.shape) for w in weights)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_ratio_must_leave_something_and_take_something(ratio: float, data: Path) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        PruneOptions(ratio=ratio, calibration=data)


def test_bad_input_is_a_sentence_and_writes_nothing(source: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs text"):
        PruneOptions(ratio=0.25)
    with pytest.raises(UsageError, match="nothing of ffn"):
        run(source, tmp_path / "out", ratio=0.01, what=("ffn",), calibration=data)
    with pytest.raises(UsageError, match="not empty"):
        run(source, source, ratio=0.25, calibration=data)
    short = write_dataset(tmp_path / "short", {"documents": {"train": [{"text": "Too little."}]}}).path
    with pytest.raises(InvalidDatasetError, match=r"less than one window.*Train on more"):
        # the calibration is looked at behind this, and is not there at all
        run(source, tmp_path / "out", ratio=0.25, heal=short, calibration=tmp_path / "absent")
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(InvalidDatasetError, match="no text to measure on"):
        run(source, tmp_path / "out", ratio=0.25, calibration=data, text=tmp_path / "empty.txt")
    assert not (tmp_path / "out").exists()
