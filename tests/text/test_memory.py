"""Memory that runs out while a file is read stops the preparation with a sentence: a good file is never called broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow
import pytest

from chatwright.errors import InvalidDatasetError
from chatwright.text.pool import Pool
from chatwright.text.prepare import prepare
from chatwright.text.readers import Limits, Unit, find_units, read_unit


def starve(*_args: Any, **_kwargs: Any) -> Any:
    raise MemoryError


def starve_arrow(*_args: Any, **_kwargs: Any) -> Any:
    raise pyarrow.ArrowMemoryError("malloc of size 1024 failed")


def read_starved(unit: Unit) -> int:
    """For a worker process."""
    with patch("chatwright.text.readers.read.reader_of", lambda _format: starve):
        return len(list(read_unit(unit, Limits())))


@pytest.mark.parametrize(
    ("name", "parser", "failure"),
    [
        ("a.pdf", "pypdf.PdfReader", starve),
        ("a.docx", "chatwright.text.readers.word.zip_members", starve),
        ("a.html", "chatwright.text.readers.web.plain_text", starve),
        ("a.html", "trafilatura.extract", starve),
        ("a.parquet", "pyarrow.parquet.ParquetFile", starve_arrow),
    ],
)
def test_no_reader_calls_a_file_broken_when_memory_runs_out(
    tmp_path: Path, name: str, parser: str, failure: Any
) -> None:
    path = tmp_path / name
    path.write_text("<html><body><p>Some text.</p></body></html>")
    unit = Unit(name, path, path.suffix[1:], size_bytes=path.stat().st_size)
    with patch(parser, failure), pytest.raises(InvalidDatasetError, match=rf"{name}\. .*--workers"):
        list(read_unit(unit, Limits()))


def test_prepare_says_which_file_it_was_and_goes_on_later(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("The wind had dropped by the time we reached the harbour.\n")
    with (
        patch("chatwright.text.readers.read.reader_of", lambda _format: starve),
        pytest.raises(InvalidDatasetError, match=r"notes/a\.txt"),
    ):
        prepare([tmp_path / "notes"], tmp_path / "data", workers=1)
    assert prepare([tmp_path / "notes"], tmp_path / "data", workers=1).n_rows("train", "documents") == 1


def test_the_sentence_comes_back_from_a_worker_process(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    units, _skipped = find_units([tmp_path / "a.txt"], Limits())
    with Pool(2) as pool, pytest.raises(InvalidDatasetError, match=r"a\.txt.*--workers"):
        list(pool.run(read_starved, units * 2))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_memory_that_runs_out_elsewhere_is_a_sentence_too(n_workers: int) -> None:
    with Pool(n_workers) as pool, pytest.raises(InvalidDatasetError, match="--workers"):
        list(pool.run(starve, [1, 2]))
