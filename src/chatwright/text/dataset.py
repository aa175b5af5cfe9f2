"""A dataset on disk: opened, checked and read row by row; and a small writer of datasets from rows in memory."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from chatwright import __version__
from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.text.language import detect_language
from chatwright.text.manifest import (
    KINDS,
    MANIFEST_FILE,
    SPLITS,
    Contents,
    Kind,
    Manifest,
    Shard,
    Split,
    fingerprint,
    read_manifest,
)
from chatwright.text.rows import row_text

Row = dict[str, Any]
_EMPTY = Contents()


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset. Rows are `{"id", "source", "language", "cluster", **payload}` (see `chatwright.text.rows`)."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """Read the manifest and check that every shard is there with its size.

        Raises InvalidDatasetError. `verify` reads the shards too.
        """
        dataset = cls(Path(path), read_manifest(Path(path)))
        for shard in dataset._all_shards():
            file = dataset.path / shard.name
            try:
                size_bytes = file.stat().st_size
            except OSError as error:
                raise InvalidDatasetError(
                    "{path} is missing or cannot be read: prepare the dataset again.", path=file
                ) from error
            if size_bytes != shard.size_bytes:
                raise InvalidDatasetError(
                    "{path} was changed or cut off ({found} bytes instead of {expected}): prepare the dataset again.",
                    path=file,
                    found=size_bytes,
                    expected=shard.size_bytes,
                )
        return dataset

    @property
    def fingerprint(self) -> str:
        """SHA-256 of kinds and shards: changes exactly when rows change."""
        return self.manifest.fingerprint

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of rows that the dataset has, in a fixed order."""
        return tuple(kind for kind in KINDS if kind in self.manifest.kinds)

    def verify(self, kinds: Iterable[Kind] | None = None) -> None:
        """Read the shards of some kinds (all by default) and compare their SHA-256, and the fingerprint.

        An edit that keeps a file's size is seen only here. Raises InvalidDatasetError.
        """
        for shard in self._all_shards(kinds):
            file = self.path / shard.name
            try:
                with file.open("rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                raise InvalidDatasetError(
                    "{path} is missing or cannot be read: prepare the dataset again.", path=file
                ) from error
            if found != shard.sha256:
                raise _changed(file)
        if fingerprint(self.manifest.kinds) != self.manifest.fingerprint:
            raise _changed(self.path / MANIFEST_FILE)

    def contents(self, split: Split, kind: Kind) -> Contents:
        """What the manifest says of the rows of one kind in one split; zeros where there are none."""
        return self.manifest.kinds.get(kind, {}).get(split, _EMPTY)

    def n_rows(self, split: Split, kind: Kind) -> int:
        """Number of rows."""
        return self.contents(split, kind).rows

    def n_bytes(self, split: Split, kind: Kind) -> int:
        """UTF-8 bytes of the rows' texts."""
        return self.contents(split, kind).bytes

    def languages(self, split: Split, kind: Kind) -> dict[str, int]:
        """UTF-8 bytes of the rows' texts by language, the largest first."""
        languages = self.contents(split, kind).languages
        return dict(sorted(languages.items(), key=lambda item: (-item[1], item[0])))

    def rows(self, split: Split, kind: Kind) -> Iterator[Row]:
        """The rows in their order, read as they are asked for. Raises InvalidDatasetError for a damaged one."""
        for shard in self.contents(split, kind).shards:
            file = self.path / shard.name
            with file.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    try:
                        yield orjson.loads(line)
                    except orjson.JSONDecodeError as error:
                        raise InvalidDatasetError(
                            "{path}, line {line}, is damaged: prepare the dataset again.", path=file, line=number
                        ) from error

    def texts(self, split: Split, kinds: Iterable[Kind] | None = None) -> Iterator[str]:
        """The plain text of each row, for training a tokenizer. `kinds`: all by default."""
        for kind in self.kinds if kinds is None else kinds:
            for row in self.rows(split, kind):
                yield row_text(kind, row)

    def _all_shards(self, kinds: Iterable[Kind] | None = None) -> Iterator[Shard]:
        for kind in self.kinds if kinds is None else kinds:
            for contents in self.manifest.kinds.get(kind, {}).values():
                yield from contents.shards


def _changed(file: Path) -> InvalidDatasetError:
    return InvalidDatasetError(
        "{path} was changed after the dataset was prepared. Put the old file back, or prepare the dataset again.",
        path=file,
    )


class ShardWriter:
    """Writes rows of one kind and split into one shard, and counts them. `close` says what was written."""

    def __init__(self, folder: Path, name: str, kind: Kind) -> None:
        self.name, self.kind = name, kind
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        self.stream: IO[bytes] = file.open("wb")
        self.digest = hashlib.sha256()
        self.rows = self.bytes = self.size_bytes = 0
        self.languages: Counter[str] = Counter()

    def write(self, row: Mapping[str, Any], n_bytes: int | None = None) -> None:
        """Append a row. `n_bytes`: the UTF-8 bytes of its text, where they are known."""
        if n_bytes is None:
            n_bytes = len(row_text(self.kind, row).encode())
        self.write_line(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE), n_bytes, row["language"])

    def write_line(self, line: bytes, n_bytes: int, language: str) -> None:
        """Append a row that is a line of JSON already."""
        self.stream.write(line)
        self.digest.update(line)
        self.rows += 1
        self.bytes += n_bytes
        self.size_bytes += len(line)
        self.languages[language] += n_bytes

    def close(self) -> Contents:
        """Close the file."""
        self.stream.close()
        shard = Shard(name=self.name, rows=self.rows, size_bytes=self.size_bytes, sha256=self.digest.hexdigest())
        languages = dict(sorted(self.languages.items()))
        return Contents(rows=self.rows, bytes=self.bytes, languages=languages, shards=(shard,))


def shard_name(kind: Kind, split: Split, number: int) -> str:
    """`documents/train-00000.jsonl`."""
    return f"{kind}/{split}-{number:05d}.jsonl"


def write_dataset(path: str | Path, rows: Mapping[Kind, Mapping[Split, Iterable[Mapping[str, Any]]]]) -> Dataset:
    """Write rows in memory as a dataset: for tests, examples, and rows that other programs made.

    Fields that are missing are filled in: `id` and `cluster` by counting (every row its own cluster), `source` empty, `language`
    detected. Nothing is cleaned. Raises UsageError when something already lies at `path`.
    """
    path = Path(path)
    if path.exists():
        raise UsageError("{path} exists already: choose another folder, or remove it first.", path=path)
    temporary = path.with_name(f".{path.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    kinds: dict[Kind, dict[Split, Contents]] = {}
    n_clusters = 0
    for kind in KINDS:
        for split in SPLITS:
            writer = None
            for payload in rows.get(kind, {}).get(split, ()):
                if writer is None:
                    writer = ShardWriter(temporary, shard_name(kind, split, 0), kind)
                filled = {
                    "id": f"{kind}-{n_clusters}",
                    "source": "",
                    "language": payload.get("language") or detect_language(row_text(kind, payload)),
                    "cluster": n_clusters,
                }
                writer.write(filled | dict(payload))
                n_clusters += 1
            if writer is not None:
                kinds.setdefault(kind, {})[split] = writer.close()
    manifest = Manifest(created_by=f"chatwright {__version__}", kinds=kinds, fingerprint=fingerprint(kinds))
    (temporary / MANIFEST_FILE).write_bytes(manifest.to_json())
    temporary.rename(path)
    return Dataset.open(path)
