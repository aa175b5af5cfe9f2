"""What the steps do to a text: mojibake is repaired, characters are normalised, frames go, prose and code stay."""

from __future__ import annotations

import unicodedata
from base64 import b64encode
from hashlib import sha512
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chatwright
from chatwright.text.boilerplate import removed_lines, strip_frame, strip_repeated_edges
from chatwright.text.characters import CharacterTexts
from chatwright.text.cleaning import windows
from chatwright.text.language import detect_language
from chatwright.text.normalise import normalise_characters, normalise_text
from chatwright.text.options import PrepareOptions
from chatwright.text.parts import n_bytes, parts_of, with_parts
from chatwright.text.quality import judge
from chatwright.text.readers import Record
from chatwright.text.repair import repair_text
from chatwright.text.rows import row_text
from chatwright.text.shingles import shingle
from chatwright.text.tally import new_tallies

ENGLISH = (
    "The wind had dropped by the time we reached the harbour, and the boats lay quite still. Nobody spoke of what "
    "had happened on the island; we tied the ropes, carried the baskets up the steps, and went home to our supper. "
)
CHINESE = "天色渐渐暗下来，街上的人也少了。他站在桥头，看着河水慢慢流过，想起了小时候的许多事情。那时候家里穷，但日子过得很快活。"
POEM = "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。"
CODE = (Path(chatwright.__file__).parent / "errors.py").read_text(encoding="utf-8")
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)


def verdict(text: str) -> str | None:
    characters = CharacterTexts.of([text])
    found = judge([text], characters, shingle(characters, 5), 20)[0]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("broken", "meant"),
    [
        ("schön, it’s déjà vu".encode().decode("cp1252"), "schön, it’s déjà vu"),
        (CHINESE.encode().decode("latin-1"), CHINESE),
        (CHINESE.encode("gb2312").decode("latin-1"), CHINESE),
        ("你好，世界！".encode().decode("gb18030"), "你好，世界！"),
        # 15 bytes: GBK takes them in pairs, and loses the last one.
        ("浣犲ソ锛屼笘鐣", "你好，世鐣"),
        ("浣犲ソ锛屼笘鐣\ufffd", "你好，世鐣\ufffd"),
        ("a浣犲ソ锛屼笘鐣", "a你好，世鐣"),
        # Cut inside a pair, so that half of it belongs to the last whole character.
        ("你好，世".encode().decode("gb18030") + "界！".encode().decode("gb18030")[:2], "你好，世界\ufffd"),
    ],
)
def test_mojibake_is_repaired(broken: str, meant: str) -> None:
    assert repair_text("first line\n" + broken) == "first line\n" + meant


def test_a_word_that_is_by_chance_the_beginning_of_utf_8_stays() -> None:
    word = b"\xe4\xbb\xba\xce".decode("gb18030")
    assert repair_text(f"{word}\n{word}") == f"{word}\n{word}"


@pytest.mark.parametrize(
    "text",
    [ENGLISH, CHINESE, "L’été déjà vu, Größe, naïve, Ærøskøbing, £5 – ½", "これは日本語です", "Привет, мир", "한국어"],
)
def test_good_text_stays_the_same_object(text: str) -> None:
    assert repair_text(text) is text
    assert normalise_text(text) is text or text.endswith(" ")


