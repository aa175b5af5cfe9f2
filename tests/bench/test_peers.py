"""Every system that `bench.engine` compares is measured by one protocol; those that are not installed here are left out."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest

from bench.engine import ratios
from bench.gguf_format import convert
from bench.peer import ROOT, Opening, PeerProcess
from chatwright.engine.tokenizers import load_model_tokenizer
from chatwright.evaluation.figure import Figure
from chatwright.evaluation.speed import DECODE_AFTER, bundled_text, perplexity_windows

# How far a perplexity may be from fp32's: OpenVINO makes 4-bit weights its own.
PEERS = [
    ("chatwright", "chatwright", 0.03),
    ("transformers", "transformers", 0.001),
    ("llama_cpp", "llama_cpp", 0.05),
    ("xllamacpp", "xllamacpp", 0.05),
    ("openvino", "openvino_genai", 0.5),
]


def opening(model: Path, kind: str = "fp32") -> Opening:
    return Opening(str(model), kind, threads=1, max_streams=2, context=2048)


@pytest.fixture(scope="module")
def windows(default_model: Path) -> list[list[int]]:
    return perplexity_windows(load_model_tokenizer(default_model), bundled_text(), 48, n_tokens=96)


@pytest.fixture(scope="module")
def expected(default_model: Path, windows: list[list[int]]) -> float:
    """The perplexity of the source weights."""
    with PeerProcess("ours", "bench.chatwright_peer", opening(default_model)) as ours:
        return ours.perplexity(windows)


@pytest.mark.model
@pytest.mark.parametrize(("peer", "package", "tolerance"), PEERS)
@pytest.mark.slow
def test_a_peer_measures_everything(
    peer: str, package: str, tolerance: float, default_model: Path, windows: list[list[int]], expected: float
) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with PeerProcess(peer, f"bench.{peer}_peer", opening(default_model, "auto")) as process:
        assert process.versions
        assert process.start_s > 0
        assert process.perplexity(windows) == pytest.approx(expected, rel=tolerance)
        for n_streams in (1, 2):
            assert process.decode(n_streams, DECODE_AFTER, 4) > 0
        assert process.prompt(20) > 0
        cold_s, cached_s = process.first_token(200)
        assert 0 < cached_s < cold_s


def test_a_peer_that_cannot_load_a_model_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ModelNotFoundError"):
        PeerProcess("ours", "bench.chatwright_peer", opening(tmp_path / "no.gguf"))


@pytest.mark.model
def test_a_peer_that_dies_is_noticed(default_model: Path) -> None:
    with PeerProcess("ours", "bench.chatwright_peer", opening(default_model)) as process:
        process.process.kill()
        with pytest.raises(RuntimeError, match="ours ended"):
            process.prompt(4)


@pytest.mark.parametrize(("kind", "bits", "steps"), [("F16", 16.0, 2000), ("Q8_0", 8.5, 200), ("Q4_0", 4.5, 7)])
def test_a_converted_file_holds_the_same_model(tmp_path: Path, kind: str, bits: float, steps: int) -> None:
    source, file = tmp_path / "source.gguf", tmp_path / "converted.gguf"
    rng = np.random.default_rng(0)
    values = {"norm.weight": rng.uniform(-1, 1, 64), "up.weight": rng.uniform(-1, 1, (32, 64))}
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_token_list(["a", "b", "ç"])
    writer.add_rope_freq_base(1e5)
    for name, value in values.items():
        writer.add_tensor(name, value.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    convert(source, kind, file)

    before, after = gguf.GGUFReader(source), gguf.GGUFReader(file)
    assert set(after.fields) == set(before.fields)
    for name in ("general.architecture", "tokenizer.ggml.tokens", "llama.rope.freq_base"):
        assert after.fields[name].contents() == before.fields[name].contents()
    norm, up = after.tensors
    assert (norm.name, up.name) == ("norm.weight", "up.weight")
    assert norm.data.tolist() == values["norm.weight"].astype(np.float32).tolist()
    assert up.tensor_type.name == kind
    assert up.shape.tolist() == [64, 32]
    assert 8 * up.n_bytes / up.n_elements == bits
    assert abs(gguf.quants.dequantize(up.data, up.tensor_type) - values["up.weight"]).max() < 1 / steps


def test_ratios_are_to_the_best_and_to_the_best_of_equal_quality() -> None:
    ours = Figure("decode", "chatwright auto", (30.0, 60.0, 90.0), "tokens/s", 1)
    good = Figure("decode", "llama.cpp Q8_0", (10.0, 20.0, 30.0), "tokens/s", 1)
    bad = Figure("decode", "llama.cpp Q4_0", (15.0, 30.0, 45.0), "tokens/s", 1)
    perplexities = {"chatwright auto": 10.0, "llama.cpp Q8_0": 10.04, "llama.cpp Q4_0": 12.0}
    assert ratios([ours, good, bad], ours, perplexities) == {
        "ratio_to_best_peer": 2.0,
        "ratio_to_best_peer_of_equal_quality": 3.0,
    }
    seconds = [
        Figure("first token, cold", name, (value,), "s") for name, value in (("chatwright auto", 1.0), ("x", 4.0))
    ]
    assert ratios(seconds, seconds[0], {}) == {"ratio_to_best_peer": 4.0}


@pytest.mark.model
def test_the_whole_benchmark_prints_a_line_a_figure(tmp_path: Path, default_model: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.engine", str(default_model), "--rounds", "1", "--threads", "1"),
            *("--streams", "2", "--prompts", "32", "--first", "40", "--systems", "auto,fp32", "--no-perplexity"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2 * 6
    for line in lines:
        assert {"figure", "system", "value", "unit", "n", "machine", "versions", "threads", "model"} <= set(line)
