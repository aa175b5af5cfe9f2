"""Quantising: the blocks that are chosen are the blocks that are loaded, calibration is worth it, and bad input is a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

from chatwright.compression.blocks import pack_q4_1, round_to_blocks, values_of_blocks
from chatwright.compression.export_gguf import export_gguf
from chatwright.compression.gptq import gptq
from chatwright.compression.layerwise import second_moment, walk
from chatwright.compression.quantize import QuantizeOptions, quantize
from chatwright.compression.sensitivity import measure_sensitivity, most_sensitive
from chatwright.compression.source import Source
from chatwright.compression.texts import calibration_texts, held_out_texts
from chatwright.engine.kernels.library import Kernels, load_kernels
from chatwright.engine.kernels.rows import rows_of
from chatwright.engine.kernels.weights import pack, unpack
from chatwright.engine.tokenizers import load_text_side
from chatwright.errors import InvalidDatasetError, InvalidModelError, UsageError
from chatwright.model.checkpoint import GGUFCheckpoint, open_checkpoint
from chatwright.model.encoder import Encoder
from chatwright.model.encoder_config import EncoderConfig
from chatwright.model.load import load_model
from chatwright.text.dataset import write_dataset
from chatwright.training.base_model import BaseModel
from chatwright.training.progress import Silent
from tests.compression.models import VOCAB, make_folder, write_text_side
from tests.model.tiny_models import write_encoder
from tests.training.corpus import make_dataset

IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "text", 120, 8).path


def run(source: Path, out: Path, **options: Any) -> Any:
    return quantize(BaseModel.open(source, ""), QuantizeOptions(**options), out, n_threads=1)


def correlated(n: int, width: int) -> torch.Tensor:
    """Inputs as a network has them: few directions hold most of what there is."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(width, width, generator=generator) * torch.linspace(2, 0.05, width)
    return torch.randn(n, width, generator=generator) @ mix


def test_packed_blocks_are_ggmls() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randint(0, 16, (5, 64), generator=generator)
    d, m = torch.rand(2, 5, 2, generator=generator).half().double()
    expected = q * d.repeat_interleave(32, 1) + m.repeat_interleave(32, 1)
    assert np.abs(values_of_blocks(pack_q4_1(q, d, m), Type.Q4_1) - expected.numpy()).max() < 1e-6


def test_calibrated_outputs_are_nearer_than_rounded_ones() -> None:
    inputs = correlated(512, 96)
    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(1))
    rounded, chosen = (
        torch.from_numpy(values_of_blocks(blocks, Type.Q4_1))
        for blocks in (round_to_blocks(weight.numpy(), Type.Q4_1), gptq(weight, second_moment([inputs])))
    )
    error = [float(((inputs @ (each - weight).T) ** 2).mean()) for each in (rounded, chosen)]
    assert error[1] < 0.5 * error[0]


def test_improving_makes_no_row_worse_than_choosing_greedily() -> None:
    inputs = correlated(512, 64)
    hessian = second_moment([inputs])
    for size in (1e-5, 1.0, 1e4):
        weight = size * torch.randn(24, 64, generator=torch.Generator().manual_seed(1))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("chatwright.compression.gptq.TURNS", 0)
            greedy = torch.from_numpy(values_of_blocks(gptq(weight, hessian), Type.Q4_1))
        found = torch.from_numpy(values_of_blocks(gptq(weight, hessian), Type.Q4_1))
        damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(64)
        left, before = (((each - weight) @ damped * (each - weight)).sum(1) for each in (found, greedy))
        assert bool((left <= before * (1 + 1e-3)).all()), size


