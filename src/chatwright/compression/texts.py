"""The texts of a compression: what it is calibrated on, and what it is measured on, which is never the same.

Of a dataset those are the training and the held-out split. A plain file is cut into pieces at its paragraphs; where it is for both,
its last fifth is held out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from chatwright.errors import InvalidDatasetError
from chatwright.evaluation.documents import EncodedDocument, document_boundary, encode_documents
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Split
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.training.stats import TEXT_KINDS

WINDOW_TOKENS = 512
WINDOWS_A_DOCUMENT = 2  # so that one long document is not all that is seen
PIECE_CHARS = 2000
HELD_OUT_SHARE = 0.2
SEED = 0


def calibration_texts(path: Path, text: Path | None = None) -> list[str]:
    """What may be learned from. `text`: what is measured on, where that is not held out of this. Raises InvalidDatasetError."""
    if path.is_dir():
        return _shuffled(_of_dataset(path, "train"))
    whole = _read(path)
    return _shuffled(list(_pieces(whole[: _held_out_from(whole)] if text is None or _same(path, text) else whole)))


def held_out_texts(path: Path, calibration: Path | None) -> list[str]:
    """What is measured on. `calibration`: what was learned from; nothing of that. Raises InvalidDatasetError."""
    if path.is_dir():
        return _shuffled(_of_dataset(path, "held_out"))
    whole = _read(path)
    same = calibration is not None and _same(path, calibration)
    return list(_pieces(whole[_held_out_from(whole) :] if same else whole))


def calibration_windows(texts: Sequence[str], path: Path, tokenizer: Tokenizer, context_length: int, n: int) -> Tensor:
    """At most `n` rows of ids, (N, T). Raises InvalidDatasetError when there is not enough text for one."""
    length = min(WINDOW_TOKENS, context_length)
    if not any(text.strip() for text in texts):
        raise InvalidDatasetError("{path} has no text to calibrate on.", path=path)
    separator = document_boundary(tokenizer)
    ids: list[int] = []
    for text in texts:
        # no more than is used of it: tokens have at most a few dozen characters, so this is plenty
        body = tokenizer.encode(text[: 16 * WINDOWS_A_DOCUMENT * length], add_special_tokens=False)
        ids += [separator, *body[: WINDOWS_A_DOCUMENT * length - 1]]
        if len(ids) >= n * length:
            break
    n_windows = min(n, len(ids) // length)
    if n_windows == 0:
        raise InvalidDatasetError(
            "{path} has {found} tokens of text, less than one window of {needed}. Calibrate on more text.",
            path=path,
            found=len(ids),
            needed=length,
        )
    return torch.tensor(ids[: n_windows * length]).view(n_windows, length)


def held_out_documents(texts: Sequence[str], tokenizer: Tokenizer, most_bytes: int) -> list[EncodedDocument]:
    """Documents to score, the first of them that have `most_bytes` together; the last one is cut to fit."""
    boundary = document_boundary(tokenizer)
    documents: list[EncodedDocument] = []
    left = most_bytes
    for text in texts:
        if left <= 0:
            break
        cut = text.encode()[:left].decode(errors="ignore")
        documents += encode_documents(tokenizer, [cut], start_id=boundary, end_id=boundary)
        left -= len(text.encode())
    return documents


def _of_dataset(path: Path, split: Split) -> list[str]:
    dataset = Dataset.open(path)
    kinds = tuple(kind for kind in TEXT_KINDS if dataset.n_rows(split, kind))
    return list(dataset.texts(split, kinds))


def _same(path: Path, other: Path) -> bool:
    return other.is_file() and other.samefile(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidDatasetError("There is no dataset or text file {path}.", path=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDatasetError(
            "{path} cannot be read as UTF-8 text. Give a text file, or a dataset that `chatwright prepare` made.",
            path=path,
        ) from error


def _held_out_from(text: str) -> int:
    """Where the last fifth begins: at the next paragraph, line or word, unless that would leave less than a tenth.

    Of the characters, not of the pieces: a short text has too few of those for a fifth.
    """
    n_chars = len(text.rstrip())
    at = int(n_chars * (1 - HELD_OUT_SHARE))
    for mark in ("\n\n", "\n", " "):
        if (found := text.find(mark, at, (at + n_chars) // 2)) >= 0:
            return found + len(mark)
    return at


def _pieces(text: str) -> Iterator[str]:
    piece: list[str] = []
    n_chars = 0
    for line in text.splitlines(keepends=True):
        piece.append(line)
        n_chars += len(line)
        if n_chars >= PIECE_CHARS and (not line.strip() or n_chars >= 2 * PIECE_CHARS):
            yield "".join(piece)
            piece, n_chars = [], 0
    if "".join(piece).strip():
        yield "".join(piece)


def _shuffled(texts: list[str]) -> list[str]:
    random.Random(SEED).shuffle(texts)  # noqa: S311 — the same for every run
    return texts
