"""Documents of every format come out as their text, without what is not the text, and with a reason when they do not."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import docx
import pypdf
import pytest
from fpdf import FPDF

from chatwright.text.readers import time_limit
from chatwright.text.readers.pdf import full_width, join_lines
from chatwright.text.readers.unit import Refused
from tests.text.readers.helpers import one, read, read_data, reasons, texts

PROSE = [
    "The lighthouse stands on the northern cape, and its lamp has been lit every evening since the year it was built.",
    "Ships that pass by night keep well away from the rocks, which lie just below the surface when the tide is high.",
    "In autumn the keeper writes the weather into a book, twice a day, and sends a copy of it to the harbour office.",
]


def make_pdf(pages: list[str], header: str = "", footer: bool = False) -> FPDF:
    pdf = FPDF()
    pdf.set_auto_page_break(False)
    pdf.set_font("Helvetica", size=11)
    for number, text in enumerate(pages, 1):
        pdf.add_page()
        if header:
            pdf.cell(0, 8, header, new_x="LMARGIN", new_y="NEXT")
        pdf.multi_cell(0, 6, text, new_x="LMARGIN", new_y="NEXT")
        if footer:
            pdf.set_y(-15)
            pdf.cell(0, 8, f"Page {number} of {len(pages)}")
    return pdf


def page_with_picture(pdf: FPDF) -> None:
    from PIL import Image

    pdf.add_page()
    pdf.image(Image.new("RGB", (64, 64), "grey"), x=10, y=10, w=100)


class TestPdf:
    def test_text_comes_out_in_paragraphs_without_headers_and_page_numbers(self, tmp_path: Path) -> None:
        words = ["alpha", "bravo", "charlie", "delta", "echo"]
        pages = [
            f"{word.title()} begins. {PROSE[at % 3]} {PROSE[(at + 1) % 3]} So it went for {word}.\n\nThus {word} ends."
            for at, word in enumerate(words)
        ]
        make_pdf(pages, header="Annual Report - Northern Cape", footer=True).output(str(tmp_path / "a.pdf"))
        (record,), skipped = read(tmp_path / "a.pdf")
        text = record.payload["text"]
        assert reasons(skipped) == ["repeated line", "repeated line"]
        assert "Annual Report" not in text
        assert "of 5" not in text
        for page in pages:
            for paragraph in page.split("\n\n"):
                assert paragraph in text

    def test_an_encrypted_pdf_is_skipped_and_one_without_a_user_password_is_read(self, tmp_path: Path) -> None:
        buffer = io.BytesIO(bytes(make_pdf(PROSE).output()))
        for name, password in (("locked.pdf", "secret"), ("open.pdf", "")):
            writer = pypdf.PdfWriter(clone_from=buffer)
            writer.encrypt(password, "owner", algorithm="AES-256")
            writer.write(str(tmp_path / name))
        records, skipped = read(tmp_path)
        assert [(entry.source.rpartition("/")[2], entry.reason) for entry in skipped] == [
            ("locked.pdf", "encrypted pdf")
        ]
        assert PROSE[0] in texts(records)[0]

    def test_a_scanned_pdf_is_skipped_and_scanned_pages_are_named(self, tmp_path: Path) -> None:
        scanned = FPDF()
        page_with_picture(scanned)
        scanned.output(str(tmp_path / "scan.pdf"))
        mixed = make_pdf(PROSE[:1])
        page_with_picture(mixed)
        mixed.output(str(tmp_path / "mixed.pdf"))
        records, skipped = read(tmp_path)
        assert len(records) == 1
        assert [(entry.where, entry.reason) for entry in skipped] == [("page 2", "scanned page"), ("", "scanned pdf")]

    def test_chinese_lines_are_joined_without_blanks(self) -> None:
        lines = "\n".join(
            [
                "灯塔矗立在北部的海岬上，自建成以来每",
                "晚都会点亮，夜间经过的船只会远远避开",
                "潮水高涨时隐藏在水面之下的那些礁石群",
                "秋天守塔人每天两次把天气记在本子里。",
            ]
        )
        assert join_lines(lines, full_width([lines])) == lines.replace("\n", "")

    def test_a_word_broken_at_the_end_of_a_line_is_one_word(self) -> None:
        page = "\n".join(
            [*(line[:60] for line in PROSE), "and in the evening the keeper trims the lamp of the light-", "house"]
        )
        assert "lamp of the lighthouse" in join_lines(page, full_width([page]))

    @pytest.mark.parametrize(
        "data", [b"%PDF-1.7\nrubbish", b"%PDF-1.4\n" + b"1 0 obj<</Type/Catalog/Pages 1 0 R>>endobj"]
    )
    def test_a_broken_pdf_is_skipped(self, tmp_path: Path, data: bytes) -> None:
        records, skipped = read_data(tmp_path / "a.pdf", data)
        assert records == []
        assert reasons(skipped)[0] in ("broken pdf", "empty")

    def test_a_pdf_cut_anywhere_never_raises(self, tmp_path: Path) -> None:
        data = bytes(make_pdf(PROSE, header="x", footer=True).output())
        for end in range(0, len(data), max(1, len(data) // 40)):
            read_data(tmp_path / "a.pdf", data[:end])


def save_docx(path: Path, *blocks: str) -> None:
    """A document of these elements of its body, each with `{}` where its namespaces go."""
    from docx.oxml import parse_xml

    names = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
    )
    document = docx.Document()
    for index, xml in enumerate(blocks):
        document.element.body.insert(index, parse_xml(xml.format(names)))
    document.save(str(path))


class TestDocx:
    def test_paragraphs_tables_and_notes_come_out_in_order(self, tmp_path: Path) -> None:
        document = docx.Document()
        document.add_heading("Rules", 1)
        document.add_paragraph("Before the table.")
        table = document.add_table(2, 2)
        for row, cells in enumerate([("Day", "Hours"), ("Monday", "9 to 5")]):
            for column, text in enumerate(cells):
                table.cell(row, column).text = text
        document.add_paragraph("表格之后。")
        document.sections[0].header.paragraphs[0].text = "Confidential"
        document.add_comment(document.paragraphs[1].runs, "Is this so?", "Ann")
        document.save(str(tmp_path / "a.docx"))
        records, skipped = read(tmp_path / "a.docx")
        assert texts(records) == ["Rules\nBefore the table.\nDay\tHours\nMonday\t9 to 5\n表格之后。"]
        assert [(entry.reason, entry.detail) for entry in skipped] == [
            ("left out", "23 characters of headers, footers and comments: Confidential / Is this so?")
        ]

    def test_content_controls_and_insertions_are_read_and_deletions_are_not(self, tmp_path: Path) -> None:
        save_docx(
            tmp_path / "a.docx",
            "<w:sdt {}><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>",
            "<w:p {}><w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del></w:p>",
        )
        assert one(*read(tmp_path / "a.docx")).payload["text"] == "controlled\nnew"

    def test_formulas_are_written_in_a_line(self, tmp_path: Path) -> None:
        def run(text: str) -> str:
            return f"<m:r><m:t>{text}</m:t></m:r>"

        fraction = f"<m:f><m:num>{run('a+b')}</m:num><m:den>{run('2')}</m:den></m:f>"
        square = f"<m:sSup><m:e>{run('x')}</m:e><m:sup>{run('2')}</m:sup></m:sSup>"
        root = f"<m:rad><m:radPr><m:degHide/></m:radPr><m:deg/><m:e>{square}</m:e></m:rad>"
        total = (
            '<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr>'
            f"<m:sub>{run('i=1')}</m:sub><m:sup>{run('n')}</m:sup><m:e>{run('i')}</m:e></m:nary>"
        )
        pair = f"<m:d><m:dPr><m:begChr m:val='['/></m:dPr><m:e>{run('0')}</m:e><m:e>{run('1')}</m:e></m:d>"
        deleted = f"<w:del>{run('gone')}</w:del>"
        save_docx(
            tmp_path / "a.docx",
            f"<w:p {{}}><w:r><w:t>So </w:t></w:r><m:oMath>{fraction}{run('=')}{root}{deleted}</m:oMath></w:p>",
            f"<m:oMathPara {{}}><m:oMath>{total}{pair}</m:oMath></m:oMathPara>",
        )
        assert one(*read(tmp_path / "a.docx")).payload["text"] == "So (a+b)/2=√(x^2)\n∑_(i=1)^n i[0|1)"

    def test_formulas_inside_formulas_take_no_longer_than_their_length(self, tmp_path: Path) -> None:
        depth = 60
        nested = "<m:d><m:e>" * depth + "<m:r><m:t>x</m:t></m:r>" + "</m:e></m:d>" * depth
        save_docx(tmp_path / "a.docx", f"<m:oMathPara {{}}><m:oMath>{nested}</m:oMath></m:oMathPara>")
        assert one(*read(tmp_path / "a.docx")).payload["text"] == "(" * depth + "x" + ")" * depth

    def test_symbols_are_their_characters_and_drawings_are_counted(self, tmp_path: Path) -> None:
        symbols = [("Symbol", "F061"), ("Symbol", "F0A3"), ("Symbol", "62"), ("Arial", "2713"), ("Wingdings", "F0FC")]
        runs = "".join(f'<w:r><w:sym w:font="{font}" w:char="{char}"/></w:r>' for font, char in symbols)
        save_docx(tmp_path / "a.docx", f"<w:p {{}}>{runs}</w:p>")
        records, skipped = read(tmp_path / "a.docx")
        assert texts(records) == ["α≤β✓"]
        assert [(entry.reason, entry.detail) for entry in skipped] == [
            ("left out", "1 symbols of fonts such as Wingdings, for which there is no character")
        ]

    def test_a_broken_docx_is_skipped(self, tmp_path: Path) -> None:
        document = docx.Document()
        document.add_paragraph("Hello " * 500)
        document.save(str(tmp_path / "good.docx"))
        good = (tmp_path / "good.docx").read_bytes()
        (tmp_path / "good.docx").unlink()
        with zipfile.ZipFile(tmp_path / "other.docx", "w") as archive:
            archive.writestr("readme.txt", "no document")
        (tmp_path / "cut.docx").write_bytes(good[: len(good) // 2])
        (tmp_path / "encrypted.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
        (tmp_path / "text.docx").write_text("just text")
        records, skipped = read(tmp_path)
        assert records == []
        assert reasons(skipped) == ["broken docx", "encrypted docx", "broken docx", "broken docx"]

    def test_a_bomb_in_a_docx_is_skipped(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("word/document.xml", bytes(3_000_000))
        assert reasons(read(tmp_path / "a.docx", judged_bytes=1_000_000)[1]) == ["zip bomb"]


class TestHtml:
    PAGE = (
        "<!DOCTYPE html><html><head><title>Cape</title><style>p {{color: red}}</style></head><body>"
        "<nav><ul><li><a href='/'>Home</a></li><li><a href='/about'>About us</a></li></ul></nav>"
        "<script>var tracking = 'evil';</script><main><article><h1>The cape</h1>{}</article></main>"
        "<footer><a href='/imprint'>Imprint</a> Copyright 2024 All rights reserved</footer></body></html>"
    )

    def test_the_main_text_is_kept_and_navigation_and_scripts_are_not(self, tmp_path: Path) -> None:
        page = self.PAGE.format("".join(f"<p>{line}</p>" for line in PROSE))
        records, skipped = read_data(tmp_path / "a.html", page)
        (record,) = records
        assert [(entry.reason, entry.detail) for entry in skipped] == [
            ("left out", "37 of the 315 characters of the page, which stand outside of its main text")
        ]
        assert all(line in record.payload["text"] for line in PROSE)
        assert not any(word in record.payload["text"] for word in ("tracking", "About us", "Imprint", "color"))
        assert (record.markup, record.detected) == ("html", "html, main text")

    def test_an_article_and_comments_that_are_not_kept_are_named_with_their_size(self, tmp_path: Path) -> None:
        comments = "".join(
            f"<li class='comment'><p>I agree with point {n}, and so does my dog.</p></li>" for n in range(40)
        )
        page = f"<p>{'</p><p>'.join(PROSE)}</p></article><section id='comments'><ol>{comments}</ol></section>"
        records, skipped = read_data(tmp_path / "a.html", self.PAGE.format(page))
        (record,) = records
        everything = read_data(tmp_path / "b.html", f"<html><body><main>{comments}</main></body></html>")[0]
        n_comments = len("".join(everything[0].payload["text"].split()))
        assert "my dog" not in record.payload["text"]
        (entry,) = skipped
        assert entry.reason == "left out"
        assert n_comments <= int(entry.detail.split()[0].replace(",", "")) <= n_comments + 60

    def test_a_page_without_a_main_text_gives_all_its_text(self, tmp_path: Path) -> None:
        page = "<html><body><aside>Alpha</aside><footer>Beta</footer><script>x()</script></body></html>"
        record = one(*read_data(tmp_path / "a.html", page))
        assert record.payload["text"].split() == ["Alpha", "Beta"]
        assert record.detected == "html, all text"

    @pytest.mark.parametrize("charset", ["gb2312", "big5", "shift_jis", "utf-8"])
    def test_the_declared_charset_is_believed(self, tmp_path: Path, charset: str) -> None:
        encoding = {"gb2312": "gb18030"}.get(charset, charset)
        page = f"<html><head><meta charset='{charset}'></head><body><p>天地玄黄</p></body></html>"
        if charset == "big5":
            page = page.replace("黄", "黃")
        record = one(*read_data(tmp_path / "a.html", page.encode(encoding)))
        assert record.payload["text"].startswith("天地玄")

    @pytest.mark.parametrize("page", ["", "   ", "<html></html>", "<script>x</script>", "<!-- -->"])
    def test_a_page_without_text_is_named(self, tmp_path: Path, page: str) -> None:
        records, skipped = read_data(tmp_path / "a.html", page)
        assert records == []
        assert reasons(skipped) == ["empty"]

    def test_a_page_nested_without_end_does_not_crash(self, tmp_path: Path) -> None:
        records, skipped = read_data(tmp_path / "a.html", "<div>" * 100_000 + "deep")
        assert len(records) + len(skipped) == 1


class TestText:
    def test_markdown_and_code_are_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text("# Title\n\n- point")
        (tmp_path / "b.py").write_text("print('hello')\n")
        (tmp_path / "Makefile").write_text("all:\n\ttrue\n")
        records, skipped = read(tmp_path)
        assert sorted(texts(records)) == ["# Title\n\n- point", "all:\n\ttrue\n", "print('hello')\n"]
        assert skipped == []

    @pytest.mark.parametrize(
        ("name", "data", "reason"),
        [
            ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "binary"),
            ("a.txt", bytes(range(256)) * 40, "binary"),
            ("model", b"\x7fELF" + bytes(200), "binary"),
            ("empty.txt", b"", "empty"),
            ("blank.txt", b" \n\n \t", "empty"),
            ("old.doc", b"x", "unsupported format"),
            ("sheet.xlsx", b"x", "unsupported format"),
        ],
    )
    def test_what_is_no_text_is_named(self, tmp_path: Path, name: str, data: bytes, reason: str) -> None:
        records, skipped = read_data(tmp_path / name, data)
        assert records == []
        assert reasons(skipped) == [reason]

    def test_a_long_document_is_cut_at_paragraphs_and_nothing_is_lost(self, tmp_path: Path) -> None:
        paragraphs = [f"Paragraph {number}. {PROSE[number % 3]}\n\n" for number in range(200)]
        records, skipped = read_data(tmp_path / "a.txt", "".join(paragraphs), max_document_bytes=2000)
        assert skipped == []
        assert "".join(texts(records)) == "".join(paragraphs)
        assert all(text.endswith("\n\n") and len(text) <= 2000 for text in texts(records))
        assert [record.where for record in records[:3]] == ["part 1", "part 2", "part 3"]

    def test_one_endless_line_is_cut_between_characters(self, tmp_path: Path) -> None:
        for encoding in ("utf-8", "gb18030"):
            text = "天地玄黄宇宙洪荒日月盈昃辰宿列张的一是不了人我在有他" * 400
            records, skipped = read_data(tmp_path / "a.txt", text.encode(encoding), max_document_bytes=1001)
            assert "".join(texts(records)) == text
            assert skipped == []
            assert all(len(part.encode()) <= 1503 for part in texts(records))

    def test_documents_between_separators_stay_apart(self, tmp_path: Path) -> None:
        records, _skipped = read_data(tmp_path / "a.txt", "One.\n<|endoftext|>\nTwo.\n<|endoftext|>\n")
        assert [text.strip() for text in texts(records)] == ["One.", "Two."]
        assert [record.where for record in records] == ["document 1", "document 2"]


class TestSlowFiles:
    """Files that keep a parser busy, within limits of the test's own."""

    # the first alarm may go off within a callback of the collector, where Python only warns; the next one is raised
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_pdf_that_takes_too_long_is_named_and_the_rest_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = pypdf.PdfWriter(clone_from=io.BytesIO(bytes(make_pdf(["Short."]).output())))
        stream = pypdf.generic.DecodedStreamObject()
        stream.set_data(b"BT /F1 12 Tf (slow) Tj ET " * 20_000)
        writer.pages[0][pypdf.generic.NameObject("/Contents")] = writer._add_object(stream.flate_encode())
        writer.write(tmp_path / "slow.pdf")
        (tmp_path / "text.txt").write_text(PROSE[0])
        monkeypatch.setattr(time_limit, "SECONDS", 0.1)
        monkeypatch.setattr(time_limit, "SECONDS_PER_MB", 0.0)
        records, skipped = read(tmp_path)
        assert texts(records) == [PROSE[0]]
        assert reasons(skipped) == ["too slow"]
        assert "save a copy" in skipped[0].detail

    def test_the_limit_ends_with_the_block(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time_limit, "SECONDS", 0.05)
        with time_limit.time_limit(0):
            pass
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass

    def test_what_a_parser_gives_that_catches_everything_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time_limit, "SECONDS", 0.05)

        def parse() -> str:
            try:
                while True:
                    pass
            except Exception:  # noqa: BLE001 — as pypdf does
                return "half of it"

        with pytest.raises(Refused, match="too slow"), time_limit.time_limit(0):
            parse()
