"""A recurrent model is completed and served like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

from chatwright.model.folder import write_model_folder
from chatwright.model.init import initialise
from chatwright.model.rnn import RNN
from chatwright.model.rnn_config import RNNConfig
from tests.cli.conftest import Run
from tests.server.tiny import VOCAB


def test_it_continues_a_text_and_is_listed(command: Run, tiny_folder: Path, tmp_path: Path) -> None:
    model = RNN(RNNConfig(cell="lstm", vocab_size=VOCAB, n_layer=2, d_model=32, context_length=64))
    initialise(model, seed=0)

    def write_tokenizer(folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_folder / name, folder)

    write_model_folder(
        model, tmp_path / "lstm", write_tokenizer=write_tokenizer, generation={"eos_token_id": 0}, card="# An LSTM\n"
    )
    options = ("--seed", "1", "--temperature", "1", "--max-tokens", "20")
    first = command("complete", str(tmp_path / "lstm"), "The capital of", *options)
    assert first.code == 0, first.err
    assert len(first.out) > 1
    again = command("complete", str(tmp_path / "lstm"), "The capital of", *options)
    assert again.out == first.out
    shown = command("show", str(tmp_path / "lstm"))
    assert "lstm" in shown.out
    refused = command("serve", str(tmp_path / "lstm"), "--port", "0", "--adapter", f"x={tmp_path}")
    assert refused.code == 1
