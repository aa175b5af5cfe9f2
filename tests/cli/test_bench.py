"""`bench`: how fast a model is here, and at which quality. What the figures are is the machine's business, and no test's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatwright.hub import ModelsFolder, pull
from tests.cli.conftest import Run
from tests.server.tiny import CONTEXT

SHORT = ("--rounds", "2", "--streams", "1,3", "--prompts", "40")


def test_every_figure_of_every_precision_is_a_line_of_json(command: Run, tiny: str) -> None:
    done = command("bench", tiny, *SHORT, "--quantization", "fp32,bf16", "--json")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    expected = {
        ("load", None, 1, "s"),
        ("memory", None, 1, "MB"),
        ("perplexity", None, 1, ""),
        ("decode", 1, 2, "tokens/s"),
        ("decode", 3, 2, "tokens/s"),
        ("prompt", 40, 2, "tokens/s"),
        ("first token, cold", CONTEXT - 1, 2, "s"),
        ("first token, cached", CONTEXT - 1, 2, "s"),
    }
    for system in ("fp32", "bf16"):
        of_system = [line for line in lines if line["system"] == system]
        assert {(line["figure"], line.get("size"), line["n"], line["unit"]) for line in of_system} == expected
        assert len(of_system) == len(expected)
    assert {line["system"] for line in lines} == {"fp32", "bf16"}
    for line in lines:
        assert line["value"] > 0 or line["figure"] == "memory"
        assert line["model"] == tiny
        assert line["threads"] == 1
        assert {"cpu", "cores", "memory_gib", "system"} <= set(line["machine"])
        assert {"python", "chatwright", "torch"} <= set(line["versions"])
    worse = {line["system"]: line["value"] for line in lines if line["figure"] == "perplexity"}
    assert worse["bf16"] == pytest.approx(worse["fp32"], rel=0.05)
    assert worse["bf16"] != worse["fp32"], "both were measured"


def test_the_table_is_in_the_users_language(command: Run, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for language, words in (("en", ("3 answers at once", "perplexity")), ("zh", ("3 个回答同时", "困惑度"))):
        monkeypatch.setenv("CHATWRIGHT_LANGUAGE", language)
        done = command("bench", tiny, *SHORT)
        assert done.code == 0, done.err
        for word in (*words, tiny):
            assert word in done.out


def test_the_perplexity_is_that_of_the_users_text(command: Run, tiny: str, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text("The capital of France is Paris. The capital of Japan is Tokyo. " * 20, encoding="utf-8")
    values = {}
    for flags in ((), ("--text", str(known))):
        done = command("bench", tiny, "--rounds", "1", "--streams", "1", "--prompts", "8", "--json", *flags)
        assert done.code == 0, done.err
        lines = [json.loads(line) for line in done.out.splitlines()]
        values[lines[0]["text"]] = next(line["value"] for line in lines if line["figure"] == "perplexity")
    assert values["known.txt"] < values["bundled"]


def test_the_default_prompts_are_those_that_the_context_has_room_for(command: Run, tiny: str) -> None:
    done = command("bench", tiny, "--rounds", "1", "--streams", "1", "--json")
    assert done.code == 0, done.err
    prompts = [line["size"] for line in map(json.loads, done.out.splitlines()) if line["figure"] == "prompt"]
    assert prompts == [128], f"512 and 2048 do not fit {CONTEXT}"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--rounds", "0"), "--rounds takes a number from 1"),
        (("--rounds", "some"), "--rounds takes a number"),
        (("--streams", "1,,2"), "--streams takes a number"),
        (("--streams", "0"), "--streams takes a number"),
        (("--prompts", "128,99999"), "do not fit the context"),
        (("--prompts", str(CONTEXT)), "do not fit the context"),
        (("--threads", "0"), "--threads takes a number"),
        (("--quantization", "int3"), "--quantization is one of"),
        (("--text", "not/there.txt"), "cannot be read"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(
    command: Run, tiny: str, flags: tuple[str, ...], sentence: str
) -> None:
    done = command("bench", tiny, *flags)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert "Traceback" not in done.err


def test_texts_that_cannot_be_scored_are_refused(command: Run, tiny: str, tmp_path: Path) -> None:
    for data, sentence in ((b"\xff\xfe\x00", "not UTF-8"), (b"", "too short")):
        file = tmp_path / "text"
        file.write_bytes(data)
        done = command("bench", tiny, *SHORT, "--text", str(file))
        assert (done.code, done.out) == (2, "")
        assert sentence in done.err


def test_a_model_that_is_not_there_is_named(command: Run) -> None:
    done = command("bench", "nobody")
    assert done.code == 1
    assert "nobody" in done.err


def test_an_encoder_has_no_answers_to_measure(command: Run, home: Path, minilm: Path) -> None:
    name = pull(str(minilm), ModelsFolder(home / "models")).name
    done = command("bench", name)
    assert (done.code, done.out) == (2, "")
    assert "encoder" in done.err
