"""Folders that cannot or must not be loaded are refused with the reason; what is written appears whole or not at all."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from chatwright.errors import InvalidModelError, ModelNotFoundError, StorageError, UsageError
from chatwright.model.describe import describe_model
from chatwright.model.hf import config_from_hf
from chatwright.model.load import load_model
from chatwright.model.save import save_model
from tests.model.tiny_models import random_ids, reference, write_gguf

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    reference("llama, tied").save_pretrained(root / "llama")
    reference("qwen3").save_pretrained(root / "qwen3")
    reference("gpt2").save_pretrained(root / "gpt2")
    reference("gemma3").save_pretrained(root / "gemma3")
    reference("llama, tied").save_pretrained(root / "sharded", max_shard_size="40KB")
    return root


@pytest.fixture
def model(folders: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A fresh copy of one of the folders."""
    return lambda name: Path(shutil.copytree(folders / name, tmp_path / name))


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in raw.items() if v is not ...}))

    return change


def config_text(text: str | bytes) -> Change:
    return lambda folder: (
        (folder / "config.json").write_bytes(text.encode() if isinstance(text, str) else text) and None
    )


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def index(weight_map: object) -> Change:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps(weight_map)) and None


def header(change: Callable[[bytes], bytes]) -> Change:
    def apply(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return apply


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without(*names: str) -> Change:
    def apply(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return apply


def without_first_shard(folder: Path) -> None:
    min(folder.glob("model-*.safetensors")).unlink()


NAN_CONFIG = '{"model_type": "llama", "rms_norm_eps": NaN}'
EMBED = "model.embed_tokens.weight"
REFUSALS: Mapping[str, tuple[str, Change, str]] = {
    "no config": ("llama", without("config.json"), "has no config.json"),
    "no weights": ("llama", without("model.safetensors"), "holds no weights"),
    "only pickles": ("llama", pickled, "only as pickles"),
    "an adapter's weights": (
        "llama",
        lambda folder: (folder / "model.safetensors").rename(folder / "adapter_model.safetensors") and None,
        "neither model.safetensors nor model.safetensors.index.json",
    ),
    "remote code": ("llama", config(auto_map={"AutoModel": "modeling.Evil"}), "auto_map"),
    "quantised": ("llama", config(quantization_config={"quant_method": "gptq"}), "quantization_config"),
    "another architecture": ("llama", config(model_type="mamba"), "'mamba' is not supported (supported: GPT-2"),
    "no architecture": ("llama", config(model_type=..., architectures=["XForCausalLM"]), "['XForCausalLM']"),
    "config is a list": ("llama", config_text("[1]"), "must hold a JSON object"),
    "config is not JSON": ("llama", config_text("{"), "not valid JSON"),
    "config is not UTF-8": ("llama", config_text(b'{"a": "\xff"}'), "not valid JSON"),
    "config holds NaN": ("llama", config_text(NAN_CONFIG), "NaN is not a number"),
    "config is deep": ("llama", config_text("[" * 200_000), "not valid JSON"),
    "config holds a number of 5,000 digits": ("llama", config_text('{"vocab_size": ' + "9" * 5000 + "}"), "not valid JSON"),
    "a missing size": ("llama", config(hidden_size=...), "lacks hidden_size"),
    "a size of words": ("llama", config(num_hidden_layers="many"), "n_layer is 'many'; it must be a whole number"),
    "a negative size": ("llama", config(vocab_size=-1), "vocab_size is -1"),
    "a true size": ("llama", config(intermediate_size=True), "d_ff is True"),
    "an absurd size": ("llama", config(intermediate_size=10**12), "d_ff is 1000000000000; it must be"),
    "a billion layers": ("llama", config(num_hidden_layers=10**9), "n_layer is 1000000000"),
    "an infinite epsilon": (
        "llama",
        lambda folder: config_text((folder / "config.json").read_text().replace("1e-05", "1e999"))(folder),
        "norm_eps is inf",
    ),
    "no heads": ("llama", config(num_attention_heads=0, head_dim=None), "cannot be divided among 0 heads"),
    "heads that do not divide": ("llama", config(num_attention_heads=5, head_dim=None), "64 cannot be divided among 5"),
    "groups that do not divide": ("llama", config(num_key_value_heads=3), "n_head (4) is not a multiple of n_kv_head (3)"),
    "an odd head": ("llama", config(head_dim=15), "head_dim (15) is odd"),
    "another activation": ("llama", config(hidden_act="relu6"), "hidden_act to 'relu6'"),
    "yarn": ("llama", config(rope_parameters={"rope_type": "yarn", "factor": 2.0}), "rope_type to 'yarn'"),
    "dynamic rope": ("llama", config(rope_scaling={"type": "dynamic"}, rope_parameters=...), "rope_type to 'dynamic'"),
    "linear rope of what": ("llama", config(rope_parameters={"rope_type": "linear"}), "lacks factor"),
    "rope by 0": ("llama", config(rope_parameters={"rope_type": "linear", "factor": 0}), "rope_scaling.factor is 0"),
    "rope in words": ("llama", config(rope_parameters="long"), "rope_parameters to 'long'"),
    "half rotated": ("llama", config(partial_rotary_factor=0.5), "partial_rotary_factor to 0.5"),
    "layer types of another family": ("qwen3", config(layer_types=["linear_attention"] * 3), "layer_types to"),
    "too few layer types": ("qwen3", config(layer_types=["full_attention"]), "windows has 1 entries where 3 are needed"),
    "a window of 0": (
        "qwen3",
        config(use_sliding_window=True, sliding_window=0, layer_types=["sliding_attention"] * 3),
        "window is 0",
    ),
    "a window of nothing": ("qwen3", config(layer_types=["sliding_attention"] * 3), "sliding_window to None"),
    "soft-capped scores": ("gemma3", config(attn_logit_softcapping=50.0), "attn_logit_softcapping to 50.0"),
    "soft-capped logits": ("gemma3", config(final_logit_softcapping=30.0), "final_logit_softcapping to 30.0"),
    "attention both ways": ("gemma3", config(use_bidirectional_attention=True), "use_bidirectional_attention to True"),
    "scores scaled by words": ("gemma3", config(query_pre_attn_scalar="256"), "query_pre_attn_scalar to '256'"),
    "a width without a root": ("gemma3", config(hidden_size=-640), "hidden_size to -640"),
    "stretched local rope": (
        "gemma3",
        config(rope_parameters={"sliding_attention": {"rope_type": "linear", "factor": 2.0}}),
        "rope_parameters to",
    ),
    "images without text": ("gemma3", config(model_type="gemma3"), "lacks text_config"),
    "flags in words": ("llama", config(tie_word_embeddings="yes"), "tie_word_embeddings to 'yes'"),
    "scores scaled by layer": (
        "gpt2",
        config(scale_attn_by_inverse_layer_idx=True),
        "scale_attn_by_inverse_layer_idx to True",
    ),
    "scores not scaled": ("gpt2", config(scale_attn_weights=False), "scale_attn_weights to False"),
    "cross-attention": ("gpt2", config(add_cross_attention=True), "add_cross_attention to True"),
    "a lying width": ("llama", config(hidden_size=128, head_dim=16), f"{EMBED} has the shape [96, 64], but the model's"),
    "a lying vocabulary": ("llama", config(vocab_size=97), f"{EMBED} has the shape [96, 64]"),
    "a layer too few in the file": ("llama", config(num_hidden_layers=4), "lacks the tensor model.layers.3"),
    "a layer too many in the file": ("llama", config(num_hidden_layers=2), "no place for"),
    "a missing tensor": ("llama", weights(lambda t: t.pop("model.norm.weight")), "lacks the tensor model.norm.weight"),
    "an extra tensor": ("llama", weights(lambda t: t.update(extra=torch.zeros(1))), "has the tensor 'extra'"),
    "a tensor of whole numbers": (
        "llama",
        weights(lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)})),
        "number format I8",
    ),
    "an untied head that is absent": ("llama", config(tie_word_embeddings=False), "lacks the tensor lm_head.weight"),
    "a tied head of another shape": (
        "llama",
        weights(lambda t: t.update({"lm_head.weight": torch.ones(3)})),
        "lm_head.weight has the shape [3]",
    ),
    "a truncated file": ("llama", header(lambda b: b[:-10]), "not a valid safetensors file"),
    "an empty file": ("llama", header(lambda b: b""), "not a valid safetensors file"),
    "a header longer than the file": (
        "llama",
        header(lambda b: struct.pack("<Q", 2**63) + b[8:]),
        "not a valid safetensors file",
    ),
    "a header that is not JSON": ("llama", header(lambda b: b[:8] + b"[" + b[9:]), "not a valid safetensors file"),
    "an index out of the folder": ("llama", index({"weight_map": {EMBED: "../other/model.safetensors"}}), "'../other"),
    "an index with an absolute path": ("llama", index({"weight_map": {EMBED: "/x/model.safetensors"}}), "'/x/model"),
    "an index to a pickle": ("llama", index({"weight_map": {EMBED: "pytorch_model.bin"}}), "pytorch_model.bin"),
    "an index of numbers": ("llama", index({"weight_map": {EMBED: 7}}), "names 7, which"),
    "an index without a map": ("llama", index({"weight_map": []}), "has no weight_map"),
    "a tensor in two shards": (
        "sharded",
        lambda folder: save_file({EMBED: torch.zeros(96, 64)}, max(folder.glob("model-*.safetensors"))),
        f"'{EMBED}' twice",
    ),
    "a missing shard": ("sharded", without_first_shard, "is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_with_the_reason(case: str, model: Callable[[str], Path]) -> None:
    name, change, reason = REFUSALS[case]
    folder = model(name)
    change(folder)
    with pytest.raises(InvalidModelError) as caught:
        describe_model(folder)
    assert reason in str(caught.value)
    with pytest.raises(InvalidModelError):
        load_model(folder)


def test_a_tied_head_that_differs_is_refused_and_one_that_does_not_is_read(model: Callable[[str], Path]) -> None:
    folder = model("llama")
    before = load_model(folder)(random_ids(1, 9))
    weights(lambda t: t.update({"lm_head.weight": t[EMBED].clone()}))(folder)
    assert torch.equal(load_model(folder)(random_ids(1, 9)), before)
    weights(lambda t: t.update({"lm_head.weight": t[EMBED] + 1}))(folder)
    with pytest.raises(InvalidModelError, match="holds a different one"):
        load_model(folder)


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no model at"):
        describe_model(tmp_path / "absent")
    with pytest.raises(InvalidModelError, match="holds no weights"):
        describe_model(tmp_path)


def test_which_of_two_ggufs_is_meant_is_asked(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        write_gguf(reference("gpt2"), tmp_path / name)
    with pytest.raises(InvalidModelError, match=r"several GGUF files \(a\.gguf, b\.gguf\)"):
        describe_model(tmp_path)
    assert describe_model(tmp_path / "b.gguf").config.family == "gpt2"


def test_a_pickle_named_directly_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(InvalidModelError, match="only as pickles"):
        describe_model(tmp_path / "model.pt")


def test_files_that_are_links_are_read(folders: Path, tmp_path: Path) -> None:
    """As in the cache of huggingface_hub."""
    for file in (folders / "llama").iterdir():
        (tmp_path / file.name).symlink_to(file)
    assert torch.equal(load_model(tmp_path)(random_ids(1, 4)), load_model(folders / "llama")(random_ids(1, 4)))


def test_a_loaded_model_outlives_its_files(model: Callable[[str], Path]) -> None:
    folder = model("llama")
    ours = load_model(folder)
    before = ours(random_ids(1, 9))
    (folder / "model.safetensors").write_bytes(b"")  # in place: a mapped weight would now crash the process
    assert torch.equal(ours(random_ids(1, 9)), before)


def test_a_deeply_nested_value_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InvalidModelError, match="hidden_act to a deeply nested value"):
        config_from_hf(reference_config("qwen3") | {"hidden_act": nested})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_value_in_a_config_does_more_than_be_refused(data: st.DataObject) -> None:
    raw = reference_config(
        data.draw(st.sampled_from(["llama, llama3 rope", "qwen3", "gpt2", "mistral, window of 20", "gemma3"]))
    )
    for key in data.draw(st.lists(st.sampled_from(sorted(raw)), max_size=3)):
        if isinstance(raw[key], dict) and raw[key] and data.draw(st.booleans()):
            raw[key] = raw[key] | {data.draw(st.sampled_from(sorted(raw[key]))): data.draw(json_values)}
        else:
            raw[key] = data.draw(json_values)
    try:
        config_from_hf(raw)
    except InvalidModelError as error:
        assert len(str(error)) < 1000  # noqa: PT017


def reference_config(case: str) -> dict[str, Any]:
    from tests.model.tiny_models import CASES

    raw: dict[str, Any] = CASES[case].to_dict()
    return raw


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_safetensors_file_does_more_than_be_refused(
    data: st.DataObject, folders: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir(exist_ok=True)
    shutil.copy(folders / "llama" / "config.json", folder)
    content = bytearray((folders / "llama" / "model.safetensors").read_bytes())
    size = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, size))
        match data.draw(st.sampled_from(["flip", "digit", "cut"])):
            case "flip":
                content[place % len(content)] ^= 1 << data.draw(st.integers(0, 7))
            case "digit":
                content[place : place + 1] = data.draw(st.sampled_from([b"9", b"0", b"-", b"]", b"\xff", b"e99"]))
            case "cut":
                del content[data.draw(st.integers(0, len(content))) :]
        if not content:
            break
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    try:
        describe_model(folder)
        load_model(folder)
    except InvalidModelError as error:
        assert len(str(error)) < 1000  # noqa: PT017


