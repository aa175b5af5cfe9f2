"""The token file: every text in its order, found again by position, and made anew when it is of something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chatwright.errors import InvalidDatasetError
from chatwright.training.progress import Silent
from chatwright.training.tokens import TokenFile, TokensKey, write_tokens

KEY = TokensKey("data", "tokenizer", ("documents",), 0.0, 0)
TEXTS = ["ab", "", "cde", "f" * 50]


def write(folder: Path, texts: list[str] = TEXTS, vocab_size: int = 300, n_threads: int = 3) -> TokenFile:
    return write_tokens(
        texts,
        lambda text, number: [ord(char) for char in text],
        folder,
        KEY,
        separator=7,
        vocab_size=vocab_size,
        n_threads=n_threads,
        progress=Silent(),
    )


@pytest.mark.parametrize("vocab_size", [300, 100_000])
def test_texts_stand_behind_their_separators(tmp_path: Path, vocab_size: int) -> None:
    tokens = write(tmp_path / "tokens", vocab_size=vocab_size)
    expected = [number for text in TEXTS for number in (7, *map(ord, text))] + [7]
    assert tokens.n_tokens == len(expected)
    assert tokens.read(0, tokens.n_tokens).tolist() == expected
    assert tokens.read(3, 4).tolist() == expected[3:7]
    assert tokens.dtype == (np.uint16 if vocab_size == 300 else np.uint32)
    assert tokens.n_bytes == sum(map(len, TEXTS))


def test_documents_are_found_by_position(tmp_path: Path) -> None:
    tokens = write(tmp_path / "tokens")
    owner = [number for number, text in enumerate(TEXTS) for _ in range(len(text) + 1)] + [3]
    for start in range(tokens.n_tokens):
        for n in (1, 3, 6):
            if start + n <= tokens.n_tokens:
                assert list(tokens.documents(start, n)) == sorted(set(owner[start : start + n]))


def test_only_the_whole_file_of_the_same_text_is_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    assert TokenFile.open(folder, KEY) is None
    write(folder)
    assert TokenFile.open(folder, KEY) is not None
    assert TokenFile.open(folder, replace(KEY, fim_share=0.5)) is None
    whole = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(whole[:4] + b"\x09" + whole[5:])
    assert TokenFile.open(folder, KEY) is None
    (folder / "train.bin").write_bytes(whole)
    assert TokenFile.open(folder, KEY) is not None
    with (folder / "train.bin").open("r+b") as file:
        file.truncate(8)
    assert TokenFile.open(folder, KEY) is None
    assert write(folder).read(0, 3).tolist() == [7, 97, 98]


def test_no_text_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="no text"):
        write(tmp_path / "tokens", ["", ""])
    assert not (tmp_path / "tokens").exists()
