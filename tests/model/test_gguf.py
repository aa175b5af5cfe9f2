"""GGUF files say the same as the models they were made from, and broken or lying ones are refused in a sentence."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatwright.errors import InvalidModelError, ModelNotFoundError
from chatwright.model.checkpoint import open_checkpoint
from chatwright.model.describe import describe_model
from chatwright.model.gguf import GGUFFile
from chatwright.model.load import load_model
from tests.model.tiny_models import random_ids, reference, write_gguf

FAMILIES = [
    "gpt2",
    "llama, every head its own keys",
    "llama, tied",
    "llama, one key head, biases",
    "llama, wide heads",
    "llama, linear rope",
    "llama, llama3 rope",
    "mistral, no window",
    "qwen3",
    "qwen3, tied, biases",
    "qwen2",
    "gemma3",
    "gemma3, untied, no window",
]
DECODED = [kind for kind in Type if kind.name not in {"F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K", "Q1_0"}]


def _same_logits(path: Path, theirs: Any) -> None:
    ids = random_ids(2, 100)
    with torch.no_grad():
        torch.testing.assert_close(load_model(path)(ids), theirs(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", FAMILIES)
def test_a_gguf_gives_the_logits_of_the_model_it_was_made_from(case: str, tmp_path: Path) -> None:
    theirs = reference(case)
    if case == "mistral, no window":
        theirs.config.hidden_act = "silu"
        for layer in theirs.model.layers:
            layer.mlp.act_fn = torch.nn.SiLU()
    write_gguf(theirs, tmp_path / "model.gguf")
    _same_logits(tmp_path / "model.gguf", theirs)


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1])
@pytest.mark.parametrize("case", ["gpt2", "llama, tied", "qwen3", "gemma3"])
def test_quantised_weights_are_read_as_they_were_written(case: str, kind: Type, tmp_path: Path) -> None:
    theirs = reference(case)
    write_gguf(theirs, tmp_path / "model.gguf", kind)
    _same_logits(tmp_path, theirs)  # the folder with the one file
    assert describe_model(tmp_path).quantization == kind.name


def test_a_window_in_the_file_is_kept(tmp_path: Path) -> None:
    theirs = reference("llama, tied")
    write_gguf(theirs, tmp_path / "model.gguf", extra={"attention.sliding_window": 11})
    assert open_checkpoint(tmp_path).config.windows == (11, 11, 11)


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_every_quantisation_decodes_as_the_gguf_package_does(kind: Type, tmp_path: Path) -> None:
    try:
        dequantize(np.zeros(GGML_QUANT_SIZES[kind][1], np.uint8), kind)
    except NotImplementedError:
        pytest.fail(f"{kind.name} is listed as decodable")
    raw = np.random.default_rng(0).integers(0, 256, (5, 3 * GGML_QUANT_SIZES[kind][1]), np.uint8)
    if kind in (Type.F32, Type.F16):
        raw = raw.view(np.float32 if kind is Type.F32 else np.float16)
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("before", np.arange(3, dtype=np.float32))
    writer.add_tensor("weight", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile.open(tmp_path / "one.gguf")
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(file.read("weight"), dequantize(raw, kind))
    assert file.tensors["weight"].shape == (5, 3 * GGML_QUANT_SIZES[kind][0])
    assert file.read("before").tolist() == [0, 1, 2]


def test_metadata_are_plain_values(tmp_path: Path) -> None:
    write_gguf(reference("gpt2"), tmp_path / "model.gguf")
    metadata = GGUFFile.open(tmp_path / "model.gguf").metadata
    assert metadata["tokenizer.ggml.tokens"] == ["<a>", "b", "中"]
    assert metadata["gpt2.context_length"] == 512
    assert type(metadata["gpt2.attention.layer_norm_epsilon"]) is float


# What a broken or lying file may say. A file is built by hand: version, tensors, metadata, data.


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _key(key: bytes, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _tensor(name: bytes, dims: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return _text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def _file(
    *,
    tensors: list[bytes] | None = None,
    keys: list[bytes] | None = None,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    version: int = 3,
    data: int = 256,
) -> bytes:
    tensors, keys = tensors or [], keys or []
    counts = struct.pack(
        "<IQQ", version, len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys
    )
    header = b"GGUF" + counts + b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + bytes(data)


U32, STRING, ARRAY, BOOL = 4, 8, 9, 7
HUGE = 2**64 - 1

LIES = {
    "empty": (b"", "does not begin with the letters GGUF"),
    "not a GGUF": (b"PK\3\4" + bytes(100), "does not begin with the letters GGUF"),
    "version 1": (_file(version=1), "version 1"),
    "big-endian": (_file(version=3 << 24), "little-endian"),
    "more tensors than bytes": (_file(n_tensors=HUGE), f"claims {HUGE} tensors"),
    "more keys than bytes": (_file(n_keys=2**40), "metadata keys"),
    "a key longer than the file": (_file(keys=[struct.pack("<Q", 1000)]), "beyond the end"),
    "a key of a megabyte": (_file(keys=[_key(b"k" * 2**20, U32, bytes(4))]), "longer than 1024 bytes"),
    "a text longer than the file": (_file(keys=[_key(b"k", STRING, struct.pack("<Q", HUGE))]), "beyond the end"),
    "an array longer than the file": (
        _file(keys=[_key(b"k", ARRAY, struct.pack("<IQ", U32, 2**62))]),
        "array items",
    ),
    "an array of texts longer than the file": (
        _file(keys=[_key(b"k", ARRAY, struct.pack("<IQ", STRING, 2**30))]),
        "array items",
    ),
    "texts in an array that leave the file": (
        _file(keys=[_key(b"k", ARRAY, struct.pack("<IQ", STRING, 2) + struct.pack("<Q", HUGE // 2))]),
        "beyond the end",
    ),
    "an array of arrays": (_file(keys=[_key(b"k", ARRAY, struct.pack("<IQ", ARRAY, 1))]), "array of arrays"),
    "a value of unknown type": (_file(keys=[_key(b"k", 99, bytes(8))]), "unknown type 99"),
    "a truth value of 2": (_file(keys=[_key(b"k", BOOL, b"\2")]), "neither 0 nor 1"),
    "bad UTF-8": (_file(keys=[_key(b"\xff", U32, bytes(4))]), "not UTF-8"),
    "a key twice": (_file(keys=[_key(b"k", U32, bytes(4))] * 2), "twice"),
    "alignment 0": (_file(keys=[_key(b"general.alignment", U32, bytes(4))]), "alignment is 0"),
    "alignment 3": (_file(keys=[_key(b"general.alignment", U32, struct.pack("<I", 3))]), "alignment is 3"),
    "alignment of 2 GB": (_file(keys=[_key(b"general.alignment", U32, struct.pack("<I", 2**31))]), "alignment is"),
    "alignment in words": (_file(keys=[_key(b"general.alignment", STRING, _text(b"32"))]), "alignment is '32'"),
    "no dimensions": (_file(tensors=[_tensor(b"t", [])]), "0 dimensions"),
    "five dimensions": (_file(tensors=[_tensor(b"t", [1] * 5)]), "5 dimensions"),
    "a dimension of 0": (_file(tensors=[_tensor(b"t", [4, 0])]), "shape"),
    "a product beyond 64 bits": (_file(tensors=[_tensor(b"t", [2**32, 2**32])]), "beyond the end"),
    "an unknown tensor type": (_file(tensors=[_tensor(b"t", [4], 4)]), "unknown type 4"),
    "half a block": (_file(tensors=[_tensor(b"t", [33], Type.Q8_0)]), "Q8_0 has the shape"),
    "a tensor beyond the file": (_file(tensors=[_tensor(b"t", [65])]), "'t' lies beyond the end"),
    "an offset beyond the file": (_file(tensors=[_tensor(b"t", [4], 0, 2**63)]), "beyond the end"),
    "an offset that is not aligned": (_file(tensors=[_tensor(b"t", [4], 0, 4)]), "not aligned"),
    "tensors that share bytes": (_file(tensors=[_tensor(b"t", [9]), _tensor(b"u", [9], 0, 32)]), "overlaps"),
    "a tensor twice": (_file(tensors=[_tensor(b"t", [4]), _tensor(b"t", [4], 0, 32)]), "same name"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_the_header_is_refused_with_its_reason(lie: str, tmp_path: Path) -> None:
    content, reason = LIES[lie]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidModelError) as caught:
            GGUFFile.open(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert reason in str(caught.value)
    assert "model.gguf" in str(caught.value)


def test_an_absent_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no file .*absent\.gguf"):
        GGUFFile.open(tmp_path / "absent.gguf")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(reference("llama, tied"), path, Type.Q4_1)
    return path.read_bytes()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_does_more_than_be_refused(data: st.DataObject, tiny: bytes, tmp_path: Path) -> None:
    """Bits flipped, bytes replaced by extremes, the end cut off: the model loads or is refused, nothing else."""
    content = bytearray(tiny)
    header = 4000  # of this file; damage to the weights themselves cannot be seen
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, header))
        match data.draw(st.sampled_from(["flip", "extreme", "cut"])):
            case "flip":
                content[place % len(content)] ^= 1 << data.draw(st.integers(0, 7))
            case "extreme":
                extreme = data.draw(
                    st.sampled_from([b"\xff" * 8, bytes(8), b"\0\0\0\0\0\0\0\x80", b"\xff\xff\xff\x7f"])
                )
                content[place : place + len(extreme)] = extreme
            case "cut":
                del content[data.draw(st.integers(0, len(content))) :]
        if not content:
            break
    path = tmp_path / "model.gguf"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        describe_model(path)
        load_model(path)
    except InvalidModelError as error:
        assert len(str(error)) < 1000  # noqa: PT017


REFUSED = {
    "experts": ({"expert_count": 8}, "llama.expert_count to 8"),
    "scaled embeddings": ({"embedding_scale": 12.0}, "llama.embedding_scale to 12.0"),
    "partial rotary": ({"rope.dimension_count": 8}, "llama.rope.dimension_count to 8"),
    "yarn": ({"rope.scaling.type": "yarn"}, "llama.rope.scaling.type to 'yarn'"),
    "absurd width": ({"vocab_size": 2**30}, "vocab_size is 1073741824"),
    "wrong vocabulary": ({"vocab_size": 95}, r"token_embd.weight has the shape [96, 64]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_decoder_does_not_do_is_refused(case: str, tmp_path: Path) -> None:
    extra, reason = REFUSED[case]
    write_gguf(reference("llama, tied"), tmp_path / "model.gguf", extra=extra)
    with pytest.raises(InvalidModelError) as caught:
        describe_model(tmp_path)
    assert reason in str(caught.value)


def test_an_unsupported_architecture_is_refused_by_name(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InvalidModelError, match="'mamba' is not supported"):
        describe_model(tmp_path / "model.gguf")


def test_a_format_that_cannot_be_decoded_is_refused_before_loading(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(reference("gpt2"), path)
    content = path.read_bytes()
    name = _text(b"blk.0.attn_norm.bias") + struct.pack("<IQ", 1, 64)
    place = content.index(name) + len(name)
    path.write_bytes(content[:place] + struct.pack("<I", Type.I32) + content[place + 4 :])
    with pytest.raises(InvalidModelError, match=r"blk\.0\.attn_norm\.bias in the format I32"):
        describe_model(path)
