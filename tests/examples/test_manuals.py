"""Manual pages become prose, and the manuals' script says what to do where there is no apt."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from examples.manuals import Manual, UnavailableError, download, main, pages
from examples.roff import roff_to_text

MAN = r"""'\" t
.\" a comment
.TH LS 1 "2020" GNU
.SH NAME
ls \- list
directory\ contents
.SH "SEE ALSO"
.BR stat (2)
and
.UR https://example.org
.UE .
.TP
.BI \-\-sort= WORD
\fBbold\fP and \f(CWcode\fP, 5\(mu3, \(lqquoted\(rq
.nf
  kept   as
    it is
.fi
.de XX
dropped
..
中文的
断行
"""


def test_a_manual_page_becomes_paragraphs() -> None:
    assert roff_to_text(MAN).splitlines() == [
        "LS(1)",
        "NAME",
        "ls - list directory contents",
        "SEE ALSO",
        "stat(2) and https://example.org .",
        "--sort=WORD",
        "bold and code, 5×3, “quoted”",
        "  kept   as",
        "    it is",
        "中文的断行",
    ]


def test_an_mdoc_page_reads_as_a_synopsis() -> None:
    page = ".Dd 2020\n.Dt CP 1\n.Sh NAME\n.Nm cp\n.Nd copy\n.Sh SYNOPSIS\n.Nm\n.Op Fl v Ar level\n.Ar file ...\n.Xr scp 1 .\n"
    assert roff_to_text(page).splitlines() == ["CP(1)", "NAME", "cp copy", "SYNOPSIS", "cp [-v level] file ... scp(1)."]


def test_an_alias_of_another_page_has_no_text() -> None:
    assert roff_to_text(".so man1/other.1\n") == ""


def test_pages_are_taken_as_html_or_rendered(tmp_path: Path) -> None:
    man = tmp_path / "usr/share/man/zh_CN/man1"
    man.mkdir(parents=True)
    (man / "ls.1.gz").write_bytes(gzip.compress(MAN.encode()))
    (man / "dir.1.gz").symlink_to("ls.1.gz")
    html = tmp_path / "usr/share/doc/faq"
    html.mkdir(parents=True)
    (html / "a.html").write_text("<p>hi")
    (html / "a.png").write_bytes(b"png")
    assert [name for name, _ in pages(tmp_path, Manual("manpages-zh", "zh", "usr/share/man/zh_CN"))] == [
        "man1_ls.1.txt"
    ]
    assert list(pages(tmp_path, Manual("faq", "en", "usr/share/doc/faq"))) == [("a.html", b"<p>hi")]


def test_without_apt_it_says_where_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="any folder of documents"):
        download(["debian-faq"], tmp_path)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="exists already"):
        main([str(tmp_path)])
