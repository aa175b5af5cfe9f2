"""The manifest: the small JSON file of a dataset that says what is in it, where it came from and what was done to it.

It holds no dates and no absolute paths, so that the same input and the same options give the same bytes.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chatwright.errors import InvalidDatasetError

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1
_MAX_MANIFEST_BYTES = 64 << 20  # other programs call large files manifest.json too

Kind = Literal["documents", "conversations", "preferences", "labelled", "tagged"]
Split = Literal["train", "held_out"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SPLITS: tuple[Split, ...] = get_args(Split)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Shard(_Part):
    """One .jsonl file. `name` is relative to the dataset, e.g. `documents/train-00000.jsonl`."""

    name: str = Field(pattern=r"^[a-z_]+/[a-z_]+-\d{5}\.jsonl$")
    rows: int = Field(ge=0)
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Contents(_Part):
    """The rows of one kind in one split. `bytes` counts the UTF-8 bytes of their texts, also by language."""

    rows: int = 0
    bytes: int = 0
    languages: dict[str, int] = {}
    shards: tuple[Shard, ...] = ()


class Step(_Part):
    """What one step of the preparation did. Bytes are UTF-8 bytes of text; `dropped` counts by reason."""

    name: str
    rows_in: int = 0
    rows_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    changed: int = 0
    dropped: dict[str, int] = {}
    notes: dict[str, int] = {}


class Sources(_Part):
    """Where the rows came from. The single files are listed in `sources.jsonl`, whose hash is here."""

    inputs: tuple[str, ...] = ()
    units: int = 0
    size_bytes: int = 0
    detected: dict[str, int] = {}
    sha256: str = ""


class Manifest(_Part):
    """Everything about a dataset but its rows."""

    format: int = FORMAT_VERSION
    created_by: str = ""
    fingerprint: str = ""
    kinds: dict[Kind, dict[Split, Contents]] = {}
    options: dict[str, Any] = {}
    sources: Sources = Sources()
    steps: tuple[Step, ...] = ()
    clusters: dict[str, int] = {}
    temporary_bytes: int = 0  # what the preparation needed on disk besides the dataset

    def to_json(self) -> bytes:
        """Indented JSON, the same bytes for equal manifests."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def fingerprint(kinds: Mapping[Kind, Mapping[Split, Contents]]) -> str:
    """SHA-256 over kinds, splits and the shards' hashes: changes exactly when a row, or the order of rows, changes."""
    digest = hashlib.sha256()
    for kind in KINDS:
        for split in SPLITS:
            contents = kinds.get(kind, {}).get(split)
            for shard in contents.shards if contents else ():
                digest.update(f"{kind} {split} {shard.rows} {shard.sha256}\n".encode())
    return digest.hexdigest()


def kinds_of_dataset(folder: Path) -> list[str] | None:
    """The kinds of rows of the dataset that `folder` is, of whatever version of Chatwright; None where it is no dataset.

    Other programs have a manifest.json too, so that what it says decides.
    """
    path = folder / MANIFEST_FILE
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_MANIFEST_BYTES:
            return None
        raw = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("format"), int) or not isinstance(raw.get("kinds"), dict):
        return None
    is_ours = str(raw.get("created_by")).startswith("chatwright ") and isinstance(raw.get("fingerprint"), str)
    return list(raw["kinds"]) if is_ours else None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a dataset. Raises InvalidDatasetError where there is none, or one that cannot be read."""
    path = folder / MANIFEST_FILE
    try:
        raw = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.exists():
            raise InvalidDatasetError(
                "{path} is no dataset: it has no manifest.json. `chatwright prepare {path} --out DATASET` makes one of it.",
                path=folder,
            ) from error
        raise InvalidDatasetError(
            "There is no dataset at {path}: `chatwright prepare INPUT --out {path}` makes one.", path=folder
        ) from error
    except (OSError, orjson.JSONDecodeError) as error:
        raise InvalidDatasetError(
            "{path} cannot be read ({reason}): prepare the dataset again.", path=path, reason=error
        ) from error
    version = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InvalidDatasetError(
            "{path} was made by a newer Chatwright (format {version}, this one reads {known}): update Chatwright.",
            path=folder,
            version=version,
            known=FORMAT_VERSION,
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InvalidDatasetError(
            "{path} is damaged (at {where}): prepare the dataset again.", path=path, where=where or "/"
        ) from error
