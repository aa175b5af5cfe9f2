"""What readers are asked for and what they answer: units, records, what was skipped, and the limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chatwright.errors import InvalidDatasetError
from chatwright.text.manifest import Kind


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader holds in memory, and how far it follows an archive."""

    max_document_bytes: int = 1 << 20  # a longer document is cut into parts, at paragraphs where it can
    max_line_bytes: int = 16 << 20  # a longer row is skipped
    max_file_bytes: int = 256 << 20  # of formats that are read whole: pdf, docx, html, yaml
    split_bytes: int = 32 << 20  # larger files become several units
    max_archive_bytes: int = 1 << 40  # of an archive's members together, unpacked
    max_archive_members: int = 1_000_000
    max_archive_ratio: int = 200  # unpacked : packed, judged from `judged_bytes` unpacked on
    judged_bytes: int = 64 << 20
    max_archive_depth: int = 3  # archives inside archives


@dataclass(frozen=True, slots=True)
class Unit:
    """What one worker reads on its own: a file, a member of an archive, or a range of a large file.

    `source` is how the user knows it ("notes.zip!/a/b.md"); the ranges of one file share it, (source, start) is unique.
    `start`, `end`: bytes of `path`, aligned at line starts; row groups of a parquet file; a zip member's header.
    """

    source: str
    path: Path
    format: str  # "txt", "md", "html", "pdf", "docx", "csv", "tsv", "jsonl", "json", "parquet", "yaml", "conll", "tar.gz", …
    member: str | None = None
    start: int = 0
    end: int | None = None
    size_bytes: int = 0
    container: Literal["", "zip", "tar"] = ""  # what `path` is, when this is a member of it
    compression: Literal["", "gz", "bz2", "xz", "zst"] = ""  # around the file or member
    first_line: int = 1  # number of the line at `start`
    checksum: int | None = None  # CRC-32 of a zip member

    @property
    def key(self) -> str:
        """Unique and stable: the source, with the place of a range."""
        is_range = not self.container and (self.start > 0 or self.end is not None)
        return f"{self.source}#{self.start}" if is_range else self.source


@dataclass(frozen=True, slots=True)
class Record:
    """One document or example, as it was found.

    `payload`: documents {"text"}; conversations {"messages": [{"role", "content"}, …]} and perhaps {"tools"}; preferences
    {"messages", "chosen": [message, …], "rejected": [message, …]}; labelled {"text", "label"}; tagged {"text", "spans":
    [{"start", "end", "label"}, …]} in characters. Messages may carry "weight", "name", "tool_calls", "tool_call_id".
    """

    kind: Kind
    payload: dict[str, Any]
    where: str = ""  # inside the unit: "line 17", "part 3"
    detected: str = "plain text"  # the format that was recognised: "openai-messages", "column 'text'", … (`formats`)
    markup: str = ""  # "html" when the reader stripped it
    encoding: str = "utf-8"
    n_undecodable: int = 0  # bytes or characters that no encoding explained: U+FFFD in their place, or dropped (NUL)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not read. Never silent: `reason` is a short code, `detail` a sentence or ''."""

    source: str
    where: str
    reason: str
    detail: str = ""


class Refused(Exception):  # noqa: N818 — no error: it becomes a Skipped
    """Inside the readers: this unit, or the rest of it, cannot be read."""

    def __init__(self, reason: str, detail: str = "", where: str = "") -> None:
        super().__init__(reason, detail, where)
        self.reason = reason
        self.detail = detail
        self.where = where


def out_of_memory(source: object) -> InvalidDatasetError:
    """The sentence for a file that there was not enough memory for: it may be a good one, so that it is not left out."""
    return InvalidDatasetError(
        "Memory ran out while reading {source}. Run the same command again with fewer --workers, or with more memory: it goes "
        "on where it stopped. If that does not help, the file may be broken: leave it out.",
        source=source,
    )
