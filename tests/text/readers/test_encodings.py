"""Text in any encoding comes out as the text that was written, and what cannot be decoded is counted."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import chatterbot_corpus
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.text.readers.encoding import TextDecoder, is_binary, likely_legacy, wide_encoding
from tests.text.readers.helpers import one, read_data, reasons, texts

CORPUS = Path(chatterbot_corpus.__file__).parent / "data"
SIMPLIFIED = "灯塔矗立在北部的海岬上，自建成以来每晚都会点亮。\n夜间经过的船只会远远避开那些礁石。\n"
TRADITIONAL = "燈塔矗立在北部的海岬上，自建成以來每晚都會點亮。\n夜間經過的船隻會遠遠避開那些礁石。\n"
ENGLISH = "The lighthouse stands on the northern cape.\nIts lamp is lit every evening.\n"


@cache
def corpus(language: str) -> str:
    """Real conversations in a language."""
    turns = []
    for file in sorted((CORPUS / language).glob("*.yml")):
        for conversation in yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CBaseLoader)["conversations"]:
            turns += [turn for turn in conversation if isinstance(turn, str)]
    return "\n".join(turns)


def encodable(text: str, encoding: str) -> str:
    return text.encode(encoding, "ignore").decode(encoding)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize(
    "text", [SIMPLIFIED, TRADITIONAL, ENGLISH, ENGLISH + SIMPLIFIED], ids=["zh", "zh-Hant", "en", "both"]
)
def test_unicode_is_recognised_with_and_without_a_bom(tmp_path: Path, text: str, encoding: str) -> None:
    record = one(*read_data(tmp_path / "a.txt", text.encode(encoding)))
    assert record.payload["text"] == text
    assert record.n_undecodable == 0


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        ("chinese", "gb18030"),
        ("traditionalchinese", "big5"),
        ("traditionalchinese", "gb18030"),
        ("japanese", "cp932"),
        ("japanese", "euc_jp"),
        ("korean", "cp949"),
        ("french", "cp1252"),
        ("german", "cp1252"),
        ("spanish", "cp1252"),
        ("portuguese", "cp1252"),
        ("russian", "cp1251"),
        ("russian", "koi8_r"),
        ("ukrainian", "cp1251"),
    ],
)
@pytest.mark.parametrize("n_characters", [60, 2000])
def test_legacy_encodings_of_real_text_are_recognised(
    tmp_path: Path, language: str, encoding: str, n_characters: int
) -> None:
    text = encodable(corpus(language), encoding)
    start = next(at for at, char in enumerate(text) if not char.isascii())
    text = text[max(0, start - 20) :][:n_characters]
    record = one(*read_data(tmp_path / "a.txt", text.encode(encoding)))
    assert record.payload["text"] == text
    assert record.encoding == encoding


def test_lines_in_different_encodings_are_decoded_line_by_line(tmp_path: Path) -> None:
    lines = [
        (SIMPLIFIED, "utf-8"),
        (SIMPLIFIED, "gb18030"),
        (ENGLISH, "ascii"),
        ("Il fait très chaud à la plage.\n", "cp1252"),
    ] * 3
    record = one(*read_data(tmp_path / "a.txt", b"".join(text.encode(encoding) for text, encoding in lines)))
    assert record.payload["text"] == "".join(text for text, _encoding in lines)
    assert record.encoding == "cp1252+gb18030+utf-8"


def test_a_line_of_gb18030_that_happens_to_be_utf_8_follows_its_file() -> None:
    assert "联想".encode("gb18030").decode("utf-8", "replace")  # as bytes, unusual letters or damage
    decoder = TextDecoder(SIMPLIFIED.encode("gb18030"))
    for word in ("你", "模", "末", "目"):
        assert decoder.decode(f"{word}\n{SIMPLIFIED}".encode("gb18030")).text.startswith(word)


def test_stray_nuls_are_dropped_and_counted(tmp_path: Path) -> None:
    record = one(*read_data(tmp_path / "a.txt", ENGLISH.encode() * 5 + b"\0\0" + ENGLISH.encode()))
    assert record.payload["text"] == ENGLISH * 6
    assert record.n_undecodable == 2


def test_damage_is_counted_and_only_damage_is_lost(tmp_path: Path) -> None:
    data = bytearray(SIMPLIFIED.encode() * 20)
    data[301] = 0xFF
    record = one(*read_data(tmp_path / "a.txt", bytes(data)))
    assert 1 <= record.n_undecodable <= 3
    assert record.payload["text"].count("\ufffd") == record.n_undecodable
    assert record.payload["text"].count("灯塔") >= 19


@pytest.mark.parametrize("encoding", ["utf-16-le", "gb18030", "big5", "utf-8-sig"])
def test_rows_are_read_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    text = "天地玄黃，日月盈昃，人我在有他的一是不了"
    for name, data in (
        ("a.jsonl", f'{{"text": "{text}"}}\n{{"text": "{text}"}}\n'),
        ("a.csv", f"text\n{text}\n{text}\n"),
        ("a.json", f'[{{"text": "{text}"}}, {{"text": "{text}"}}]'),
    ):
        records, skipped = read_data(tmp_path / name, data.encode(encoding))
        assert (texts(records), skipped) == ([text, text], [])
        assert {record.encoding for record in records} == {encoding.removesuffix("-sig")}


def test_a_bad_byte_in_a_row_is_counted_and_the_row_kept(tmp_path: Path) -> None:
    rows = '{"text": "天地玄黄"}\n'.encode() * 3
    records, skipped = read_data(tmp_path / "a.jsonl", rows + b'{"text": "ok \xff"}\n')
    assert skipped == []
    assert sum(record.n_undecodable for record in records) == len([r for r in records if "\ufffd" in r.payload["text"]])
    assert len(records) == 4


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc", "Cs"]), min_size=1))
@settings(max_examples=200)
def test_valid_utf_8_is_never_taken_for_anything_else(text: str) -> None:
    data = text.encode()
    assert wide_encoding(data) is None or data[:2] in (b"\xff\xfe", b"\xfe\xff")
    decoded = TextDecoder(data).decode(data)
    assert (decoded.text.lstrip("\ufeff"), decoded.n_undecodable) == (text.lstrip("\ufeff"), 0)


@given(st.binary())
@settings(max_examples=300)
def test_any_bytes_decode_to_text_that_can_be_encoded(data: bytes) -> None:
    is_binary(data)
    likely_legacy(data)
    TextDecoder(data).decode(data).text.encode()


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16-le"])
def test_a_file_of_several_units_keeps_its_encoding(tmp_path: Path, encoding: str) -> None:
    text = SIMPLIFIED * 200
    records, skipped = read_data(tmp_path / "a.txt", text.encode(encoding), split_bytes=4000, max_document_bytes=3000)
    assert reasons(skipped) == []
    assert "".join(texts(records)) == text
