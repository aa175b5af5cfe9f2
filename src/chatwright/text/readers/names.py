"""What a file's name and first bytes say about its format, and how a name is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import PurePath

from chatwright.text.readers.encoding import is_binary
from chatwright.text.readers.json_rows import looks_like_jsonl
from chatwright.text.readers.unit import Refused
from chatwright.text.reasons import Detail

_FORMATS = {
    "txt": "txt text log rst adoc tex org",
    "md": "md markdown mdx rmd",
    "html": "html htm xhtml shtml",
    "pdf": "pdf",
    "docx": "docx docm dotx",
    "csv": "csv",
    "tsv": "tsv tab",
    "jsonl": "jsonl ndjson jsonlines",
    "json": "json",
    "parquet": "parquet",
    "yaml": "yaml yml",
    "conll": "conll bio iob iob2 bmes bioes",
    "zip": "zip",
    "tar": "tar",
}
FORMATS = {suffix: format for format, suffixes in _FORMATS.items() for suffix in suffixes.split()}
COMPRESSIONS = {"gz": "gz", "bz2": "bz2", "xz": "xz", "zst": "zst", "gzip": "gz", "zstd": "zst"}
_SHORT = {
    "tgz": ("tar", "gz"),
    "tbz2": ("tar", "bz2"),
    "tbz": ("tar", "bz2"),
    "txz": ("tar", "xz"),
    "tzst": ("tar", "zst"),
}
# Formats that hold text which is not read: better said than taken for binary rubbish.
UNSUPPORTED = {
    "doc": "save it as docx",
    "rtf": "save it as docx or txt",
    "odt": "save it as docx",
    "xls": "save its sheets as csv",
    "xlsx": "save its sheets as csv",
    "ods": "save its sheets as csv",
    "ppt": "save it as pdf",
    "pptx": "save it as pdf",
    "epub": "convert it to html or txt",
    "mobi": "convert it to html or txt",
    "azw3": "convert it to html or txt",
    "7z": "unpack it first",
    "rar": "unpack it first",
}
# What ChatGPT's export holds beside the conversations: the same once more as a page, and records about the account.
_EXPORT_MARKS = {"chat.html", "message_feedback.json"}
_EXPORT_EXTRAS = _EXPORT_MARKS | {
    "user.json", "user_settings.json", "shared_conversations.json", "model_comparisons.json", "group_chats.json",
    "shopping.json", "sora.json", "export_manifest.json",
}  # fmt: skip
EXPORT_EXTRA = "the conversations are read; this holds them once more, or is about the account"
_CONVERSATIONS = re.compile(r"conversations(-\d+)?\.json")
_MAGIC = (
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"PAR1", "parquet"),
    (b"\x1f\x8b", "gz"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
)


def format_of(name: str) -> tuple[str, str]:
    """(format, compression) by the name alone; format '' where the name says nothing. Raises Refused for UNSUPPORTED."""
    stem, _dot, suffix = name.lower().rpartition(".")
    if not stem:
        return "", ""
    if suffix in _SHORT:
        return _SHORT[suffix]
    if suffix in UNSUPPORTED:
        raise Refused(
            "unsupported format",
            Detail("{suffix} files are not read: {advice}", suffix=suffix, advice=Detail(UNSUPPORTED[suffix])),
        )
    if suffix in COMPRESSIONS:
        inner, _none = format_of(stem.rpartition("/")[2])
        return inner, COMPRESSIONS[suffix]
    return FORMATS.get(suffix, ""), ""


def sniff(head: bytes) -> str:
    """The format of a file whose name says nothing. Raises Refused for binary files."""
    for magic, format in _MAGIC:
        if head.startswith(magic):
            return "docx" if format == "zip" and b"[Content_Types].xml" in head and b"word/" in head else format
    if head[257:262] == b"ustar":
        return "tar"
    if is_binary(head):
        raise Refused("binary")
    start = head[:1024].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    if looks_like_jsonl(head):
        return "jsonl"
    return "txt"


def export_extras(names: Iterable[str]) -> set[str]:
    """Of the files of an archive or folder, those that a ChatGPT export has beside its conversations."""
    by_folder: dict[str, dict[str, str]] = {}
    for name in names:
        folder, _slash, base = name.rpartition("/")
        by_folder.setdefault(folder, {})[base] = name
    extras: set[str] = set()
    for files in by_folder.values():
        if not _EXPORT_MARKS.isdisjoint(files) and any(_CONVERSATIONS.fullmatch(base) for base in files):
            extras.update(files[base] for base in _EXPORT_EXTRAS & files.keys())
    return extras


def shown(name: str | PurePath) -> str:
    """A name as it can be printed: bytes that are no UTF-8, control and formatting characters as escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
