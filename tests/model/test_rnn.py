"""The recurrent models: they equal the textbook's recurrences, learn what needs memory, and their folders are ours alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from chatwright.errors import InvalidModelError
from chatwright.model.checkpoint import open_checkpoint
from chatwright.model.describe import describe_model
from chatwright.model.folder import write_model_folder
from chatwright.model.init import initialise
from chatwright.model.load import load_language_model, load_model
from chatwright.model.rnn import RNN
from chatwright.model.rnn_config import Cell, RNNConfig, rnn_parameter_count, rnn_parameter_shapes
from chatwright.model.rnn_folder import load_rnn, write_rnn
from tests.model.tiny_models import random_ids, randomise

CELLS = ["rnn", "lstm"]


def tiny(cell: Cell, **changes: Any) -> RNN:
    config = RNNConfig(**{"cell": cell, "vocab_size": 96, "n_layer": 2, "d_model": 32, "context_length": 64} | changes)
    model = RNN(config).eval()
    randomise(model)
    return model


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_the_recurrence_is_the_textbooks(cell: Cell) -> None:
    model = tiny(cell)
    p = dict(model.named_parameters())
    ids = random_ids(1, 9)
    h = [torch.zeros(32) for _ in range(2)]
    c = [torch.zeros(32) for _ in range(2)]
    for t in range(9):
        x = p["embed.weight"][ids[0, t]]
        for layer in range(2):
            z = p[f"cells.weight_ih_l{layer}"] @ x + p[f"cells.bias_ih_l{layer}"]
            z = z + p[f"cells.weight_hh_l{layer}"] @ h[layer] + p[f"cells.bias_hh_l{layer}"]
            if cell == "rnn":
                h[layer] = z.tanh()
            else:
                i, f, g, o = z.chunk(4)
                c[layer] = f.sigmoid() * c[layer] + i.sigmoid() * g.tanh()
                h[layer] = o.sigmoid() * c[layer].tanh()
            x = h[layer]
        torch.testing.assert_close(model(ids)[0, t], p["embed.weight"] @ x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_a_state_goes_on_where_the_text_was_cut(cell: Cell) -> None:
    model = tiny(cell)
    ids = random_ids(2, 30)
    first, state = model.advance(ids[:, :13])
    second, _ = model.advance(ids[:, 13:], state)
    torch.testing.assert_close(torch.cat((first, second), 1), model.hidden(ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_parameters_are_those_that_the_config_foretells(cell: Cell) -> None:
    model = tiny(cell)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == rnn_parameter_shapes(model.config)
    assert sum(p.numel() for p in model.parameters()) == rnn_parameter_count(model.config)


@pytest.mark.parametrize("cell", CELLS)
def test_first_weights_are_complete_and_decided_by_the_seed(cell: Cell) -> None:
    models = [tiny(cell) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        initialise(model, seed)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert not torch.equal(models[0].embed.weight, models[2].embed.weight)
    if cell == "lstm":
        forget = models[0].cells.bias_ih_l0.detach()[32:64]
        assert torch.equal(forget, torch.ones(32))


def test_the_lstm_learns_to_remember() -> None:
    """A token comes back after 6 others: only a state that holds it can tell."""
    generator = torch.Generator().manual_seed(0)
    model = RNN(RNNConfig(cell="lstm", vocab_size=12, n_layer=1, d_model=48, context_length=8))
    initialise(model, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(250):
        ids = torch.randint(0, 12, (64, 8), generator=generator)
        ids[:, 7] = ids[:, 0]
        loss = torch.nn.functional.cross_entropy(model(ids[:, :7])[:, -1], ids[:, 7])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.5  # a guess costs ln 12 = 2.5


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_dropout_is_for_training_only(cell: Cell) -> None:
    model = RNN(tiny(cell).config, dropout=0.5)
    initialise(model, 0)
    ids = random_ids(1, 9)
    torch.testing.assert_close(model.eval()(ids), model(ids))
    assert not torch.allclose(model.train()(ids), model(ids), atol=1e-3)


def save(model: RNN, folder: Path) -> None:
    folder.mkdir()
    write_rnn(model, folder)


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_folders_come_back(cell: Cell, tmp_path: Path) -> None:
    model = tiny(cell)
    save(model, tmp_path / "out")
    again = load_language_model(tmp_path / "out")
    assert isinstance(again, RNN)
    assert again.config == model.config
    torch.testing.assert_close(again(random_ids(2, 9)), model(random_ids(2, 9)), atol=1e-5, rtol=0)
    assert not any(p.requires_grad for p in again.parameters())
    assert all(p.requires_grad for p in load_rnn(tmp_path / "out", trainable=True).parameters())
    info = describe_model(tmp_path / "out")
    assert (info.config.family, info.n_parameters, info.context_length) == (cell, rnn_parameter_count(model.config), 64)


def test_whole_folders_hold_a_tokenizer_and_a_card(tmp_path: Path) -> None:
    write_model_folder(
        tiny("lstm"),
        tmp_path / "out",
        write_tokenizer=lambda folder: (folder / "tokenizer.json").write_text("{}") and None,
        generation={"eos_token_id": 3},
        card="---\nlanguage:\n- en\n---\n",
    )
    assert describe_model(tmp_path / "out").languages == ("en",)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 3


def test_nothing_else_takes_it_for_a_decoder(tmp_path: Path) -> None:
    save(tiny("rnn"), tmp_path / "out")
    for opened in (open_checkpoint, load_model):
        with pytest.raises(InvalidModelError, match="only Chatwright itself reads"):
            opened(tmp_path / "out")


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text())
        raw = {key: value for key, value in (raw | changes).items() if value is not ...}
        (folder / "config.json").write_text(json.dumps(raw))

    return change


def change_weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_config(cell="gru"), "cell is 'gru'"),
        (change_config(n_layer=0), "n_layer is 0"),
        (change_config(d_model="32"), "d_model is '32'"),
        (change_config(context_length=...), "lacks context_length"),
        (change_config(n_layer=3), "lacks the tensor cells.weight_ih_l2"),
        (change_weights(lambda w: w.update({"x": torch.ones(1)})), "no place for"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has neither"),
    ],
)
def test_broken_folders_are_refused(change: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    save(tiny("lstm"), tmp_path / "out")
    change(tmp_path / "out")
    for opened in (describe_model, load_language_model):
        with pytest.raises(InvalidModelError, match=reason):
            opened(tmp_path / "out")