def test_a_model_is_described_from_its_card(model: Callable[[str], Path]) -> None:
    folder = model("qwen3")
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage:\n- zh\n- en\n---\n# A model\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    info = describe_model(folder)
    assert (info.format, info.quantization, info.license, info.languages) == ("safetensors", "F32", "mit", ("zh", "en"))
    assert info.has_chat_template
    assert info.context_length == 512
    assert info.n_parameters == sum(p.numel() for p in load_model(folder).parameters())
    assert info.size_bytes == (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("card", ["", "---\n", "---\n: [\n---\n", "---\n- a\n---\n", "\xff---"])
def test_a_broken_card_costs_only_what_it_would_have_told(card: str, model: Callable[[str], Path]) -> None:
    folder = model("gpt2")
    (folder / "README.md").write_bytes(card.encode("latin-1"))
    info = describe_model(folder)
    assert (info.license, info.languages, info.has_chat_template) == (None, (), False)


def test_a_gguf_is_described_from_its_metadata(tmp_path: Path) -> None:
    write_gguf(reference("qwen3"), tmp_path / "model.gguf")
    info = describe_model(tmp_path)
    assert (info.format, info.name, info.license, info.languages) == ("gguf", "Tiny", "apache-2.0", ("en", "zh"))
    assert not info.has_chat_template


def test_nothing_is_written_over(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        save_model(load_model(folders / "llama"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_write_leaves_nothing_behind(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = load_model(folders / "llama")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.serialize_file", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_model(ours, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_transformers_cannot_express_is_not_written(tmp_path: Path) -> None:
    write_gguf(reference("llama, tied"), tmp_path / "model.gguf", extra={"attention.sliding_window": 11})
    with pytest.raises(InvalidModelError, match="cannot be written in the layout of Transformers"):
        save_model(load_model(tmp_path), tmp_path / "out")


def test_describing_models_does_not_import_torch(folders: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import chatwright.model, chatwright.model.gguf;"
        "from chatwright.model.describe import describe_model; describe_model(Path(sys.argv[1]));"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, folders / "llama"], check=False).returncode == 0
