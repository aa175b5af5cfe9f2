"""pull, ls, show, rm, config and doctor, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from chatwright.engine.tokenizers import copy_tokenizer
from chatwright.hub import ModelsFolder
from chatwright.model.head_folder import save_head
from chatwright.model.heads import TextClassifier
from chatwright.model.load import load_model
from tests.cli.conftest import Run


def test_pull_writes_data_to_nowhere_and_messages_to_stderr(command: Run, tiny_folder: Path, home: Path) -> None:
    result = command("pull", str(tiny_folder), "--name", "mine:v1")
    assert (result.code, result.out) == (0, "")
    assert f"mine:v1 is ready in {home / 'models' / 'mine@v1'}." in result.err
    again = command("pull", str(tiny_folder), "--name", "mine:v1")
    assert "is already here" in again.err
    assert command("-q", "pull", str(tiny_folder), "--name", "mine:v1").err == ""


def test_pull_of_nonsense(command: Run) -> None:
    result = command("pull", "nonsense")
    assert result.code == 1
    assert "smollm2:135m" in result.err
    assert "hf:ORG/NAME" in result.err


def test_ls_of_nothing(command: Run) -> None:
    result = command("ls")
    assert (result.code, result.out) == (0, "")
    assert "chatwright pull smollm2:135m" in result.err
    assert json.loads(command("ls", "--json").out) == []


def test_ls(command: Run, tiny: str) -> None:
    (entry,) = json.loads(command("ls", "--json").out)
    assert entry["name"] == tiny
    assert entry["context_length"] == 512
    assert entry["parameters"] > 1000
    assert entry["error"] is None
    table = command("ls").out
    assert table.splitlines()[0].split()[:2] == ["NAME", "SIZE"]
    assert tiny in table


def test_an_encoder_is_pulled_listed_and_shown_as_what_it_is(command: Run, minilm: Path, home: Path) -> None:
    assert command("pull", str(minilm), "--name", "vectors").code == 0
    assert (home / "models" / "vectors" / "1_Pooling" / "config.json").is_file()
    (entry,) = json.loads(command("ls", "--json").out)
    assert (entry["name"], entry["context_length"], entry["error"]) == ("vectors", 256, None)
    assert entry["parameters"] == 22_713_216
    details = json.loads(command("show", "vectors", "--json").out)
    assert (details["architecture"], details["writes_text"]) == ("bert", False)
    assert "turns texts into vectors" in command("show", "vectors").out
    refused = command("complete", "vectors", "Once upon a time")
    assert refused.code == 1
    assert "vectors turns texts into vectors and writes none" in refused.err


def test_a_model_with_a_head_is_pulled_listed_and_shown_as_what_it_is(
    command: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    head = TextClassifier(load_model(tiny_folder), ("good", "差评"), pad_id=0)
    save_head(head, tmp_path / "head", write_tokenizer=lambda target: copy_tokenizer(tiny_folder, target))
    assert command("pull", str(tmp_path / "head"), "--name", "mood").code == 0
    assert json.loads(command("ls", "--json").out)[0]["error"] is None
    details = json.loads(command("show", "mood", "--json").out)
    assert (details["writes_text"], details["labels"], details["chat_template"]) == (False, ["good", "差评"], None)
    assert "gives texts labels: good, 差评" in command("show", "mood").out
    refused = command("complete", "mood", "Once upon a time")
    assert refused.code == 1
    assert "mood gives texts labels and does nothing else" in refused.err


def test_ls_lists_a_broken_model_as_broken(command: Run, tiny: str, home: Path) -> None:
    (home / "models" / tiny / "model.safetensors").write_bytes(b"x")
    result = command("ls")
    assert result.code == 0
    assert "broken" in result.out
    assert json.loads(command("ls", "--json").out)[0]["error"]


def test_show(command: Run, tiny: str) -> None:
    details = json.loads(command("show", tiny, "--json").out)
    assert details["name"] == tiny
    assert details["architecture"] == "llama"
    assert "<|im_start|>" in details["chat_template"]
    assert len(details["files"]["model.safetensors"]["sha256"]) == 64
    assert details["source"].startswith("file:")
    text = command("show", tiny).out
    assert "<|im_start|>" in text
    assert details["files"]["model.safetensors"]["sha256"] in text


def test_show_of_a_path(command: Run, tiny_folder: Path) -> None:
    assert json.loads(command("show", str(tiny_folder), "--json").out)["path"] == str(tiny_folder)


def test_rm_asks_nobody_without_a_terminal(command: Run, tiny: str, home: Path) -> None:
    result = command("rm", tiny)
    assert result.code == 2
    assert "--yes" in result.err
    assert ModelsFolder(home / "models").find(tiny) is not None


def test_rm(command: Run, tiny: str) -> None:
    assert command("rm", tiny, "--yes").code == 0
    result = command("rm", tiny, "--yes")
    assert result.code == 1
    assert "chatwright ls" in result.err


def test_rm_takes_names_only(command: Run, tiny: str, home: Path) -> None:
    result = command("rm", str(home / "models" / tiny), "-y")
    assert result.code == 1
    assert (home / "models" / tiny).exists()


def test_rm_of_a_model_in_use_names_the_holder(command: Run, tiny: str, home: Path) -> None:
    with ModelsFolder(home / "models").in_use(tiny, "http://127.0.0.1:8000"):
        result = command("rm", tiny, "--yes")
    assert result.code == 1
    assert "http://127.0.0.1:8000" in result.err


def test_config_says_where_values_come_from_and_hides_secrets(
    command: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "config.toml").write_text("port = 8123\n")
    monkeypatch.setenv("CHATWRIGHT_API_KEY", "hunter2")
    data = json.loads(command("config", "--json").out)
    assert data["config_file"] == str(home / "config.toml")
    settings = {entry["setting"]: entry for entry in data["settings"]}
    assert settings["port"]["value"] == 8123
    assert settings["port"]["origin"] == {"layer": "file", "where": str(home / "config.toml")}
    assert settings["api_key"]["value"] == "***"
    assert settings["host"]["origin"]["layer"] == "default"
    text = command("config").out
    assert "CHATWRIGHT_MAX_QUEUE" in text
    assert "hunter2" not in text + str(data)


def test_doctor_finds_nothing_wrong_and_tells_no_secrets(
    command: Run, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    result = command("doctor", "--json")
    findings = json.loads(result.out)
    assert result.code == 0, [finding for finding in findings if finding["level"] == "fail"]
    assert {finding["level"] for finding in findings} <= {"ok", "warn", "fail"}
    topics = {finding["topic"]: finding["text"] for finding in findings}
    assert topics["https_proxy"] == "http://***@proxy:3128"
    assert {"python", "cpu", "memory", "torch", "home", "disk", "port"} <= set(topics)
    assert "secret" not in result.out
    assert "→" in command("doctor").out or all(finding["level"] == "ok" for finding in findings)


def test_doctor_says_that_a_gpu_is_experimental(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (3 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    result = command("doctor", "--json")
    assert result.code == 0
    (device,) = [finding for finding in json.loads(result.out) if finding["topic"] == "device"]
    assert device["level"] == "warn"
    assert device["text"].startswith("NVIDIA H200 (3.0 GB free of 24.0 GB); CUDA 13.0; ")
    assert "never tested on a GPU" in device["advice"]

    def full(index: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.cuda, "mem_get_info", full)
    assert "NVIDIA H200; CUDA" in command("doctor").out


def test_doctor_reports_wrong_settings_as_a_failure(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_PROT", "1")
    result = command("doctor")
    assert result.code == 1
    assert "Did you mean CHATWRIGHT_PORT?" in " ".join(result.out.split())
