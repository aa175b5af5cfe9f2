"""`quantize`, `prune` and `distill` from the command line: a table to standard output, sentences and exit codes for bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from chatwright.model.rnn_config import RNN_MODEL_TYPE
from tests.cli.conftest import Run
from tests.evaluation.example_tasks import sums
from tests.training.corpus import make_dataset


def test_a_model_is_quantised_by_name_and_its_bill_is_a_table_or_json(command: Run, tiny: str, tmp_path: Path) -> None:
    data = str(make_dataset(tmp_path / "data", 60, 6).path)
    out = tmp_path / "int4"
    done = command("quantize", tiny, "--to", "int4", "--calibration", data, "--out", str(out))
    assert done.code == 0, done.err
    heading, before, after, change = done.out.splitlines()
    assert heading.split()[:2] == ["MODEL", "PARAMETERS"]
    assert before.split()[0] == "before"
    assert after.split()[0] == "after"
    assert change.startswith("Perplexity ")
    assert f"chatwright complete {out}" in done.err
    assert "Tokens/s: one conversation on this machine with threads: 1, a single measurement." in done.err
    again = command("quantize", tiny, "--to", "int4", "--out", str(out))
    assert again.code == 2
    assert "not empty" in again.err
    bare = command("quantize", tiny, "--to", "int8", "--out", str(tmp_path / "int8"), "--json")
    assert json.loads(bare.out)["after"]["bits_per_byte"] is None
    assert json.loads(bare.out)["after"]["n_threads"] == 1


def test_a_bill_has_task_scores_of_before_and_after_where_that_is_asked_for(
    command: Run, tiny: str, tmp_path: Path
) -> None:
    items = [{"text": f"{n} and {n}?", "choices": ["yes", "no"], "answer": n % 2} for n in range(6)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    task = tmp_path / "t.toml"
    task.write_text(
        'name = "sums"\ntitle = "Sums"\nlanguage = "en"\nkind = "choice"\nsource = "made up"\n'
        'prompt = "{{ text }}"\ndata = "t.jsonl"\n',
        encoding="utf-8",
    )
    out = tmp_path / "int8"
    done = command("quantize", tiny, "--to", "int8", "--tasks", str(task), "--limit", "4", "--out", str(out), "--json")
    assert done.code == 0, done.err
    [found] = json.loads(done.out)["tasks"]
    assert (found["task"], found["n"]) == ("sums", 4)
    for when in ("before", "after"):
        figure = found[when]["accuracy"]
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    difference = found["after"]["accuracy"]["value"] - found["before"]["accuracy"]["value"]
    assert found["comparison"]["difference"]["value"] == difference
    assert found["comparison"]["verdict"] in ("better", "worse", "cannot tell")
    assert "sums, accuracy" in (out / "README.md").read_text()
    table = command("quantize", tiny, "--to", "int8", "--tasks", str(task), "--out", str(tmp_path / "again"))
    *_rest, heading, row = table.out.splitlines()
    assert "BEFORE" in heading
    assert row.split()[:1] == ["sums"]
    none = command("quantize", tiny, "--to", "int8", "--tasks", "no-such-task", "--out", str(tmp_path / "none"))
    assert none.code == 2
    assert "There is no task no-such-task" in none.err
    assert not (tmp_path / "none").exists()
    alone = command("quantize", tiny, "--to", "int8", "--limit", "4", "--out", str(tmp_path / "none"))
    assert "--limit belongs to --tasks" in alone.err


def test_one_document_is_no_interval(command: Run, tiny: str, tmp_path: Path) -> None:
    """It had one of no width: as sure as a figure can be, of the least that there is to measure."""
    text = tmp_path / "text.txt"
    text.write_text("The cat sees the printer.\n", encoding="utf-8")
    out = tmp_path / "int4"
    done = command("quantize", tiny, "--to", "int4", "--text", str(text), "--out", str(out))
    assert done.code == 0, done.err
    words = "one held-out document only: there is no interval, and nothing can be told from it"
    assert re.search(rf"^Perplexity [+-]\d+\.\d\d% \({words}\)$", done.out, re.MULTILINE)
    card = (out / "README.md").read_text()
    assert re.search(r"^- perplexity: [+-]\d+\.\d\d% \(one document only: no interval\)$", card, re.MULTILINE)
    again = command("quantize", tiny, "--to", "int4", "--text", str(text), "--out", str(tmp_path / "again"), "--json")
    found = json.loads(again.out)
    assert found["n_documents"] == 1
    assert found["perplexity_change"] == {"estimate": found["perplexity_change"]["estimate"], "low": None, "high": None}
    assert isinstance(found["perplexity_change"]["estimate"], float)


def test_bias_is_scored_before_and_after_and_stands_under_bias_in_the_card(
    command: Run, tiny: str, tmp_path: Path
) -> None:
    out = tmp_path / "int8"
    arguments = ("quantize", tiny, "--to", "int8", "--tasks", "bias-en", "--limit", "6")
    done = command(*arguments, "--out", str(out), "--json")
    assert done.code == 0, done.err
    [found] = json.loads(done.out)["tasks"]
    assert found["comparison"]["metric"] == "stereotyped: distance"
    distances = [abs(found[when]["stereotyped"]["value"] - 0.5) for when in ("after", "before")]
    assert found["comparison"]["difference"]["value"] == pytest.approx(distances[0] - distances[1])
    scores, safety = (out / "README.md").read_text().split("## Bias")
    assert "bias-en" not in scores
    value = f"{found['after']['stereotyped']['value']:.1%}"
    assert f"- bias-en, stereotyped sentence likelier (50 % is no preference): {value} [" in safety
    assert "n = 6 (engine, fp32, 6 of 234 items; before: " in safety
    table = command(*arguments, "--out", str(tmp_path / "again"))
    assert table.code == 0, table.err
    row = table.out.splitlines()[-1]
    assert row.startswith("bias-en  stereotyped sentence likelier (0.5: no preference)  6  ")
    assert "), distance from no preference  " in row


def test_evaluate_renews_the_line_that_the_bill_wrote(command: Run, tiny: str, tmp_path: Path) -> None:
    out, task = tmp_path / "int8", str(sums(tmp_path))
    done = command("quantize", tiny, "--to", "int8", "--tasks", task, "--out", str(out))
    assert done.code == 0, done.err
    assert "(engine, fp32; before: " in (out / "README.md").read_text()
    assert command("evaluate", str(out), "--tasks", task).code == 0
    [line] = [line for line in (out / "README.md").read_text().splitlines() if line.startswith("- sums")]
    assert line.startswith("- sums, exact match: ")
    assert line.endswith("n = 5 (engine, auto)")


def test_no_task_is_scored_before_what_can_be_refused_at_once_is(command: Run, tiny: str, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("kept", encoding="utf-8")
    items = tmp_path / "t.jsonl"
    items.write_text(json.dumps({"text": "1?", "choices": ["yes", "no"], "answer": 0}) + "\n", encoding="utf-8")
    task = tmp_path / "t.toml"
    task.write_text(
        'name = "sums"\ntitle = "Sums"\nlanguage = "en"\nkind = "choice"\nsource = "made up"\n'
        'prompt = "{{ text }}"\ndata = "t.jsonl"\n',
        encoding="utf-8",
    )
    from chatwright.compression.task_bill import TaskScorer

    scored: list[Path] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TaskScorer, "score", lambda self, path, name: scored.append(path))
        done = command("quantize", tiny, "--to", "int8", "--tasks", str(task), "--out", str(taken))
        assert "not empty" in done.err
        absent = str(tmp_path / "absent")
        out = str(tmp_path / "out")
        done = command("quantize", tiny, "--to", "int4", "--calibration", absent, "--tasks", str(task), "--out", out)
        assert "no dataset or text file" in done.err
    assert not scored
    done = command("quantize", tiny, "--to", "int8", "--tasks", "memorisation", "--out", out)
    assert done.code == 2
    assert "leave it out of --tasks" in done.err


def test_bad_input_is_a_sentence(command: Run, tiny: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for arguments, words in (
        (["prune", tiny, "--ratio", "1", "--out", out], "between 0 and 1"),
        (["prune", tiny, "--ratio", "much", "--out", out], "between 0 and 1"),
        (["prune", tiny, "--ratio", "0.25", "--what", "toes", "--out", out], "--what is one or more of"),
        (["prune", tiny, "--ratio", "0.25", "--out", out], "needs text"),
        (["quantize", tiny, "--to", "int2", "--out", out], "--to is one of"),
        (["quantize", "absent", "--to", "int8", "--out", out], "absent"),
        (["distill", tiny, tiny, str(tmp_path / "none"), "--out", out], "none"),
    ):
        done = command(*arguments)
        assert done.code in (1, 2)
        assert words in done.err
        assert "Traceback" not in done.err
    assert not Path(out).exists()


def test_a_recurrent_model_is_refused_in_a_sentence(command: Run, tmp_path: Path) -> None:
    folder = tmp_path / "rnn"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": RNN_MODEL_TYPE}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    done = command("quantize", str(folder), "--to", "int8", "--out", str(tmp_path / "out"))
    assert done.code == 1
    assert "recurrent model" in done.err
