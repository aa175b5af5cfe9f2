"""`export` and `verify` on the command line: what they write, say, refuse, and their exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.compression.models import make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("export") / "model", "qwen3, tied, biases", num_hidden_layers=2)


def test_gguf_and_back_is_the_same_model(folder: Path, command: Run) -> None:
    written = command("export", str(folder), "--to", "gguf", "--type", "F32", "--out", "model.gguf", "--json")
    assert written.code == 0
    assert list(json.loads(written.out)["types"]) == ["F32"]
    back = command("export", "model.gguf", "--to", "hf", "--out", "back")
    assert back.code == 0
    assert {path.name for path in Path("back").iterdir()} >= {
        "config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json", "README.md",
    }  # fmt: skip
    same = command("verify", str(folder), "back", "--tokens", "4")
    assert same.code == 0
    assert "THE SAME" in same.out
    assert "KL 0 " in same.out
    assert "To prove that it is the same model: chatwright verify model.gguf hf:back" in back.err, (
        "to be copied as it is"
    )
    theirs = command("verify", str(folder), "hf:back", "--tokens", "4", "--json")
    assert theirs.code == 0
    report = json.loads(theirs.out)
    assert not report["differs"]
    [control] = [found for found in report["findings"] if found["kind"] == "control"]
    assert "the programs differ here" in control["sentence"], "an export that is perfect gives no alarm"
    assert "hf:back takes it for the token itself" in control["sentence"]
    assert report["figures"]["max_abs"] < 1e-3


def test_export_and_quantize_say_what_llama_cpp_does_not_load(folder: Path, command: Run) -> None:
    reason = "llama.cpp does not: its qwen3 models have no biases, this one has."
    exported = command("export", str(folder), "--to", "gguf", "--out", "model.gguf")
    assert exported.code == 0
    assert f"Chatwright loads the file, {reason}" in exported.err
    assert "llama:" not in exported.err, "no proof is offered that must fail"
    quantized = command("quantize", str(folder), "--to", "int8", "--out", "small")
    assert quantized.code == 0
    assert f"Chatwright loads the folder, {reason}" in quantized.out + quantized.err


def test_what_is_quantised_stays_so_unless_asked(folder: Path, command: Run) -> None:
    assert command("quantize", str(folder), "--to", "int8", "--out", "small").code == 0
    written = json.loads(command("export", "small", "--to", "gguf", "--out", "small.gguf", "--json").out)
    assert written["types"]["Q8_0"] == written["kept"]
    assert "F16" not in written["types"]
    written = json.loads(
        command("export", "small", "--to", "gguf", "--type", "F16", "--out", "half.gguf", "--json").out
    )
    assert "Q8_0" not in written["types"]
    written = json.loads(command("export", str(folder), "--to", "gguf", "--out", "plain.gguf", "--json").out)
    assert set(written["types"]) == {"F16", "F32"}


def test_a_real_difference_is_exit_status_1(folder: Path, command: Run) -> None:
    assert command("export", str(folder), "--to", "hf", "--out", "other").code == 0
    config = json.loads(Path("other/config.json").read_text())
    Path("other/config.json").write_text(json.dumps(config | {"rope_theta": 300.0}))
    found = command("verify", str(folder), "other", "--tokens", "4")
    assert found.code == 1
    assert "✗ rope: Positions are told apart differently" in found.out
    assert "DIFFERENT" in found.out


@pytest.mark.parametrize("form", ["gguf", "hf"])
def test_a_path_that_is_there_is_refused(form: str, folder: Path, command: Run) -> None:
    Path("taken").write_text("mine")
    result = command("export", str(folder), "--to", form, "--out", "taken")
    assert result.code == 2
    assert "there already" in result.err
    assert "Writing" not in result.err
    assert Path("taken").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["export", "nobody", "--to", "gguf", "--out", "x"], "No model is called nobody"),
        (["verify", "nobody", "nobody"], "No model is called nobody"),
        (["export", "tiny", "--to", "onnx", "--out", "x"], "--to is one of gguf, hf"),
        (["export", "tiny", "--to", "gguf", "--type", "Q2_K", "--out", "x"], "--type is one of F32"),
        (["export", "tiny", "--to", "hf", "--type", "Q8_0", "--out", "x"], "--type is one of F32, F16, BF16"),
        (["export", "tiny", "--to", "gguf", "--out", "x", "--adapter", "nowhere"], "There is no adapter at nowhere"),
    ],
)
def test_bad_input_is_a_sentence(arguments: list[str], sentence: str, tiny: str, command: Run) -> None:
    assert tiny == "tiny"
    result = command(*arguments)
    assert result.code in (1, 2)
    assert sentence in " ".join(result.err.split())
    assert not Path("x").exists()


def test_half_precision_of_an_hf_folder(folder: Path, command: Run) -> None:
    written = command("export", str(folder), "--to", "hf", "--type", "BF16", "--out", "half", "--json")
    assert json.loads(written.out)["type"] == "BF16"
    report = json.loads(command("verify", str(folder), "half", "--tokens", "2", "--json").out)
    assert {"rounding"} <= {found["kind"] for found in report["findings"]}
