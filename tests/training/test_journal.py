"""Events and metrics survive being cut off anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from chatwright.training.journal import Journal


@given(cut=st.integers(0, 200))
def test_a_torn_line_is_cut_off_and_the_file_goes_on(cut: int) -> None:
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "events.jsonl")
        for number in range(5):
            journal.append({"n": number, "text": "行\n"})
        whole = journal.path.read_bytes()
        torn = whole[: min(cut, len(whole))]
        journal.path.write_bytes(torn)
        kept = torn.count(b"\n")
        assert [entry["n"] for entry in journal.read()] == list(range(kept))
        journal.repair()
        journal.append({"n": 99})
        assert [entry["n"] for entry in journal.read()] == [*range(kept), 99]
        assert journal.path.read_bytes().startswith(torn[: torn.rfind(b"\n") + 1])


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.append({"loss": float("nan"), "norm": [float("inf"), 1.5]})
    line = journal.path.read_text()
    assert json.loads(line, parse_constant=lambda name: 1 / 0) == {"loss": None, "norm": [None, 1.5]}


def test_there_is_no_file_before_the_first_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.repair()
    assert list(journal.read()) == []