@pytest.mark.parametrize("options", [{"to": "int8"}, {"to": "int4", "method": "gptq"}])
def test_weights_too_large_for_blocks_are_refused(data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    large = make_folder(tmp_path / "large")
    weights = load_file(large / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] *= 1e8
    save_file(weights, large / "model.safetensors", metadata={"format": "pt"})
    if "method" in options:
        options = options | {"calibration": data}
    with pytest.raises(InvalidModelError, match=r"layers\.1\.feed_forward\.up.*holds none so large"):
        run(large, tmp_path / "out", measure=False, **options)
    assert not (tmp_path / "out").exists()


def test_why_llama_cpp_does_not_load_the_folder_is_said(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise InvalidModelError("There is no word for this shape.")

    monkeypatch.setattr("chatwright.compression.quantized_file.export_gguf", refuse)
    bill = run(source, tmp_path / "out", to="int8", measure=False)
    assert "Chatwright loads the folder, llama.cpp does not: There is no word for this shape." in bill.notes
    assert load_model(tmp_path / "out").config.n_layer == load_model(source).config.n_layer


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    inputs = correlated(256, 64)
    inputs[:, 7] = inputs[:, 40:] = 0
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    values = torch.from_numpy(values_of_blocks(gptq(weight, second_moment([inputs])), Type.Q4_1))
    assert float((values - weight).abs().max()) < 1.0


@pytest.mark.parametrize("case", ["qwen3, tied, biases", "gpt2", "gemma3", "llama, llama3 rope"])
def test_walking_layer_by_layer_is_the_models_own_forward_pass(case: str, tmp_path: Path) -> None:
    model = load_model(make_folder(tmp_path / "m", case))
    windows = IDS.repeat(5, 1)
    seen: dict[str, torch.Tensor] = {}
    walk(model, windows, lambda names, moment_II: seen.update(dict.fromkeys(names, moment_II)))
    found: dict[str, torch.Tensor] = {}
    for name in seen:
        hook = lambda _m, args, name=name: found.update({name: second_moment([args[0]])})  # noqa: E731
        model.get_submodule(name).register_forward_pre_hook(hook)
    with torch.no_grad():
        model(windows)
    assert len(found) == len(seen) > 0
    for name, found_II in seen.items():
        assert torch.allclose(found_II, found[name], rtol=1e-3, atol=1e-3), name


def test_what_rounding_hurts_most_is_found(source: Path) -> None:
    model = load_model(source)
    name = "layers.1.attention.v.weight"
    with torch.no_grad():
        parameter = model.get_parameter(name)
        parameter[:, 0] *= 60  # an outlier in each row: the others have no levels left
    windows = torch.randint(3, 300, (4, 32), generator=torch.Generator().manual_seed(0))
    found = measure_sensitivity(model, windows, Silent())
    assert max(found, key=lambda each: found[each] / model.get_parameter(each).numel()) == name
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    share = parameter.numel() / sum(model.get_parameter(each).numel() for each in found)
    assert most_sensitive(model, found, share) == {name}
    assert most_sensitive(model, found, 0.0) == set()


def test_what_gguf_holds_in_one_tensor_stays_of_one_type(tmp_path: Path) -> None:
    model = load_model(make_folder(tmp_path / "m", "gpt2"))
    names = [name for name, p in model.named_parameters() if name.startswith("layers.") and p.dim() == 2]
    loss = {name: 100.0 if name.endswith("v.weight") else 1.0 for name in names}
    for share in (0.1, 0.3, 0.6):
        chosen = most_sensitive(model, loss, share)
        for layer in range(model.config.n_layer):
            assert len({f"layers.{layer}.attention.{each}.weight" in chosen for each in "qkv"}) == 1
    assert chosen


def test_matrices_kept_in_eight_bits_stay_so_in_an_export_of_the_same_type(
    source: Path, data: Path, tmp_path: Path
) -> None:
    run(source, tmp_path / "out", to="int4", calibration=data, eight_bit_share=0.3, measure=False)
    export_gguf(Source.open(tmp_path / "out"), tmp_path / "again.gguf", "Q4_1")
    files = [open_checkpoint(each).file for each in (tmp_path / "out", tmp_path / "again.gguf")]  # type: ignore[union-attr]
    inner = {name: tensor.type for name, tensor in files[0].tensors.items() if name.startswith("blk")}
    assert {Type.Q8_0, Type.Q4_1} <= set(inner.values())
    assert all(np.array_equal(files[0].raw(name), files[1].raw(name)) for name in inner)
    export_gguf(Source.open(tmp_path / "out"), tmp_path / "other.gguf", "Q4_0")
    other = open_checkpoint(tmp_path / "other.gguf").file.tensors  # type: ignore[union-attr]
    assert {tensor.type for name, tensor in other.items() if name in inner and len(tensor.shape) == 2} == {Type.Q4_0}


@pytest.mark.parametrize(("to", "method"), [("int8", "round"), ("int4", "round"), ("int4", "gptq")])
def test_the_folder_loads_everywhere_as_what_was_measured(
    source: Path, data: Path, tmp_path: Path, to: str, method: str
) -> None:
    out = tmp_path / "out"
    bill = run(source, out, to=to, method=method, calibration=data)
    assert {file.name for file in out.iterdir()} >= {"model.gguf", "tokenizer.json", "README.md", "chat_template.jinja"}
    checkpoint = open_checkpoint(out)
    assert isinstance(checkpoint, GGUFCheckpoint)
    kinds = {tensor.type for tensor in checkpoint.file.tensors.values() if len(tensor.shape) == 2}
    assert kinds == ({Type.Q8_0} if to == "int8" else {Type.Q8_0, Type.Q4_1})
    tokenizer, template = load_text_side(out)
    assert tokenizer.encode("The cat") == load_text_side(source)[0].encode("The cat")
    assert template is not None
    with torch.no_grad():
        difference = (load_model(out)(IDS) - load_model(source)(IDS)).abs().max()
    assert 0 < float(difference) < (0.5 if to == "int8" else 5)
    assert bill.after.size_bytes < bill.before.size_bytes
    assert bill.n_documents == 8
    assert bill.perplexity_change.low <= bill.perplexity_change.estimate <= bill.perplexity_change.high
    assert bill.after.tokens_per_s > 0


def test_the_kernels_compute_with_exactly_these_weights(source: Path, data: Path, tmp_path: Path) -> None:
    kernels = load_kernels()
    if not isinstance(kernels, Kernels):
        pytest.skip("no compiled kernels here")
    run(source, tmp_path / "out", to="int4", calibration=data)
    checkpoint, model = open_checkpoint(tmp_path / "out"), load_model(tmp_path / "out")
    packed = pack(kernels, checkpoint.config, rows_of(checkpoint), "auto")
    for name in ("out", "down"):
        inner = {"out": "attention.out", "down": "feed_forward.down"}[name]
        expected = model.get_parameter(f"layers.0.{inner}.weight").detach().numpy()
        assert np.array_equal(unpack(kernels, packed, f"layers.0.{name}"), expected)


def test_a_model_of_these_blocks_comes_back_from_rounding_as_it_is(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "once", to="int4", measure=False)
    run(tmp_path / "once", tmp_path / "twice", to="int4", measure=False)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "once")(IDS), load_model(tmp_path / "twice")(IDS))


