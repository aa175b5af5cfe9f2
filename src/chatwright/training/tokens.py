"""The training text as one file of token ids, so that any row of any size is one read.

    tokens/  train.bin (uint16 or uint32: every document behind its <|endoftext|>, one more at the end)  starts.npy  tokens.json

Rows are read, not mapped: a mapped file counts as memory of the process, and memory limits have killed runs for it (nanoGPT #428).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from chatwright.errors import InvalidDatasetError, StorageError
from chatwright.training.progress import Progress
from chatwright.training.run import publish

IDS, STARTS, DESCRIPTION = "train.bin", "starts.npy", "tokens.json"
_CHUNK_BYTES = 4 << 20

Encode = Callable[[str, int], Sequence[int]]  # (text, number of the document) → its ids, without separator


@dataclass(frozen=True)
class TokensKey:
    """What the file is a function of; another key means that it is made anew."""

    dataset: str
    tokenizer: str
    kinds: tuple[str, ...]
    fim_share: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """As tokens.json holds it."""
        return asdict(self) | {"kinds": list(self.kinds)}


class TokenFile:
    """The ids on disk. `starts`: the position of each document's separator, (n_documents,)."""

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.n_tokens = int(description["n_tokens"])
        self.n_bytes = int(description["n_bytes"])
        self.dtype = np.dtype(description["dtype"])
        self.starts: NDArray[np.int64] = np.load(folder / STARTS, allow_pickle=False)
        self._file = (folder / IDS).open("rb", buffering=0)

    @classmethod
    def open(cls, folder: Path, key: TokensKey) -> Self | None:
        """The file of that key in a folder; None where there is none, or one of another key, cut off or changed."""
        try:
            description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            if description["key"] != key.to_dict():
                return None
            with (folder / IDS).open(
                "rb"
            ) as file:  # one byte that differs is another text, and nothing else would tell
                if hashlib.file_digest(file, "sha256").hexdigest() != description["sha256"]:
                    return None
            tokens = cls(folder, description)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return tokens

    def read(self, start: int, n: int) -> NDArray[np.int64]:
        """`n` ids from `start` on."""
        size = self.dtype.itemsize
        self._file.seek(start * size)
        data = bytearray()
        while len(data) < n * size:
            part = self._file.read(n * size - len(data))
            if not part:
                raise InvalidDatasetError(
                    "{path} was cut off while it was in use. Start the run again.", path=self._file.name
                )
            data += part
        return np.frombuffer(bytes(data), dtype=self.dtype).astype(np.int64)

    def documents(self, start: int, n: int) -> range:
        """The numbers of the documents that `n` ids from `start` on lie in."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, start + n - 1, side="right")) - 1
        return range(max(0, first), min(last, len(self.starts) - 1) + 1)


def write_tokens(
    texts: Iterable[str],
    encode: Encode,
    folder: Path,
    key: TokensKey,
    *,
    separator: int,
    vocab_size: int,
    n_threads: int,
    progress: Progress,
) -> TokenFile:
    """Encodes the texts in their order and writes the file; whole or not at all, so that a killed start begins it again.

    tiktoken and `tokenizers` let go of the GIL, so threads use all cores. Raises InvalidDatasetError when there is no text,
    StorageError.
    """
    temporary = folder.with_name(f".{folder.name}.writing")
    dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    starts: list[int] = []
    n_tokens = n_bytes = 0
    digest = hashlib.sha256()
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with (temporary / IDS).open("wb") as file, ThreadPoolExecutor(n_threads) as pool:
            for chunk, chunk_bytes in _chunks(texts):
                numbers = range(len(starts), len(starts) + len(chunk))
                for ids in pool.map(encode, chunk, numbers):
                    starts.append(n_tokens)
                    data = np.array([separator, *ids], dtype=dtype).tobytes()
                    digest.update(data)
                    file.write(data)
                    n_tokens += len(ids) + 1
                n_bytes += chunk_bytes
                progress.advance(n_bytes)
            data = np.array([separator], dtype=dtype).tobytes()
            digest.update(data)
            file.write(data)
            n_tokens += 1
        if n_tokens == len(starts) + 1:
            raise InvalidDatasetError("The dataset has no text to train on.")
        np.save(temporary / STARTS, np.array(starts, dtype=np.int64), allow_pickle=False)
        description = {
            "key": key.to_dict(),
            "dtype": dtype.name,
            "n_tokens": n_tokens,
            "n_bytes": n_bytes,
            "sha256": digest.hexdigest(),
        }
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        publish(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(
            "The tokens cannot be written to {path}: {reason}. Make room and start again.",
            path=folder,
            reason=error.strerror,
        ) from error
    return TokenFile(folder, description)


def _chunks(texts: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """Some megabytes of texts at a time: enough for all threads, little enough for any memory."""
    chunk: list[str] = []
    n_bytes = 0
    for text in texts:
        chunk.append(text)
        n_bytes += len(text.encode(errors="replace"))
        if n_bytes >= _CHUNK_BYTES:
            yield chunk, n_bytes
            chunk, n_bytes = [], 0
    if chunk:
        yield chunk, n_bytes
