"""A GGUF written here is the model it was made from: to our own reader and to llama.cpp, in weights, tokens and template."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file

from chatwright.compression import export_gguf as export_module
from chatwright.compression.export_gguf import TYPES, export_gguf
from chatwright.compression.export_hf import export_hf
from chatwright.compression.source import Source
from chatwright.engine.tokenizers import load_text_side
from chatwright.errors import InvalidModelError, StorageError, UsageError
from chatwright.model.checkpoint import GGUFCheckpoint, open_checkpoint
from chatwright.model.gguf import GGUFFile
from chatwright.model.load import load_model
from chatwright.model.lora import LoraConfig, add_lora, lora_layers, save_adapter
from chatwright.model.rnn_config import RNN_MODEL_TYPE
from tests.compression.models import logits, make_folder, write_text_side
from tests.model.tiny_models import random_ids
from tests.server.tiny import TEXT
from tests.tokenizer.conftest import TEXTS

FAMILIES = [
    "gpt2",
    "gpt2, untied, narrow",
    "llama, tied",
    "llama, every head its own keys",
    "llama, one key head, biases",
    "llama, wide heads",
    "llama, linear rope",
    "llama, llama3 rope",
    "mistral, no window",
    "qwen2",
    "qwen3",
    "qwen3, tied, biases",
    "gemma3",
    "gemma3, untied, no window",
]
_CHANGES: dict[str, Any] = {
    "gpt2, untied, narrow": {"activation_function": "gelu_new"},
    "mistral, no window": {"hidden_act": "silu"},
}


def folder_of(case: str, path: Path, **changes: Any) -> Path:
    name = "gpt2, untied, narrow, exact gelu" if case == "gpt2, untied, narrow" else case
    return make_folder(path / "hf", name, **_CHANGES.get(case, {}), **changes)


@pytest.mark.parametrize("case", FAMILIES)
def test_every_family_reads_back_as_it_was(case: str, tmp_path: Path) -> None:
    folder = folder_of(case, tmp_path)
    export_gguf(Source.open(folder), tmp_path / "out.gguf", "F32")
    ids = random_ids(2, 90)
    torch.testing.assert_close(logits(tmp_path / "out.gguf", ids), logits(folder, ids), atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("case", ["gpt2", "llama, tied", "qwen3", "gemma3"])
def test_every_type_holds_what_its_blocks_can(case: str, kind: str, tmp_path: Path) -> None:
    folder = folder_of(case, tmp_path)
    exported = export_gguf(Source.open(folder), tmp_path / "out.gguf", kind)  # type: ignore[arg-type]
    assert exported.size_bytes == (tmp_path / "out.gguf").stat().st_size
    plain, coded = (open_checkpoint(path) for path in (folder, tmp_path / "out.gguf"))
    assert isinstance(coded, GGUFCheckpoint)
    tensor = next(t for t in coded.file.tensors.values() if t.type.name == kind and len(t.shape) == 2)
    export_gguf(Source.open(folder), tmp_path / "exact.gguf", "F32")
    exact = GGUFFile.open(tmp_path / "exact.gguf").read(tensor.name)
    np.testing.assert_array_equal(coded.file.read(tensor.name), dequantize(quantize(exact, tensor.type), tensor.type))
    assert plain.config.vocab_size == coded.config.vocab_size


@pytest.mark.parametrize("pattern", ["qwen2", "gpt2"])
def test_the_tokenizer_and_the_template_are_the_same(pattern: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hf")
    write_text_side(folder, pattern)
    export_gguf(Source.open(folder), tmp_path / "out.gguf")
    (ours, template), (theirs, written) = load_text_side(folder), load_text_side(tmp_path / "out.gguf")
    for text in (*TEXTS, *TEXT, "a<|im_end|>b"):
        assert theirs.encode(text) == ours.encode(text), text
    assert theirs.special_ids == ours.special_ids
    assert (theirs.eos_ids, theirs.bos_id, theirs.hidden_ids) == (ours.eos_ids, ours.bos_id, ours.hidden_ids)
    assert template is not None
    assert written is not None
    assert written.source == template.source
    assert written.special_texts == template.special_texts


def test_blocks_of_a_gguf_are_kept_and_not_quantised_again(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hf")
    export_gguf(Source.open(folder), tmp_path / "first.gguf", "Q4_1")
    again = export_gguf(Source.open(tmp_path / "first.gguf"), tmp_path / "again.gguf", "Q4_1")
    assert again.n_kept == sum(n for kind, n in again.types.items() if kind != "F32")
    first, second = (GGUFFile.open(tmp_path / f"{name}.gguf") for name in ("first", "again"))
    assert all(np.array_equal(first.raw(name), second.raw(name)) for name in first.tensors)
    assert {k: v for k, v in first.metadata.items() if k.startswith("tokenizer.")} == {
        k: v for k, v in second.metadata.items() if k.startswith("tokenizer.")
    }
    export_gguf(Source.open(tmp_path / "first.gguf"), tmp_path / "plain.gguf", "F32")
    ids = random_ids(1, 50)
    assert torch.equal(logits(tmp_path / "plain.gguf", ids), logits(tmp_path / "first.gguf", ids))


def test_rows_that_do_not_divide_into_blocks_stay_in_half_precision(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hf", "llama, tied", intermediate_size=90)
    exported = export_gguf(Source.open(folder), tmp_path / "out.gguf", "Q4_0")
    assert exported.in_f16 == tuple(f"blk.{i}.ffn_down.weight" for i in range(3))
    tensors = GGUFFile.open(tmp_path / "out.gguf").tensors
    assert tensors["blk.0.ffn_down.weight"].type is Type.F16
    assert tensors["blk.0.ffn_up.weight"].type is Type.Q4_0
    assert tensors["token_embd.weight"].type is Type.Q8_0  # it is the head too


def test_what_gguf_cannot_say_is_refused(tmp_path: Path) -> None:
    exact = make_folder(tmp_path / "exact", "gpt2, untied, narrow, exact gelu")
    with pytest.raises(InvalidModelError, match="cannot be written as GGUF"):
        export_gguf(Source.open(exact), tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(("write", "kind"), [(export_gguf, "Q8_0"), (export_hf, "F16")])
def test_weights_that_are_no_numbers_are_refused(write: Callable[..., Any], kind: str, tmp_path: Path) -> None:
    broken = make_folder(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "to").mkdir()
    with pytest.raises(InvalidModelError, match=r"broken: the parameter layers\.1\.feed_forward\.up.* not finite"):
        write(Source.open(broken), tmp_path / "to" / "out", kind)
    assert list((tmp_path / "to").iterdir()) == []


def test_a_broken_scale_of_a_block_that_would_be_kept_is_refused(tmp_path: Path) -> None:
    folder, source = make_folder(tmp_path / "hf"), tmp_path / "first.gguf"
    export_gguf(Source.open(folder), source, "Q8_0")
    file = GGUFFile.open(source)
    block = bytes(file.raw("blk.1.ffn_up.weight")[:34])
    del file
    data = source.read_bytes()
    assert data.count(block) == 1
    source.write_bytes(data.replace(block, np.float16(np.inf).tobytes() + block[2:]))
    with pytest.raises(InvalidModelError, match=r"layers\.1\.feed_forward\.up.* not finite"):
        export_gguf(Source.open(source), tmp_path / "out.gguf", "Q8_0")


def test_an_adapter_that_is_broken_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hf", "llama, tied")
    adapted = load_model(folder)
    config = LoraConfig(r=4, targets=("q", "down"))
    add_lora(adapted, config, seed=0)
    with torch.no_grad():
        next(iter(lora_layers(adapted).values())).lora_b.fill_(torch.nan)
    save_adapter(adapted, config, tmp_path / "adapter", str(folder))
    for form, write in (("gguf", export_gguf), ("hf", export_hf)):
        with pytest.raises(InvalidModelError, match=r"adapter: the parameter layers\.0\..* not finite"):
            write(Source.open(folder, tmp_path / "adapter"), tmp_path / f"out-{form}")


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hf")
    text = (folder / "tokenizer.json").read_text().replace(r"\\p{N}|", r"\\p{N}{1,2}|")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(InvalidModelError, match="no name for the way"):
        export_gguf(Source.open(folder), tmp_path / "out.gguf")


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hf")
    (tmp_path / "out.gguf").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        export_gguf(Source.open(folder), tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_text() == "mine"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "hf")
    (tmp_path / "to").mkdir()

    def full(values: Any, kind: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_module, "_encoded", full)
    with pytest.raises(StorageError, match="No space left"):
        export_gguf(Source.open(folder), tmp_path / "to" / "out.gguf")
    assert list((tmp_path / "to").iterdir()) == []


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "hf")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(export_module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"only 1.0 kB are free"):
        export_gguf(Source.open(folder), tmp_path / "out.gguf")


@pytest.mark.parametrize("form", ["gguf", "hf"])
def test_an_adapter_is_merged(form: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hf", "llama, tied")
    adapted = load_model(folder)
    config = LoraConfig(r=4, targets=("q", "down"))
    add_lora(adapted, config, seed=0)
    with torch.no_grad():
        for layer in lora_layers(adapted).values():
            layer.lora_b.normal_(std=0.05)
    save_adapter(adapted, config, tmp_path / "adapter", str(folder))
    source = Source.open(folder, tmp_path / "adapter")
    if form == "gguf":
        export_gguf(source, tmp_path / "out.gguf", "F32")
    else:
        export_hf(source, tmp_path / "out")
    ids = random_ids(1, 40)
    with torch.no_grad():
        expected = adapted(ids)
    found = logits(tmp_path / ("out.gguf" if form == "gguf" else "out"), ids)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)  # merged, the sums have another order
    assert (found - logits(folder, ids)).abs().max() > 0.01


def test_encoders_and_recurrent_models_are_refused(tmp_path: Path) -> None:
    for kind, sentence in (("bert", "is an encoder"), ("chatwright_rnn", "cannot be tuned, exported")):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"")
        (folder / "config.json").write_text(json.dumps({"model_type": RNN_MODEL_TYPE if kind != "bert" else kind}))
        with pytest.raises(InvalidModelError, match=sentence):
            Source.open(folder)
