"""Tiny models to look into: one that writes text in four scripts, one that copies, an LSTM, an encoder and a head."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from chatwright.inspection.subject import Subject, open_subject
from chatwright.model.config import ModelConfig
from chatwright.model.folder import write_model_folder
from chatwright.model.gpt import GPT
from chatwright.model.init import initialise
from chatwright.model.rnn import RNN
from chatwright.model.rnn_config import RNNConfig
from chatwright.settings import Settings
from chatwright.tokenizer.tokenizer import Tokenizer
from tests.server.tiny import VOCAB, make_model_folder

SETTINGS = Settings(device="cpu", threads=1, quantization="fp32")
N_PLAIN, N_LOUD = 12, 4


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("inspected") / "tiny")


@pytest.fixture(scope="package")
def tiny(tiny_path: Path) -> Subject:
    return open_subject(tiny_path, "tiny", SETTINGS)


@pytest.fixture(scope="package")
def recurrent(tiny_path: Path) -> Subject:
    model = RNN(RNNConfig(cell="lstm", vocab_size=VOCAB, n_layer=2, d_model=32, context_length=64))
    initialise(model, seed=0)

    def write_tokenizer(folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_path / name, folder)

    folder = tiny_path.parent / "lstm"
    write_model_folder(
        model, folder, write_tokenizer=write_tokenizer, generation={"eos_token_id": 0}, card="# An LSTM\n"
    )
    return open_subject(folder, "lstm", SETTINGS)


@pytest.fixture(scope="package")
def encoder_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert") / "tiny"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "food", "was", "good", "bad", "##ly", "北", "京"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def copier() -> GPT:
    """One layer, one head, weights set by hand: whatever stands in the text, the last token that is loud (id 12 to 15) comes next.

    Channels: 0 to 15 which token, 16 whether it is loud, 17 always one, 18 to 33 the copy, which alone the head reads.
    """
    vocab, d = N_PLAIN + N_LOUD, 64
    config = ModelConfig(
        family="gpt2",
        vocab_size=vocab,
        n_layer=1,
        d_model=d,
        n_head=1,
        n_kv_head=1,
        head_dim=32,
        d_ff=32,
        context_length=32,
        norm="rmsnorm",
        norm_eps=1e-6,
        positions="learned",
        activation="relu",
        gated=False,
    )
    model = GPT(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.zero_()
    model.embed.weight[:, :vocab] = torch.eye(vocab)
    model.embed.weight[N_PLAIN:, 16] = 1
    model.embed.weight[:, 17] = 1
    attention = model.layers[0].attention
    attention.q.weight[0, 17] = 10
    attention.k.weight[0, 16] = 10
    attention.v.weight[:vocab, :vocab] = torch.eye(vocab)
    attention.out.weight[18 : 18 + vocab, :vocab] = torch.eye(vocab)
    assert model.head is not None
    model.head.weight[:, 18 : 18 + vocab] = 0.5 * torch.eye(vocab)  # not so sure that a gradient vanishes
    return model


@pytest.fixture(scope="package")
def copying(tiny: Subject) -> Subject:
    """`copier` with a tokenizer that is there to show tokens only."""
    assert isinstance(tiny.tokenizer, Tokenizer)
    return Subject("copier", copier(), tiny.tokenizer)
