"""Parquet, row group by row group; labels and tags that are numbers get the names that data sets of hubs carry in the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from chatwright.text.readers.columns import listed
from chatwright.text.readers.json_rows import Row
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.unit import Refused, Skipped, out_of_memory
from chatwright.text.reasons import Detail

_BATCH_ROWS = 512


def read_parquet_rows(piece: Piece) -> Iterator[Row | Skipped]:
    """The rows of the row groups from `piece.start` to `piece.end`. Raises Refused."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(piece.seekable())
        groups = list(range(file.num_row_groups))[piece.start : piece.end]
        columns = [
            field.name
            for field in file.schema_arrow
            if not pyarrow.types.is_binary(field.type) and _is_text(field.type)
        ]
        names = label_names(file.schema_arrow.metadata or {})
        if not columns:
            raise Refused(
                "no text column",
                Detail(
                    "its columns are {names}: name the one with the text `text`",
                    names=", ".join(file.schema_arrow.names[:12]),
                ),
            )
        others = [name for name in file.schema_arrow.names if name not in columns]
        if others and piece.start == 0:
            detail = Detail("fields that hold no text: {names}", names=listed(others))
            yield Skipped(piece.source, "", "left out", detail)
        number = sum(file.metadata.row_group(group).num_rows for group in range(piece.start))
        for group in groups:
            n_bytes = file.metadata.row_group(group).total_byte_size
            if n_bytes > 8 * piece.limits.max_file_bytes:
                first = number + 1
                number += file.metadata.row_group(group).num_rows
                yield Skipped(
                    piece.source,
                    f"rows {first} to {number}",
                    "too large",
                    Detail("a row group of {n:,} bytes: write smaller ones", n=n_bytes),
                )
                continue
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield Row(_with_names(_plain(row), names), f"row {number}")
        if number == 0:
            yield Skipped(piece.source, "", "empty")
    except MemoryError:
        raise  # pyarrow's is an ArrowException too
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise Refused(
            "broken parquet",
            Detail("it is damaged ({error}): fetch it again, or open it and save a copy", error=_line(error)),
        ) from error


def row_group_bytes(path: Any) -> list[int]:
    """The unpacked size of each row group. Raises Refused, and InvalidDatasetError when memory runs out."""
    import pyarrow
    from pyarrow import parquet

    try:
        metadata = parquet.read_metadata(path)
        return [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    except MemoryError as error:
        raise out_of_memory(path) from error
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise Refused(
            "broken parquet",
            Detail("it is damaged ({error}): fetch it again, or open it and save a copy", error=_line(error)),
        ) from error


def label_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column → names of its numbers, from the description that Hugging Face's `datasets` writes into the schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {}
        for column, feature in features.items():
            for candidate in (feature, feature.get("feature", {}) if isinstance(feature, dict) else {}):
                if isinstance(candidate, dict) and candidate.get("_type") == "ClassLabel":
                    found[column] = [str(name) for name in candidate["names"]]
        return found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _with_names(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    for column, known in names.items():
        value = row.get(column)
        if isinstance(value, list):
            row[column] = [_name(each, known) for each in value]
        elif column in row:
            row[column] = _name(value, known)
    return row


def _name(value: Any, names: list[str]) -> Any:
    return names[value] if type(value) is int and 0 <= value < len(names) else None if value == -1 else value


def _is_text(kind: Any) -> bool:
    """Whether a column can hold anything that is of use: pictures and vectors are not even read."""
    import pyarrow

    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        return not pyarrow.types.is_floating(kind.value_type) and _is_text(kind.value_type)
    return not (
        pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) or pyarrow.types.is_fixed_size_list(kind)
    )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that are None because another row of the file has them."""
    return {key: _bare(value) for key, value in row.items() if value is not None}


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_bare(each) for each in value]
    return value


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
