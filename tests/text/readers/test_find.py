"""Folders are walked in one order, links are not followed, large files are split without losing or doubling anything."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatwright.errors import UsageError
from chatwright.text.dataset import write_dataset
from chatwright.text.readers import Input, Limits, Skipped, find_units, read_unit
from tests.text.readers.helpers import read, read_data, reasons, texts


def test_the_order_is_that_of_the_names_and_the_sources_are_stable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    for name in ("b.txt", "a/z.txt", "a/y.txt", "C.txt", "ä.txt"):
        (notes / name).parent.mkdir(parents=True, exist_ok=True)
        (notes / name).write_text(name)
    expected = ["notes/C.txt", "notes/b.txt", "notes/ä.txt", "notes/a/y.txt", "notes/a/z.txt"]
    assert [unit.source for unit in find_units([notes], Limits())[0]] == expected
    monkeypatch.chdir(notes)
    assert [unit.source for unit in find_units(["../notes"], Limits())[0]] == expected
    assert [unit.source for unit in find_units(["."], Limits())[0]] == expected


def test_links_pipes_and_hidden_files_are_named_and_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = tmp_path / "in"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("x")
    (folder / "good.txt").write_text("good")
    (folder / "link.txt").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    (folder / "dangling.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.txt")
    records, skipped = read(folder)
    assert texts(records) == ["good"]
    assert sorted(reasons(skipped)) == ["hidden", "link", "link", "link", "not a file"]
    assert texts(read(folder / "link.txt")[0]) == ["secret"]  # named by the user


def test_a_file_reached_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    records, skipped = read(tmp_path, tmp_path / "a.txt")
    assert (texts(records), reasons(skipped)) == (["a"], ["named twice"])


def test_a_dataset_in_a_folder_is_named_and_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "theirs").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    manifest = {"format": 1, "kinds": {}, "created_by": "another program", "name": "Theirs"}
    (folder / "theirs" / "manifest.json").write_text(json.dumps(manifest))
    (folder / "theirs" / "b.txt").write_text("b")
    write_dataset(folder / "mine", {"documents": {"train": [{"text": "c"}]}})
    (folder / "mine" / "report.html").write_text("<html><body><p>This is the report.</p></body></html>")
    (folder / "mine" / "dropped.jsonl").write_text('{"text": "d"}\n')
    records, skipped = read(folder)
    assert texts(records) == ["a", "b"]
    assert [(each.source, each.reason) for each in skipped] == [
        ("in/mine", "prepared dataset"),
        ("in/theirs/manifest.json", "unknown shape"),
    ]
    assert texts(read(folder / "mine" / "documents")[0]) == ["c"]  # named by the user


def test_a_dataset_as_an_input_is_refused_with_what_to_name_instead(tmp_path: Path) -> None:
    write_dataset(tmp_path / "mine", {"documents": {"train": [{"text": "c"}]}})
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for path in (tmp_path / "mine", tmp_path / "link", Input(tmp_path / "mine", "hf:org/mine")):
        with pytest.raises(UsageError, match=r"mine is a dataset already.*\(documents\)"):
            find_units([path], Limits())
    newer = json.loads((tmp_path / "mine" / "manifest.json").read_bytes()) | {"format": 999}
    (tmp_path / "mine" / "manifest.json").write_text(json.dumps(newer))
    with pytest.raises(UsageError, match="is a dataset already"):
        find_units([tmp_path / "mine"], Limits())


@pytest.mark.parametrize("data", ["", "[]", "{}", '{"format": 1}', "\0", '{"format": 1, "kinds": [], "created_by": 7}'])
def test_a_manifest_of_whatever_else_makes_no_dataset_of_a_folder(tmp_path: Path, data: str) -> None:
    (tmp_path / "manifest.json").write_text(data)
    (tmp_path / "notes.txt").write_text("notes")
    assert "notes" in texts(read(tmp_path)[0])


def test_an_input_that_does_not_exist_is_said_in_a_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", "a\0b"):
        with pytest.raises(UsageError, match="There is no file or folder"):
            find_units([path], Limits())


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    assert find_units([tmp_path], Limits()) == ([], [])


def test_unreadable_files_and_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    units, _skipped = find_units([tmp_path], Limits())
    (tmp_path / "a.txt").unlink()
    assert [found.reason for found in read_unit(units[0], Limits()) if isinstance(found, Skipped)] == ["unreadable"]


def test_names_that_are_no_utf_8_are_read_and_shown_escaped(tmp_path: Path) -> None:
    for name in ("笔记.txt".encode("gb18030"), b"line\nfeed\x1b[31m.txt", "rtl\u202egnp.txt".encode()):
        (tmp_path / os.fsdecode(name)).write_text("text")
    records, skipped = read(tmp_path)
    assert (len(records), skipped) == (3, [])
    sources = [unit.source.rpartition("/")[2] for unit in find_units([tmp_path], Limits())[0]]
    assert sources == ["line\\nfeed\\x1b[31m.txt", "rtl\\u202egnp.txt", "\\xb1ʼ\\xc7.txt"]
    assert all(source.isprintable() and source.encode() for source in sources)


def test_inputs_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder / "data").mkdir(parents=True)
        (tmp_path / folder / "data" / "a.txt").write_text(folder)
    units, _skipped = find_units([tmp_path / "x" / "data", tmp_path / "y" / "data"], Limits())
    assert len({unit.source for unit in units}) == 2
    units, _skipped = find_units([Input(tmp_path / "x" / "data", "hf:org/name")], Limits())
    assert [unit.source for unit in units] == ["hf:org/name/a.txt"]


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_large_file_of_rows_is_split_at_lines_and_rows_keep_their_numbers(tmp_path: Path, suffix: str) -> None:
    rows = [json.dumps({"text": f"{number} " + "字" * (number % 50)}, ensure_ascii=False) for number in range(500)]
    rows[300] = "bad"
    (tmp_path / f"a.{suffix}").write_text("\r\n".join(rows), encoding="utf-8")
    units, _skipped = find_units([tmp_path], Limits(split_bytes=5000))
    assert len(units) > 5
    assert sum(unit.size_bytes for unit in units) == (tmp_path / f"a.{suffix}").stat().st_size
    records, skipped = read(tmp_path, split_bytes=5000)
    assert [record.where for record in records] == [f"line {number + 1}" for number in range(500) if number != 300]
    assert [(entry.source.rpartition("/")[2], entry.where) for entry in skipped] == [(f"a.{suffix}", "line 301")]


def test_a_large_text_is_split_at_paragraphs_and_nothing_is_lost(tmp_path: Path) -> None:
    text = "".join(f"段落 {number}。\n还有一行。\n\n" for number in range(3000))
    records, skipped = read_data(tmp_path / "a.txt", text, split_bytes=10_000, max_document_bytes=4_000)
    assert skipped == []
    assert "".join(texts(records)) == text
    assert all(record.payload["text"].startswith("段落") for record in records)
    assert len({record.where for record in records}) == len(records)


def test_an_endless_line_is_never_held_in_memory(tmp_path: Path) -> None:
    limits = Limits(max_line_bytes=200_000, max_document_bytes=200_000, split_bytes=1_000_000)
    line = '{"text": "' + "x" * 30_000_000 + '"}\n'
    for name, n_records in (("a.jsonl", 2), ("a.json", 2), ("a.csv", 2), ("a.txt", 150)):
        around = '{"text": "a"}\n' if "json" in name else "text\na\n"
        (tmp_path / name).write_text(around + line + '{"text": "b"}\n')
        tracemalloc.start()
        units, skipped = find_units([tmp_path / name], limits)
        records = 0
        for unit in units:
            for found in read_unit(unit, limits):
                if isinstance(found, Skipped):
                    skipped.append(found)
                else:
                    records += 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12_000_000, name
        assert records >= n_records
        assert reasons(skipped) == ([] if name == "a.txt" else ["too long"])


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30), max_size=40),
    st.integers(4, 60),
    st.integers(8, 60),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_cutting_and_splitting_keep_every_character(
    tmp_path: Path, lines: list[str], document: int, split: int, newline: str
) -> None:
    text = newline.join(lines)
    data = text.encode()
    records, _skipped = read_data(tmp_path / "a.txt", data, max_document_bytes=document, split_bytes=split)
    if not text.startswith("\ufeff") and all(record.encoding == "utf-8" for record in records):
        kept = "".join("".join(texts(records)).split())
        assert kept.replace("\ufeff", "") == "".join(text.split()).replace("\ufeff", "")
        assert all(record.n_undecodable == 0 for record in records)


SUFFIXES = ["txt", "md", "html", "pdf", "docx", "csv", "tsv", "jsonl", "json", "parquet", "yaml", "conll", "zip", "tar", "tar.gz",
            "gz", "bz2", "xz", "zst", ""]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["messages", "conversations", "role", "content", "from", "value", "prompt", "completion", "chosen", "rejected", "text",
             "label", "tokens", "tags", "spans", "entities", "start", "end", "instruction", "output", "input", "history", "mapping",
             "current_node", "parent", "children", "message", "author", "parts", "tools", "weight", "preferred_output", "data",
             "non_preferred_output", "tool_calls", "function_call", "system", "title", "question", "answer", "x"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(
    st.sampled_from(SUFFIXES),
    st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_bytes_under_any_name_raise(tmp_path: Path, suffix: str, data: bytes) -> None:
    records, skipped = read_data(tmp_path / f"fuzz.{suffix}".rstrip("."), data, split_bytes=64, max_document_bytes=50)
    assert records or skipped
    for record in records:
        json.dumps(record.payload, ensure_ascii=False).encode()


@given(st.lists(JSON, max_size=4), st.sampled_from(["jsonl", "json", "yaml"]))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_value_whatever_raises(tmp_path: Path, values: list[object], suffix: str) -> None:
    if suffix == "jsonl":
        data = "".join(json.dumps(value) + "\n" for value in values)
    else:
        data = json.dumps({"conversations": values} if suffix == "yaml" else values)
    records, _skipped = read_data(tmp_path / f"fuzz.{suffix}", data)
    for record in records:
        json.dumps(record.payload, ensure_ascii=False).encode()
        if record.kind == "conversations":
            assert any(message["role"] == "assistant" for message in record.payload["messages"])
            assert all(isinstance(message["content"], str) for message in record.payload["messages"])
        if record.kind == "tagged":
            size = len(record.payload["text"])
            assert all(0 <= span["start"] < span["end"] <= size for span in record.payload["spans"])
