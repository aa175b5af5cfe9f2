"""One number gives a whole model: of about that size, exportable, and of the shape that the reasons in `presets` promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chatwright.errors import UsageError
from chatwright.model.config import ModelConfig, parameter_count, parameter_shapes
from chatwright.model.hf import config_to_hf
from chatwright.model.presets import Architecture, config_for_size, parse_size, rnn_config_for_size
from chatwright.model.rnn_config import Cell, rnn_parameter_count

# size, a vocabulary that such a model would have
SIZES = [
    ("1m", 2048), ("2m", 4096), ("3m", 4096), ("5m", 4096), ("10m", 8192), ("20m", 8192), ("30m", 16384), ("60m", 16384),
    ("124m", 50257), ("135m", 49152), ("350m", 32768), ("600m", 65536), ("1b", 65536),
]  # fmt: skip


@pytest.mark.parametrize("arch", ["qwen3", "gpt2"])
@pytest.mark.parametrize(("size", "vocab_size"), SIZES)
def test_a_size_is_met_within_a_tenth(size: str, vocab_size: int, arch: Architecture) -> None:
    config = config_for_size(parse_size(size), vocab_size, 512, arch)
    assert parameter_count(config) == pytest.approx(parse_size(size), rel=0.1)
    assert 16 <= config.d_model / config.n_layer <= 150


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize(("size", "vocab_size"), SIZES)
def test_a_recurrent_model_meets_its_size_within_a_tenth(size: str, vocab_size: int, cell: Cell) -> None:
    config = rnn_config_for_size(parse_size(size), vocab_size, cell)
    assert rnn_parameter_count(config) == pytest.approx(parse_size(size), rel=0.1)


@pytest.mark.parametrize("arch", ["qwen3", "gpt2"])
@pytest.mark.parametrize(("size", "vocab_size"), [("0.1m", 512), ("0.3m", 1024), ("0.5m", 2048)])
def test_the_smallest_sizes_come_near(size: str, vocab_size: int, arch: Architecture) -> None:
    config = config_for_size(parse_size(size), vocab_size, 128, arch)
    assert parameter_count(config) == pytest.approx(parse_size(size), rel=0.2)
    assert config.n_layer >= 2


def test_the_size_of_gpt2_gives_gpt2() -> None:
    config = config_for_size(124_439_808, 50257, 1024, "gpt2")
    assert (config.n_layer, config.d_model, config.n_head, config.d_ff) == (12, 768, 12, 3072)
    assert parameter_count(config) == 124_439_808


@given(
    st.integers(100_000, 2_000_000_000),
    st.integers(4, 1024).map(lambda n: n * 64),
    st.sampled_from(["qwen3", "gpt2"]),
)
def test_every_preset_can_be_exported(n_parameters: int, vocab_size: int, arch: Architecture) -> None:
    try:
        config = config_for_size(n_parameters, vocab_size, 256, arch)
    except UsageError as error:
        assert 32 * vocab_size > n_parameters / 2, error  # noqa: PT017
        return
    config_to_hf(config)
    for shape in parameter_shapes(config).values():
        assert len(shape) == 1 or shape[1] % 32 == 0  # blocks of Q8_0 and Q4_0
    assert config.n_head * config.head_dim == config.d_model
    assert config.n_head % config.n_kv_head == 0


def test_a_vocabulary_that_leaves_no_room_is_refused_with_its_cost() -> None:
    with pytest.raises(UsageError, match=r"no room for a vocabulary of 151,936 tokens.* 4,861,952"):
        config_for_size(1_000_000, 151_936, 512, "qwen3")
    with pytest.raises(UsageError, match="no room"):
        rnn_config_for_size(1_000_000, 151_936, "lstm")


def test_positions_belong_to_gpt2() -> None:
    sinusoidal = config_for_size(3_000_000, 4096, 256, "gpt2", positions="sinusoidal")
    assert sinusoidal.positions == "sinusoidal"
    with pytest.raises(UsageError, match="gpt2 only"):
        config_for_size(3_000_000, 4096, 256, "qwen3", positions="learned")


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("10m", 10_000_000),
        ("0.3M", 300_000),
        ("1b", 10**9),
        ("350K", 350_000),
        ("1_000_000", 10**6),
        (" 12 m", 12 * 10**6),
    ],
)
def test_sizes_are_read(text: str, n: int) -> None:
    assert parse_size(text) == n


@pytest.mark.parametrize("text", ["", "m", "-3m", "0", "10", "3mb", "1e6", "nan", "9" * 5000, "100b", "３m", "3.m"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


def test_planning_a_model_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from chatwright.model.presets import config_for_size, parse_size;"
        "config_for_size(parse_size('10m'), 4096, 256); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_presets_are_configurations_that_torch_builds() -> None:
    from chatwright.model.gpt import GPT

    config: ModelConfig = config_for_size(300_000, 1024, 64)
    assert sum(p.numel() for p in GPT(config).parameters()) == parameter_count(config)
    assert GPT(config)(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 1024)
