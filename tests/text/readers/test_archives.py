"""Archives give their members, and nothing that lies in one can write, follow a link, or eat the machine."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.text.readers.helpers import dialogue, one, read, read_data, reasons, texts

MEMBERS = {"a.txt": "Alpha.", "deep/er/b.md": "# Beta", "c.jsonl": '{"text": "one"}\n{"text": "two"}\n'}
ZST = pyarrow.Codec("zstd")


def make_zip(members: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def make_tar(members: dict[str, str | bytes], *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            content = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return buffer.getvalue()


PACKINGS: dict[str, Callable[[], bytes]] = {
    "a.zip": lambda: make_zip(MEMBERS),
    "stored.zip": lambda: make_zip(MEMBERS, zipfile.ZIP_STORED),
    "bzip2.zip": lambda: make_zip(MEMBERS, zipfile.ZIP_BZIP2),
    "lzma.zip": lambda: make_zip(MEMBERS, zipfile.ZIP_LZMA),
    "a.tar": lambda: make_tar(MEMBERS),
    "a.tar.gz": lambda: gzip.compress(make_tar(MEMBERS)),
    "a.tgz": lambda: gzip.compress(make_tar(MEMBERS)),
    "a.tar.bz2": lambda: bz2.compress(make_tar(MEMBERS)),
    "a.tar.xz": lambda: lzma.compress(make_tar(MEMBERS)),
    "a.tar.zst": lambda: ZST.compress(make_tar(MEMBERS), asbytes=True),
    "nested.zip": lambda: make_zip({"inner.zip": make_zip(MEMBERS)}),
    "nested.tar": lambda: make_tar({"inner.tar.gz": gzip.compress(make_tar(MEMBERS))}),
    "nameless": lambda: gzip.compress(make_tar(MEMBERS)),
}


@pytest.mark.parametrize("name", PACKINGS)
def test_members_are_read_from_every_kind_of_archive(tmp_path: Path, name: str) -> None:
    records, skipped = read_data(tmp_path / name, PACKINGS[name]())
    assert skipped == []
    assert sorted(texts(records)) == ["# Beta", "Alpha.", "one", "two"]


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_single_compressed_files_are_read_as_what_they_hold(tmp_path: Path, suffix: str) -> None:
    compress = {
        "gz": lambda data: gzip.compress(data) + gzip.compress(data),  # several streams in a row are one file
        "bz2": lambda data: bz2.compress(data) + bz2.compress(data),
        "xz": lambda data: lzma.compress(data) + lzma.compress(data),
        "zst": lambda data: ZST.compress(data * 2, asbytes=True),
    }[suffix]
    records, skipped = read_data(tmp_path / f"a.jsonl.{suffix}", compress(b'{"text": "one"}\n'))
    assert (texts(records), skipped) == (["one", "one"], [])
    assert [record.where for record in records] == ["line 1", "line 2"]


def test_a_unit_says_which_member_it_is(tmp_path: Path) -> None:
    from chatwright.text.readers import Limits, find_units

    (tmp_path / "notes.zip").write_bytes(make_zip(MEMBERS))
    units, _skipped = find_units([tmp_path / "notes.zip"], Limits())
    assert [unit.source for unit in units] == ["notes.zip!/a.txt", "notes.zip!/deep/er/b.md", "notes.zip!/c.jsonl"]


def links_and_devices() -> list[tarfile.TarInfo]:
    infos = []
    for name, kind in (
        ("link", tarfile.SYMTYPE),
        ("hard", tarfile.LNKTYPE),
        ("null", tarfile.CHRTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ):
        info = tarfile.TarInfo(name)
        info.type = kind
        info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
        infos.append(info)
    return infos


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_hostile_members_are_skipped_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    members: dict[str, str | bytes] = {
        "../../evil.txt": "x",
        "/etc/evil.txt": "x",
        "a/../../b.txt": "x",
        "C:\\evil.txt": "x",
        "..\\evil.txt": "x",
        ".hidden": "x",
        "__MACOSX/._a.txt": "x",
        "good.txt": "Good.",
    }
    if name == "a.zip":
        buffer = io.BytesIO(make_zip(members))
        with zipfile.ZipFile(buffer, "a") as archive:
            link = zipfile.ZipInfo("link.txt")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
        data = buffer.getvalue()
        others = ["link"]
    else:
        data = make_tar(members, *links_and_devices())
        data = gzip.compress(data) if name.endswith("gz") else data
        others = ["link", "link", "not a file", "not a file"]
    folder = tmp_path / "in"
    folder.mkdir()
    records, skipped = read_data(folder / name, data)
    assert texts(records) == ["Good."]
    assert reasons(skipped) == ["unsafe name"] * 5 + ["hidden"] * 2 + others
    assert all(entry.detail for entry in skipped)  # what to do about it
    assert [path.name for path in tmp_path.rglob("*")] == ["in", name]


def test_encrypted_members_are_skipped(tmp_path: Path) -> None:
    data = bytearray(make_zip({"a.txt": "secret"}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    (entry,) = read_data(tmp_path / "a.zip", bytes(data))[1]
    assert (entry.reason, "unpack it" in entry.detail) == ("encrypted archive", True)


def test_names_from_chinese_windows_are_shown_as_they_were(tmp_path: Path) -> None:
    data = make_zip({"xxxx.txt": "text"})
    data = data.replace(b"xxxx.txt", "笔记".encode("gb18030") + b".txt")
    records, skipped = read_data(tmp_path / "a.zip", data.replace(b"xxxx", "笔记".encode("gb18030")))
    assert (texts(records), skipped) == (["text"], [])
    from chatwright.text.readers import Limits, find_units

    assert find_units([tmp_path / "a.zip"], Limits())[0][0].source == "a.zip!/笔记.txt"


class TestBombs:
    LIMITS = {"judged_bytes": 1 << 20}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("name", "pack"),
        [
            ("a.zip", lambda data: make_zip({"a.txt": data})),
            ("a.txt.gz", gzip.compress),
            ("a.txt.bz2", bz2.compress),
            ("a.txt.xz", lzma.compress),
            ("a.txt.zst", lambda data: ZST.compress(data, asbytes=True)),
            ("a.tar.gz", lambda data: gzip.compress(make_tar({"a.txt": data}))),
            ("a.tar", lambda data: make_tar({"a.txt.gz": gzip.compress(data)})),
            ("b.zip", lambda data: make_zip({"a.zip": make_zip({"a.txt": data})})),
        ],
    )
    def test_what_unpacks_beyond_measure_is_stopped(
        self, tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
    ) -> None:
        records, skipped = read_data(tmp_path / name, pack(b"bomb " * 3_000_000), **self.LIMITS)
        assert "zip bomb" in reasons(skipped)
        assert sum(map(len, texts(records))) < 4 << 20

    def test_overlapping_members_are_refused(self, tmp_path: Path) -> None:
        data = make_zip({"a.txt": "x" * 5000, "b.txt": "y" * 5000}, zipfile.ZIP_STORED)
        at = data.rindex(b"PK\x01\x02") + 42  # b's header offset := a's
        data = data[:at] + struct.pack("<I", 0) + data[at + 4 :]
        assert reasons(read_data(tmp_path / "a.zip", data)[1]) == ["zip bomb"]

    @pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
    def test_too_many_members_are_refused(self, tmp_path: Path, name: str) -> None:
        members = {f"{number}.txt": "x" for number in range(30)}
        data = make_zip(members) if name == "a.zip" else make_tar(members)
        data = gzip.compress(data) if name.endswith("gz") else data
        assert "zip bomb" in reasons(read_data(tmp_path / name, data, max_archive_members=20)[1])

    def test_archives_inside_archives_end_somewhere(self, tmp_path: Path) -> None:
        data: bytes = b"text"
        for depth in range(8):
            data = make_zip({f"{depth}.zip" if depth else "a.txt": data})
        records, skipped = read_data(tmp_path / "a.zip", data)
        assert (records, reasons(skipped)) == ([], ["zip bomb"])

    def test_all_members_together_are_bounded(self, tmp_path: Path) -> None:
        data = gzip.compress(make_tar({f"{number}.txt": os.urandom(3000).hex() for number in range(10)}))
        records, skipped = read_data(tmp_path / "a.tar.gz", data, max_archive_bytes=20_000)
        assert "zip bomb" in reasons(skipped)
        assert len(records) < 4

    def test_a_tar_header_of_gigabytes_is_not_read_into_memory(self, tmp_path: Path) -> None:
        info = tarfile.TarInfo("x")
        info.type = tarfile.XHDTYPE
        info.size = 8 << 30
        assert reasons(read_data(tmp_path / "a.tar", info.tobuf() + bytes(2048))[1]) == ["broken archive"]

    def test_a_tar_of_holes_is_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "hole.txt").touch()
        os.truncate(tmp_path / "hole.txt", 1 << 40)
        os.system(f"cd {tmp_path} && tar --sparse -cf holes.tar hole.txt && rm hole.txt")
        records, skipped = read(tmp_path / "holes.tar")
        assert (records, reasons(skipped)) == ([], ["sparse file"])


@pytest.mark.parametrize("name", PACKINGS)
def test_a_damaged_archive_is_named_and_never_raises(tmp_path: Path, name: str) -> None:
    data = PACKINGS[name]()
    for end in range(1, len(data), max(1, len(data) // 25)):
        records, skipped = read_data(tmp_path / name, data[:end])
        complete = sorted(texts(records)) == ["# Beta", "Alpha.", "one", "two"]
        assert complete or skipped  # the tail of a tar is only padding


def test_a_flipped_byte_in_a_member_is_found(tmp_path: Path) -> None:
    data = bytearray(make_zip({"a.txt": "Alpha " * 50}, zipfile.ZIP_STORED))
    data[60] ^= 1
    assert reasons(read_data(tmp_path / "a.zip", bytes(data))[1]) == ["broken archive"]


@given(st.sampled_from(sorted(PACKINGS)), st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_damage_whatever_raises(tmp_path: Path, name: str, at: int, rubbish: bytes) -> None:
    data = bytearray(PACKINGS[name]())
    at %= len(data)
    data[at : at + len(rubbish)] = rubbish
    read_data(tmp_path / name, bytes(data))


def node(key: str, parent: str | None, role: str = "", text: str = "", **message: object) -> dict[str, object]:
    content = {"content_type": "text", "parts": [text]}
    spoken = {"author": {"role": role}, "content": content, **message} if role else None
    return {"id": key, "parent": parent, "children": [], "message": spoken}


NODES: dict[str, dict[str, object]] = {
    "root": node("root", None),
    "system": node("system", "root", "system"),
    "question": node("question", "system", "user", "What is the tide?"),
    "old": node("old", "question", "assistant", "Rejected."),
    "search": node(
        "search", "question", "assistant", recipient="browser", content={"content_type": "code", "text": "x"}
    ),
    "answer": node("answer", "search", "assistant", "The rise of the sea.", recipient="all"),
}
for key, each in NODES.items():
    if each["parent"]:
        NODES[str(each["parent"])]["children"].append(key)  # type: ignore[attr-defined]
EXPORT = [
    {"title": "Tides", "mapping": NODES, "current_node": "answer"},
    {"title": "Empty", "mapping": {"root": NODES["root"]}, "current_node": "root"},
    {"title": "Loop", "mapping": {"x": {"id": "x", "parent": "x", "message": None}}, "current_node": "x"},
]


class TestChatGPTExport:
    def test_the_branch_that_was_last_seen_is_read(self, tmp_path: Path) -> None:
        records, skipped = read_data(tmp_path / "conversations.json", json.dumps(EXPORT))
        (record,) = records
        assert record.detected == "chatgpt-export"
        assert record.payload["messages"] == [
            {"role": "user", "content": "What is the tide?"},
            {"role": "assistant", "content": "The rise of the sea."},
        ]
        assert [(entry.where, entry.reason) for entry in skipped] == [
            ("row 1", "left out"),  # the search
            ("row 1", "left out"),  # the answer that was given again
            ("row 2", "no assistant turn"),
            ("row 3", "no assistant turn"),
            ("", "left out"),  # the title
        ]

    def test_without_a_current_node_the_newest_branch_is_read(self, tmp_path: Path) -> None:
        records, _skipped = read_data(tmp_path / "conversations.json", json.dumps([{"mapping": NODES}]))
        assert records[0].payload["messages"][-1]["content"] == "The rise of the sea."

    def test_answers_that_were_given_again_are_counted(self, tmp_path: Path) -> None:
        _records, skipped = read_data(tmp_path / "conversations.json", json.dumps(EXPORT[:1]))
        assert skipped[1].detail == (
            "1 messages on other branches, of answers or questions given again: only the branch last seen is read"
        )

    def test_what_was_said_in_a_voice_conversation_is_read(self, tmp_path: Path) -> None:
        def spoken(text: str, direction: str) -> dict[str, object]:
            said = {"content_type": "audio_transcription", "text": text, "direction": direction, "decoding_id": None}
            sound = {"content_type": "audio_asset_pointer", "asset_pointer": "file-service://file-1", "format": "wav"}
            return {"content_type": "multimodal_text", "parts": [said, sound]}

        mapping = {
            "q": node("q", None, "user", content=spoken("When is high tide?", "in")),
            "a": node("a", "q", "assistant", content=spoken("At noon.", "out")),
        }
        data = json.dumps([{"mapping": mapping, "current_node": "a"}])
        assert dialogue(one(*read_data(tmp_path / "conversations.json", data))) == [
            ("user", "When is high tide?"),
            ("assistant", "At noon."),
        ]

    def test_the_zip_of_an_export_is_read_once(self, tmp_path: Path) -> None:
        files = {
            "conversations.json": json.dumps(EXPORT[:1]),
            "chat.html": "<html>the same again</html>",
            "user.json": "{}",
        }
        records, skipped = read_data(tmp_path / "export.zip", make_zip(files))  # type: ignore[arg-type]
        assert len(records) == 1
        assert reasons(skipped) == ["part of a ChatGPT export"] * 2 + ["left out"] * 3
        folder = tmp_path / "export"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_text(data)
        assert len(read(folder)[0]) == 1


def test_a_pdf_or_parquet_in_an_archive_is_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["from parquet"]}), buffer)
    for name, data in (
        ("a.zip", make_zip({"a.parquet": buffer.getvalue()})),
        ("a.tar", make_tar({"a.parquet": buffer.getvalue()})),
        ("a.tar.gz", gzip.compress(make_tar({"a.parquet": buffer.getvalue()}))),
    ):
        assert one(*read_data(tmp_path / name, data)).payload["text"] == "from parquet"


def test_a_member_without_a_name_is_read(tmp_path: Path) -> None:
    data = make_zip({"a": b"x"})
    assert texts(read_data(tmp_path / "a.zip", data.replace(b"a", b"\0"))[0]) == ["x"]
