"""Whole models on the kernels: equal to PyTorch's in fp32, the same bits whatever else runs, packed weights kept on the disk."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file

from chatwright.engine.blocks import blocks_for
from chatwright.engine.kernels import weights as packed_weights
from chatwright.engine.kernels.library import Kernels, Source, load_kernels
from chatwright.engine.kernels.packed import sweep
from chatwright.engine.kernels.rows import check_finite
from chatwright.engine.kernels.runner import KernelRunner
from chatwright.engine.protocol import GenerateRequest, SamplingParams
from chatwright.engine.runner import ModelRunner
from chatwright.engine.scheduler import Chunk
from chatwright.engine.sequence import Group, Sequence
from chatwright.errors import InvalidModelError
from chatwright.model.load import load_model
from chatwright.model.lora import LoraConfig, add_lora, merge_lora, save_adapter
from tests.model.tiny_models import CASES, factors, randomise, reference

N_TOKENS = 300


def kernels() -> Kernels:
    loaded = load_kernels()
    assert isinstance(loaded, Kernels), loaded
    return loaded


def save(folder: Path, case: str, seed: int = 0) -> None:
    model = reference(case)
    randomise(model, seed)
    model.save_pretrained(folder)


def runner_of(path: Path, quantization: str = "fp32", *, n_threads: int = 2, store: Path | None = None) -> KernelRunner:
    runner = KernelRunner.load(
        kernels(),
        path,
        quantization,
        max_step_tokens=512,
        n_threads=n_threads,
        store=store,  # type: ignore[arg-type]
    )
    runner.allocate(64)
    return runner


def sequence_of(ids: list[int], first_block: int = 0, *, scored: bool = True, adapter: str | None = None) -> Sequence:
    request = GenerateRequest("x", ids, SamplingParams(), 1, 0 if scored else None, adapter=adapter)
    [sequence] = Group(request).sequences
    sequence.blocks = list(range(first_block, first_block + blocks_for(len(ids) + 64)))
    return sequence


def ids_for(n: int, vocabulary: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocabulary, n).tolist()


@pytest.mark.parametrize("case", list(CASES))
def test_every_family_equals_pytorch(case: str, tmp_path: Path) -> None:
    save(tmp_path, case)
    model = load_model(tmp_path)
    n = min(N_TOKENS, model.config.context_length)
    ids = ids_for(n, model.config.vocab_size)
    with torch.inference_mode():
        expected = model(torch.tensor([ids]))[0].numpy()
    [logits] = runner_of(tmp_path).step([Chunk(sequence_of(ids), 0, n)])
    assert np.abs(logits - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())
    # bfloat16 weights, and a cache of float16
    [halved] = runner_of(tmp_path, "bf16").step([Chunk(sequence_of(ids), 0, n)])
    assert np.corrcoef(halved.ravel(), expected.ravel())[0, 1] > 0.9995
    [rounded] = runner_of(tmp_path, "int8").step([Chunk(sequence_of(ids), 0, n)])
    assert np.corrcoef(rounded.ravel(), expected.ravel())[0, 1] > 0.99


def test_logits_do_not_depend_on_chunks_neighbours_or_threads(tmp_path: Path) -> None:
    save(tmp_path, "qwen3")
    ids = ids_for(90, 96)
    for quantization in ("fp32", "int8", "int4"):
        alone = runner_of(tmp_path, quantization, n_threads=1)
        [expected] = alone.step([Chunk(sequence_of(ids), 0, 90)])
        busy = runner_of(tmp_path, quantization, n_threads=3)
        ours, rows = sequence_of(ids), []
        others = [sequence_of(ids_for(40, 96, seed=i), 10 + 8 * i, scored=False) for i in range(1, 5)]
        for start, end in [(0, 7), (7, 50), (50, 51), (51, 52), (52, 90)]:
            chunks = [Chunk(other, 0, 40) for other in others[: end % 5]]
            rows.append(busy.step([*chunks[:2], Chunk(ours, start, end), *chunks[2:]])[len(chunks[:2])].copy())
        assert np.array_equal(np.concatenate(rows), expected), quantization


def test_packed_weights_are_kept_and_made_anew_when_the_model_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, store = tmp_path / "model", tmp_path / "store"
    save(model, "qwen3")
    ids = ids_for(20, 96)

    def logits() -> np.ndarray:
        [rows] = runner_of(model, "int8", store=store).step([Chunk(sequence_of(ids), 0, 20)])
        return rows

    first = logits()
    [file] = store.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(packed_weights, "pack", None)  # would be called if the file did not serve
        assert np.array_equal(logits(), first)
    # half a file is no file
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert np.array_equal(logits(), first)
    assert file.read_bytes() == whole
    # another model in the same place
    save(model, "qwen3", seed=5)
    assert not np.array_equal(logits(), first)
    assert len(list(store.iterdir())) == 1
    # and a model that is gone
    model.rename(tmp_path / "moved")
    save(model, "qwen3", seed=6)
    sweep(store)
    assert len(list(store.iterdir())) == 1  # there is one at its place, whose own weights are written over these
    shutil.rmtree(model)
    sweep(store)
    assert list(store.iterdir()) == []
    (tmp_path / "moved").rename(model)
    logits()
    # a full disk: a warning, and the model works
    for file in store.iterdir():
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", _no_space)
        logits()
    assert "could not be kept" in caplog.text
    assert list(store.iterdir()) == []
    caplog.clear()
    # The same in the middle of writing, by a limit of the system's own: a write of this process fails where the disk would.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, limits[1]))
    try:
        fourth = logits()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be kept" in caplog.text
    assert list(store.iterdir()) == []
    assert np.array_equal(logits(), fourth)
    assert len(list(store.iterdir())) == 1
    # a folder that cannot be one
    caplog.clear()
    store = tmp_path / "model" / "config.json" / "store"
    assert np.array_equal(logits(), fourth)
    assert "could not be kept" in caplog.text


def _no_space(*_: object) -> None:
    raise OSError(28, os.strerror(28))


def test_the_default_model_keeps_its_blocks(default_model: Path) -> None:
    runner = runner_of(default_model, "auto")
    formats = runner.weights.formats()
    assert set(formats) == {"I4M", "I8"}
    model = load_model(default_model)
    for name, parameter in [("layers.7.down", "layers.7.feed_forward.down.weight"), ("embed", "embed.weight")]:
        exact = packed_weights.unpack(runner.kernels, runner.weights, name)
        assert np.array_equal(exact, model.get_parameter(parameter).detach().numpy())
    qkv = packed_weights.unpack(runner.kernels, runner.weights, "layers.3.qkv")
    rows = [model.get_parameter(f"layers.3.attention.{name}.weight").detach().numpy() for name in "qkv"]
    assert np.array_equal(qkv, np.concatenate(rows))


def test_embedding_is_the_mean_of_the_hidden_states(tmp_path: Path) -> None:
    save(tmp_path, "qwen3")
    ids = ids_for(100, 96)
    with torch.inference_mode():
        expected = load_model(tmp_path).hidden(torch.tensor([ids]))[0].mean(0).numpy()
    assert np.allclose(runner_of(tmp_path).embed(ids), expected, rtol=1e-2, atol=2e-3)


def an_adapter(folder: Path, case: str, seed: int) -> tuple[Path, torch.nn.Module]:
    """An adapter on every linear layer in PEFT's layout, and the model with it merged in."""
    save(folder / "base", case)
    model = load_model(folder / "base")
    config = LoraConfig(r=4)
    add_lora(model, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in factors(model):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_adapter(model, config, folder / f"adapter-{seed}", "base")
    merge_lora(model)
    return folder / f"adapter-{seed}", model


@pytest.mark.parametrize("make", ["kernels", "torch"])
@pytest.mark.parametrize("case", ["gpt2", "qwen3", "gemma3", "llama, one key head, biases"])
def test_adapters_are_mixed_within_one_step(case: str, make: str, tmp_path: Path) -> None:
    (first, merged_first), (second, merged_second) = (an_adapter(tmp_path, case, seed) for seed in (1, 2))
    base = load_model(tmp_path / "base")
    runner: KernelRunner | ModelRunner
    if make == "kernels":
        runner = KernelRunner.load(kernels(), tmp_path / "base", "fp32", max_step_tokens=512, n_threads=2, store=None)
    else:
        runner = ModelRunner(base)
    runner.allocate(64)
    for name, path in (("one", first), ("two", second)):
        runner.add_adapter(name, runner.read_adapter(path))
    ids = ids_for(40, 96)
    with torch.inference_mode():
        plain = load_model(tmp_path / "base")
        expected = [model(torch.tensor([ids]))[0].numpy() for model in (plain, merged_first, merged_second)]
    sequences = [sequence_of(ids, 12 * i, adapter=name) for i, name in enumerate([None, "one", "two"])]
    for logits, wanted in zip(runner.step([Chunk(s, 0, 40) for s in sequences]), expected, strict=True):
        assert np.abs(logits - wanted).max() < 2e-4 * np.abs(wanted).max()
    assert np.abs(expected[1] - expected[2]).max() > 1e-2 * np.abs(expected[1]).max()
    runner.remove_adapter("one")
    runner.add_adapter("three", runner.read_adapter(second))
    [again] = runner.step([Chunk(sequence_of(ids, 36, adapter="three"), 0, 40)])
    assert np.abs(again - expected[2]).max() < 2e-4 * np.abs(expected[2]).max()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("quantization", ["auto", "int4", "bf16", "fp32"])
@pytest.mark.parametrize("parameter", ["layers.1.mlp.down_proj.weight", "norm.weight"])
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, parameter: str, quantization: str, value: float
) -> None:
    """Rounded to 8 bits a model of NaN went on, with figures that looked like a model's."""
    save(tmp_path / "model", "qwen3")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors[f"model.{parameter}"].view(-1)[-1] = value
    save_file(tensors, file, {"format": "pt"})
    ours = {"norm.weight": "norm.weight", "layers.1.mlp.down_proj.weight": "layers.1.feed_forward.down.weight"}[
        parameter
    ]
    with pytest.raises(InvalidModelError, match=f"the parameter {ours} holds numbers that are not finite"):
        runner_of(tmp_path / "model", quantization, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q4_K])
@pytest.mark.parametrize("word", [0x7C00, 0xFC00, 0x7E00])
def test_a_block_is_refused_where_its_values_are_no_numbers(kind: Type, word: int) -> None:
    _, n_bytes = GGML_QUANT_SIZES[kind]
    for place in range(n_bytes // 2):
        block = np.zeros((3, n_bytes), np.uint8)
        block.view(np.uint16)[1, place] = word
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(dequantize(block, kind)).all()
        with nullcontext() if finite else pytest.raises(InvalidModelError, match="not finite"):
            check_finite(block, Source[kind.name], Path("m.gguf"), "head.weight")


def test_an_adapter_of_another_shape_or_with_nan_is_refused(tmp_path: Path) -> None:
    adapter, _ = an_adapter(tmp_path, "qwen3", 1)
    save(tmp_path / "other", "llama, one key head, biases")
    with pytest.raises(InvalidModelError, match="made for"):
        runner_of(tmp_path / "other").read_adapter(adapter)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "down_proj" in name)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(InvalidModelError, match="down_proj that is not a number"):
        runner_of(tmp_path / "base").read_adapter(adapter)