@given(text=ANY_TEXT)
@settings(deadline=None)
def test_normalised_text_stays_as_it_is(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    once.encode()  # no half of a surrogate pair is left
    assert not set(once) & set("\r\x00\x0b\x0c\u200b\ufeff\u202e\u00ad\u2028\u00a0\u3000")


@given(parts=st.lists(ANY_TEXT, max_size=4))
@settings(deadline=None)
def test_spans_keep_their_text_through_cleaning(parts: list[str]) -> None:
    text = "".join(parts)
    ends = np.cumsum([len(part) for part in parts]).tolist()
    spans = [{"start": e - len(p), "end": e, "label": "X"} for p, e in zip(parts, ends, strict=True) if p]
    payload = {"text": text, "spans": spans}
    cleaned = [normalise_characters(part) for part in parts_of("tagged", payload)]
    moved = with_parts("tagged", payload, cleaned)
    expected = [normalise_characters(part) for part in parts if part]
    assert [moved["text"][span["start"] : span["end"]] for span in moved["spans"]] == [
        each for each in expected if each
    ]


def test_a_row_of_one_accented_letter_is_no_chinese() -> None:
    assert repair_text("yes áááááááááá | head") == "yes áááááááááá | head"


def test_indentation_and_joiners_stay_and_blanks_go() -> None:
    assert normalise_text("\ufeffdef f():\r\n\tif x:  \r\n        return 1\r\n\r\n\r\n\r\n\r\nx") == (
        "def f():\n\tif x:\n        return 1\n\n\nx"
    )
    assert normalise_text("    indented\n") == "    indented"
    assert normalise_text("👨‍👩‍👧 e\u0301") == "👨‍👩‍👧 é"
    assert normalise_text("　　第一段。\n　　第二段。") == "第一段。\n第二段。"


def test_counted_bytes_are_those_of_the_text() -> None:
    payload = {
        "messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": ""}, {"content": "x"}]
    }
    assert n_bytes("conversations", parts_of("conversations", payload)) == len(
        row_text("conversations", payload).encode()
    )


def test_licence_headers_go_and_licences_stay() -> None:
    header = "# Copyright 2024 Somebody\n# Licensed under the Apache License, Version 2.0\n# See LICENSE.\n\n"
    assert strip_frame("#!/bin/sh\n" + header + "echo hello\n").split() == ["#!/bin/sh", "echo", "hello"]
    assert strip_frame("/*\n * Copyright (c) 2024\n * All rights reserved.\n */\nint x;\n").strip() == "int x;"
    comment = "# This script copies files and keeps the copyright notices.\necho hello\n"
    licence = "Copyright (c) 2024\nPermission is hereby granted, free of charge, to any person\n"
    for text in (comment, licence, CODE, header.rstrip()):
        assert strip_frame(text) is text


def test_cookie_notices_go_from_web_pages_only() -> None:
    page = f"{ENGLISH}\nWe use cookies to improve your experience.\nAccept all cookies\n本网站使用 Cookie，点击接受所有 Cookie\n"
    assert strip_frame(page, "html").strip() == ENGLISH.strip()
    assert strip_frame(page) is page
    article = "\n".join(
        ["Servers set cookies with a header.", "Our site uses cookies.", "The browser sends cookies back."] * 3
    )
    assert "header" in strip_frame(article, "html")


def test_lines_that_frame_most_documents_of_a_folder_go() -> None:
    pages = [f"My Handbook\nHome | Index\n\nChapter {n}\n{ENGLISH * 2} {n}\n\n© Example Press" for n in range(10)]
    stripped = strip_repeated_edges([*pages, pages[0]], ["a"] * 10 + ["b"])
    assert all("Handbook" not in text and "Press" not in text and "Chapter" in text for text in stripped[:10])
    assert stripped[10] is pages[0]


