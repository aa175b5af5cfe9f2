"""Tables, parquet and YAML corpora: columns and their meaning are recognised, whatever is broken is named."""

from __future__ import annotations

import json
from pathlib import Path

import chatterbot_corpus
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.text.readers.helpers import dialogue, one, read, read_data, reasons, texts

Q, A = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}
QA = [("user", "Where?"), ("assistant", "There.")]


class TestTables:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    def test_known_columns_make_documents_examples_and_conversations(self, tmp_path: Path, delimiter: str) -> None:
        def table(*lines: tuple[str, ...]) -> str:
            return "\r\n".join(delimiter.join(line) for line in lines) + "\r\n"

        name = "a.tsv" if delimiter == "\t" else "a.csv"
        record = one(*read_data(tmp_path / name, table(("id", "Text"), ("1", "Hello there."))))
        assert (record.payload, record.detected) == ({"text": "Hello there."}, "column 'text'")
        record = one(*read_data(tmp_path / name, table(("text", "label"), ("Good.", "pos"))))
        assert record.payload == {"text": "Good.", "label": "pos"}
        record = one(*read_data(tmp_path / name, table(("Question", "Answer"), ("Where?", "There."))))
        assert dialogue(record) == QA
        record = one(
            *read_data(tmp_path / name, table(("prompt", "chosen", "rejected"), ("Where?", "There.", "Here.")))
        )
        assert record.kind == "preferences"

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize(
        ("first", "delimiter", "name"),
        [
            ("sep=;", ";", "a.csv"),
            ("SEP=,", ",", "a.csv"),
            ('"sep=;"', ";", "a.csv"),
            ("sep=\t", "\t", "a.csv"),
            ("sep=^", "^", "a.csv"),
            ("sep=;", ";", "a.tsv"),
        ],
    )
    def test_excels_line_about_the_separator_is_obeyed_and_no_row(
        self, tmp_path: Path, first: str, delimiter: str, name: str, encoding: str
    ) -> None:
        lines = [first, f"Text{delimiter}Label", f'"One, two"{delimiter}pos', f"three{delimiter}neg"]
        for end in ("\r\n", "\r", "\n"):
            records, skipped = read_data(tmp_path / name, "".join(line + end for line in lines).encode(encoding))
            assert skipped == []
            assert [(record.payload["text"], record.payload["label"], record.where) for record in records] == [
                ("One, two", "pos", "line 3"),
                ("three", "neg", "line 4"),
            ]

    def test_a_line_like_excels_is_text_where_it_is_not_the_first_of_a_table(self, tmp_path: Path) -> None:
        data = "text,label\nsep=;,neg\nThe line sep=; is Excel's.,pos\n"
        assert texts(read_data(tmp_path / "a.csv", data)[0]) == ["sep=;", "The line sep=; is Excel's."]
        assert read_data(tmp_path / "a.txt", "sep=;\nText;Label\n")[0][0].payload["text"].startswith("sep=;")
        assert reasons(read_data(tmp_path / "a.csv", "sep=;\r\n")[1]) == ["empty"]

    def test_quoted_fields_hold_delimiters_and_lines(self, tmp_path: Path) -> None:
        records, skipped = read_data(tmp_path / "a.csv", 'text,label\n"One, two\n\nthree ""four""",a\nfive,b\n')
        assert skipped == []
        assert texts(records) == ['One, two\n\nthree "four"', "five"]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    def test_carriage_returns_alone_end_lines_as_in_excel_for_mac(
        self, tmp_path: Path, delimiter: str, encoding: str
    ) -> None:
        lines = [("text", "label"), ("One, two", "a"), ("five; six\nseven", "b"), ("eight", "c")]
        table = "".join(delimiter.join(f'"{cell}"' for cell in line) + "\r" for line in lines)
        records, skipped = read_data(tmp_path / f"a.{'tsv' if delimiter == chr(9) else 'csv'}", table.encode(encoding))
        assert skipped == []
        assert texts(records) == ["One, two", "five; six\nseven", "eight"]
        assert [(record.where, record.payload["label"]) for record in records] == [
            ("line 2", "a"),
            ("line 3", "b"),
            ("line 4", "c"),
        ]

    def test_lines_that_end_in_a_carriage_return_are_skipped_where_they_are_too_long(self, tmp_path: Path) -> None:
        data = "text,label\rfirst,a\r" + "x" * 50_000 + "\rlast,b\r"
        records, skipped = read_data(tmp_path / "a.csv", data, max_line_bytes=10_000)
        assert texts(records) == ["first", "last"]
        assert [(entry.where, entry.reason) for entry in skipped] == [("line 3", "too long")]

    def test_without_a_known_column_the_longest_texts_are_taken_and_named(self, tmp_path: Path) -> None:
        data = "nr,bemerkung\n" + "".join(f"{n},Das ist eine lange Bemerkung Nummer {n}.\n" for n in range(5))
        records, skipped = read_data(tmp_path / "a.csv", data)
        assert skipped == []
        assert texts(records)[0] == "Das ist eine lange Bemerkung Nummer 0."
        assert {record.detected for record in records} == {"column 'bemerkung'"}
        records, _skipped = read_data(tmp_path / "a.csv", data.partition("\n")[2])
        assert {record.detected for record in records} == {"column 2"}
        assert len(records) == 5

    def test_a_table_without_text_is_named(self, tmp_path: Path) -> None:
        records, skipped = read_data(tmp_path / "a.csv", "x,y\n1,2\n3,4\n")
        assert (records, reasons(skipped)) == ([], ["no text column"])

    def test_a_row_with_too_many_cells_is_named_by_line(self, tmp_path: Path) -> None:
        records, skipped = read_data(tmp_path / "a.csv", "text,label\na,b\nwell, this, is, text,c\nd,e\n")
        assert texts(records) == ["a", "d"]
        assert [(entry.where, entry.reason) for entry in skipped] == [("line 3", "bad row")]

    def test_quotes_in_tab_separated_text_are_just_quotes(self, tmp_path: Path) -> None:
        records, skipped = read_data(tmp_path / "a.tsv", 'text\tlabel\n"Never, he said\tneg\n5" pipe\tpos\nfine\tpos\n')
        assert skipped == []
        assert texts(records) == ['"Never, he said', '5" pipe', "fine"]

    def test_an_endless_line_in_a_table_is_skipped(self, tmp_path: Path) -> None:
        records, skipped = read_data(
            tmp_path / "a.csv", "text\nfirst\n" + "x" * 50_000 + "\nlast\n", max_line_bytes=10_000
        )
        assert texts(records) == ["first", "last"]
        assert [(entry.where, entry.reason) for entry in skipped] == [("line 3", "too long")]


