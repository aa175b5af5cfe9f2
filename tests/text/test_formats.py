"""What readers call the formats they find is said in the user's language, and is a page where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatwright.text.formats import shown_format
from chatwright.text.manifest import Manifest, Sources
from chatwright.text.report import write_reports
from tests.text.readers.helpers import read, read_data
from tests.text.readers.test_documents import PROSE, make_pdf

PAGE = "<html><body><nav>Menu</nav><article>" + "".join(f"<p>{line}</p>" for line in PROSE) + "</article></body></html>"
TURNS = json.dumps({"dialog": ["Where?", "There."]})
REMARKS = "".join(f"{n},This is the long remark number {n}.\n" for n in range(5))


@pytest.mark.parametrize(
    ("name", "data", "stored", "chinese"),
    [
        ("a.txt", "Hello.", "plain text", "纯文本"),
        ("a.yaml", "key: value", "plain text", "纯文本"),
        ("a.html", PAGE, "html, main text", "HTML，正文"),
        ("a.html", "<html><body><aside>Alpha</aside></body></html>", "html, all text", "HTML，全部文本"),
        ("a.jsonl", '"Hello."\n', "strings", "字符串"),
        ("a.jsonl", TURNS, "list of turns", "轮次列表"),
        ("a.jsonl", json.dumps({"tokens": ["Ada"], "tags": ["B-PER"]}), "tokens and tags", "词元与标签"),
        ("a.jsonl", json.dumps({"text": "Hello."}), "column 'text'", "列 'text'"),
        ("a.jsonl", json.dumps({"title": "A", "body": "B."}), "columns 'title' and 'body'", "列 'title' 和 'body'"),
        ("a.jsonl", json.dumps({"text": "A", "label": "b"}), "columns 'text' and 'label'", "列 'text' 和 'label'"),
        ("a.csv", "nr,{n} or 7\n" + REMARKS, "column '{n} or 7'", "列 '{n} or 7'"),
        ("a.csv", REMARKS, "column 2", "第 2 列"),
        ("a.jsonl", json.dumps({"instruction": "Where?", "output": "There."}), "alpaca", "alpaca"),
    ],
)
def test_the_name_of_a_format_is_stored_in_english_and_shown_in_the_language_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: str, stored: str, chinese: str
) -> None:
    records, _skipped = read_data(tmp_path / name, data)
    assert {record.detected for record in records} == {stored}
    for language, expected in (("en", stored), ("zh", chinese)):
        monkeypatch.setenv("CHATWRIGHT_LANGUAGE", language)
        assert shown_format(stored) == expected


@pytest.mark.parametrize(
    ("n_pages", "stored", "chinese"), [(1, "pdf, 1 page", "PDF，1 页"), (3, "pdf, 3 pages", "PDF，3 页")]
)
def test_a_pdf_of_one_page_has_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_pages: int, stored: str, chinese: str
) -> None:
    make_pdf(PROSE[:1] * n_pages).output(str(tmp_path / "a.pdf"))
    (record,), _skipped = read(tmp_path)
    assert record.detected == stored
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    assert shown_format(stored) == chinese


def test_reports_show_the_formats_in_the_language_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    write_reports(tmp_path, Manifest(sources=Sources(detected={"plain text": 3, "column 2": 2, "sharegpt": 1})))
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| 纯文本 | 3 |" in report
    assert "| 第 2 列 | 2 |" in report
    assert "| sharegpt | 1 |" in report
    assert "<td>第 2 列</td>" in (tmp_path / "report.html").read_text(encoding="utf-8")