@pytest.mark.parametrize("text", [ENGLISH * 2, CHINESE * 2, POEM, CODE, ENGLISH[:60]])
def test_prose_code_and_poems_are_good_enough(text: str) -> None:
    assert verdict(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Hi.", "too short"),
        ("你好。", "too short"),
        ("+-----+-----+\n|  *  |  #  |\n" * 30 + ENGLISH[:60], "symbols"),
        ("\n".join(f"{n} {n * n} {n**3} 3.14159" for n in range(200)), "numbers"),
        ("Buy now!\n" * 100 + ENGLISH, "repeated lines"),
        ("please subscribe to our channel and like this video " * 60, "repeated phrases"),
        ("qwrt zxcvb plkjh gfdsq mnbvc " * 3 + "".join(f"xk{c}rt " for c in "bcdfghjklmnpqrst" * 4), "gibberish"),
        ("".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(400)), "gibberish"),
        ("\n".join(b64encode(sha512(b"%d" % n).digest()).decode() for n in range(99)), "gibberish"),
        ("\ufffd" * 20 + ENGLISH, "broken characters"),
    ],
)
def test_what_no_one_wants_to_learn_from_is_named(text: str, reason: str) -> None:
    assert verdict(text) == reason


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", ENGLISH),
        ("en", "Where is my order?"),
        ("en", CODE),
        ("zh", CHINESE),
        ("zh", "安装 Python 3.11 的 virtualenv 环境"),
        (
            "zh",
            '返回下一个文件编号以打开文件。\nSub Example\n  number = FreeFile()\n  Open "data.txt" For Output As number\nEnd Sub\n',
        ),
        ("en", "The Chinese word 你好 means hello, and is pronounced as it is written."),
        ("zh", "請問這個東西怎麼賣？"),
        ("ja", "これは日本語の文章です。東京へ行きました。"),
        ("ko", "안녕하세요, 만나서 반갑습니다"),
        ("ru", "Привет, как у тебя дела сегодня? Мы идём домой."),
        ("de", "Der schnelle braune Fuchs springt über den faulen Hund und läuft weg."),
        ("fr", "Le vent était tombé quand nous sommes arrivés au port, et les bateaux ne bougeaient plus."),
        ("es", "El viento había cesado cuando llegamos al puerto y los barcos estaban quietos."),
        ("und", "123 456 !!"),
    ],
)
def test_languages_are_told_apart(language: str, text: str) -> None:
    assert detect_language(text) == language


def test_what_goes_from_around_texts_is_named_once_for_each_folder() -> None:
    licence = "# Copyright 2024 Somebody\n# Licensed under the Apache License, Version 2.0\n"
    files = [("code/a.py", f"{licence}\nprint(1)\n"), ("code/b.py", f"{licence}\nprint(2)\n")]
    files += [(f"book/{n}.md", f"My Handbook\n\n{ENGLISH * 2} {n}\n\n© Example Press") for n in range(9)]
    files.append(("web/a.html", f"{ENGLISH}\nWe use cookies to improve your experience.\n"))
    tallies = new_tallies()
    records = [(source, Record("documents", {"text": text}, markup="html")) for source, text in files]
    (window,) = windows(records, PrepareOptions(filters=False), tallies)
    assert len(window.rows) == 12
    assert [(entry.source, entry.step, entry.reason, entry.detail) for entry in window.dropped] == [
        (
            "code/a.py",
            "boilerplate",
            "left out",
            "73 characters around the text: # Copyright 2024 Somebody / # Licensed under the Apache License, Version 2.0",
        ),
        ("book/0.md", "boilerplate", "repeated line", "26 characters around the text: My Handbook / © Example Press"),
        (
            "web/a.html",
            "boilerplate",
            "left out",
            "42 characters around the text: We use cookies to improve your experience.",
        ),
    ]
    assert tallies["boilerplate"].notes == {"left out": 2, "repeated line": 1}
    assert tallies["boilerplate"].dropped == {}


@given(lines=st.lists(st.sampled_from(["a", "b", " c", ""]), max_size=12), keep=st.lists(st.booleans(), min_size=12))
def test_removed_lines_are_those_that_went(lines: list[str], keep: list[bool]) -> None:
    kept = [line for line, stays in zip(lines, keep, strict=False) if stays]
    gone = [line for line, stays in zip(lines, keep, strict=False) if not stays]
    removed = sorted(removed_lines("\n".join(lines), "\n".join(kept))) if kept else []
    assert removed == (sorted(line.strip() for line in gone if line.strip()) if kept else [])