class TestParquet:
    def test_rows_come_from_row_groups_and_pictures_are_not_read(self, tmp_path: Path) -> None:
        table = pa.table({"image": [b"\x89PNG"] * 100, "text": [f"text {n}" for n in range(100)]})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
        records, skipped = read(tmp_path / "a.parquet", split_bytes=300)
        assert [(entry.reason, entry.detail) for entry in skipped] == [("left out", "fields that hold no text: image")]
        assert texts(records) == [f"text {n}" for n in range(100)]
        assert [record.where for record in records] == [f"row {n}" for n in range(1, 101)]

    def test_messages_and_labels_with_the_names_of_a_hub_data_set(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"messages": [[Q, A]], "score": [0.5]}), tmp_path / "a.parquet")
        assert dialogue(one(*read(tmp_path / "a.parquet"))) == QA
        features = {
            "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
            "ner_tags": {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}, "_type": "Sequence"},
        }
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = pa.table({"text": ["Good."], "label": [1]}).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "a.parquet")
        assert one(*read(tmp_path / "a.parquet")).payload == {"text": "Good.", "label": "pos"}
        table = pa.table({"tokens": [["Ada", "sings"]], "ner_tags": [[1, 0]]}).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "a.parquet")
        assert one(*read(tmp_path / "a.parquet")).payload["spans"] == [{"start": 0, "end": 3, "label": "PER"}]

    def test_a_broken_parquet_is_named(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["x" * 100] * 1000}), tmp_path / "a.parquet")
        data = (tmp_path / "a.parquet").read_bytes()
        for end in (3, 50, len(data) // 2, len(data) - 3):
            assert reasons(read_data(tmp_path / "a.parquet", data[:end])[1]) == ["broken parquet"]
        for at in range(4, len(data), max(1, len(data) // 60)):
            read_data(tmp_path / "a.parquet", data[:at] + b"\xff\xff" + data[at + 2 :])


class TestYaml:
    @pytest.mark.parametrize("language", ["english", "chinese", "traditionalchinese", "russian"])
    def test_the_conversations_of_chatterbot_are_read(self, language: str) -> None:
        records, skipped = read(Path(chatterbot_corpus.__file__).parent / "data" / language)
        assert len(records) > 40
        assert {record.detected for record in records} == {"chatterbot"}
        assert all(record.kind == "conversations" and dialogue(record)[1][0] == "assistant" for record in records)
        assert len(skipped) <= len(records) // 20
        assert all(entry.detail or entry.reason for entry in skipped)

    def test_yes_and_numbers_stay_text_and_other_files_stay_text(self, tmp_path: Path) -> None:
        record = one(*read_data(tmp_path / "a.yml", "conversations:\n- - Is it 5?\n  - yes\n  - 5\n"))
        assert dialogue(record) == [("user", "Is it 5?"), ("assistant", "yes"), ("user", "5")]
        assert one(*read_data(tmp_path / "a.yml", "key: value\n")).kind == "documents"

    @pytest.mark.parametrize(
        "data",
        [
            "conversations:\n- - a\n  b: [",
            "a: &a [x]\nconversations: [*a, *a]",
            "conversations: " + "[" * 3000,
            "conversations: !!python/object/apply:os.system [true]",
            "conversations:\n- 5\n- {}\n",
        ],
    )
    def test_bad_yaml_is_named(self, tmp_path: Path, data: str) -> None:
        records, skipped = read_data(tmp_path / "a.yml", data)
        assert all(record.kind == "documents" for record in records)
        assert records or skipped