def test_a_text_file_calibrates_and_measures_on_parts_of_its_own(source: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"The cat sees the printer {n}.\n\n" for n in range(2000)), encoding="utf-8")
    bill = run(source, tmp_path / "out", to="int4", calibration=text)
    assert bill.n_documents > 2


@pytest.mark.parametrize(
    "text", ["The cat sees the printer.\n\n" * 160, "The cat sees it. " * 240, "猫看见了打印机。" * 300]
)
@pytest.mark.parametrize("to", ["int8", "int4"])
def test_of_a_short_text_too_the_last_fifth_is_measured_and_not_calibrated_on(
    source: Path, tmp_path: Path, to: str, text: str
) -> None:
    file = tmp_path / "book.txt"
    file.write_text(text, encoding="utf-8")
    bill = run(source, tmp_path / "out", to=to, calibration=file)
    n_bytes = int(bill.after.scores.n_bytes.sum())
    assert 0.18 < n_bytes / len(text.encode()) <= 0.2
    learned, measured = calibration_texts(file), held_out_texts(file, file)
    assert sorted("".join(learned) + "".join(measured)) == sorted(text)
    assert sum(len(piece.encode()) for piece in measured) == n_bytes


def test_a_text_that_nobody_measures_on_is_calibrated_on_whole(tmp_path: Path) -> None:
    book, other = tmp_path / "book.txt", tmp_path / "other.txt"
    for file in (book, other):
        file.write_text("The cat sees the printer.\n\n" * 20, encoding="utf-8")
    assert calibration_texts(book, other) == [book.read_text()]
    assert len(calibration_texts(book, book)[0]) < len(book.read_text())


def test_a_text_without_text_to_measure_on_is_refused_before_the_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatwright.compression.quantize.load_decoder", None)  # the work would begin with it
    empty, book = tmp_path / "empty.txt", tmp_path / "book.txt"
    empty.write_bytes(b"")
    book.write_text("The cat sees the printer.\n\n" * 160, encoding="utf-8")
    train = write_dataset(tmp_path / "train", {"documents": {"train": [{"text": "The cat sees the printer."}]}}).path
    for options, words in (
        ({"to": "int8", "text": empty}, r"empty\.txt has no text to measure on"),
        ({"to": "int8", "calibration": empty}, r"empty\.txt has no text to measure on"),
        ({"to": "int4", "calibration": book, "text": empty}, r"empty\.txt has no text to measure on"),
        ({"to": "int8", "text": train}, "train has no held-out text to measure on"),
    ):
        with pytest.raises(InvalidDatasetError, match=words):
            run(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_bad_input_is_a_sentence_and_writes_nothing(source: Path, data: Path, tmp_path: Path) -> None:
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text(" \n", encoding="utf-8")
    short.write_text("Too little.", encoding="utf-8")
    out = tmp_path / "out"
    for calibration, words in (
        (empty, "no text to calibrate on"),
        (short, "less than one window"),
        (tmp_path / "absent", "no dataset or text file"),
    ):
        with pytest.raises(InvalidDatasetError, match=words):
            run(source, out, to="int4", method="gptq", calibration=calibration)
    with pytest.raises(UsageError, match="share from 0 to below 1"):
        run(source, out, to="int4", calibration=short, eight_bit_share=float("nan"))
    with pytest.raises(UsageError, match="needs text to calibrate"):
        run(source, out, to="int4", method="gptq")
    broken = make_folder(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidModelError, match=r"layers\.1\.feed_forward\.up"):
        run(broken, out, to="int8")
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        run(source, out, to="int8")
    assert [file.name for file in out.iterdir()] == ["mine.txt"]
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_an_encoder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder, out = tmp_path / "bert", tmp_path / "out"
    config = EncoderConfig(
        vocab_size=VOCAB, context_length=32, d_model=32, n_layer=1, n_head=2, d_ff=64, norm_eps=1e-12, activation="gelu"
    )
    write_encoder(Encoder(config), folder)
    write_text_side(folder)
    with pytest.raises(InvalidModelError, match="is an encoder: `chatwright quantize` works on models that write text"):
        run(folder, out, to="int8")
    assert {entry.name for entry in tmp_path.iterdir()} == {"bert"}
