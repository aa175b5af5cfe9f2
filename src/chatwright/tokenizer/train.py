"""Trains a byte-level BPE (Sennrich et al. 2016) on the user's own text, with Qwen2's or GPT-2's pre-tokenisation.

The pattern decides what can be exported: llama.cpp and Transformers know these two by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.tokenizer.chat_formats import CHATML
from chatwright.tokenizer.huggingface import read_tokenizer_content
from chatwright.tokenizer.patterns import PRE_TOKENIZERS, byte_level_split
from chatwright.tokenizer.pipeline import Json
from chatwright.tokenizer.save import write_json
from chatwright.tokenizer.special import END_OF_TEXT, END_TOKENS, SPECIAL_TOKENS
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.tokenizer.vocab_size import choose_vocab_size

__all__ = ["Pattern", "TrainedTokenizer", "choose_vocab_size", "train_tokenizer"]

Pattern = Literal["qwen2", "gpt2"]

MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
MAX_VOCAB_SIZE = 2**18

# A pair that occurs once in the whole text teaches a model nothing.
MIN_FREQUENCY = 2
# Every merge walks through the whole of each word that holds it, and a page without blanks is one word.
MAX_WORD_CHARS = 256
_LONG_WORD = re.compile(rf"[^\W\d_]{{{MAX_WORD_CHARS}}}(?=[^\W\d_])")

_GGUF_NAME = {"qwen2": "qwen2", "gpt2": "gpt-2"}


@dataclass(frozen=True)
class TrainedTokenizer:
    """A tokenizer trained here. `content` is its tokenizer.json."""

    content: Json
    pattern: Pattern

    @property
    def vocab_size(self) -> int:
        """Tokens, the control tokens included."""
        return len(self.content["model"]["vocab"]) + len(self.content["added_tokens"])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What encodes and decodes; the same as `load_tokenizer` makes of the saved folder."""
        config = tokenizer_config(self.pattern)
        file = read_tokenizer_content("tokenizer.json", self.content, config, {})
        file.eos_ids |= frozenset(self.end_ids)
        return Tokenizer(file)

    @property
    def end_ids(self) -> list[int]:
        """Every token that ends an answer."""
        return [entry["id"] for entry in self.content["added_tokens"] if entry["content"] in END_TOKENS]

    def save(self, folder: Path) -> None:
        """Write the tokenizer as Transformers reads it, the ChatML template, and which tokens end an answer."""
        folder.mkdir(parents=True, exist_ok=True)
        named = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
        if self.pattern == "qwen2":
            del named["unk_token"]  # every byte is a token
        write_json(folder / "tokenizer.json", self.content)
        write_json(folder / "tokenizer_config.json", tokenizer_config(self.pattern))
        write_json(folder / "special_tokens_map.json", named)
        ids = {entry["content"]: entry["id"] for entry in self.content["added_tokens"]}
        end = ids[END_OF_TEXT]
        ends = {"bos_token_id": end, "eos_token_id": self.end_ids, "pad_token_id": end}
        write_json(folder / "generation_config.json", ends)
        (folder / "chat_template.jinja").write_text(chatml_template(), encoding="utf-8")
        if self.pattern == "gpt2":
            # GPT-2's own files, whose vocabulary holds the control tokens too.
            write_json(folder / "vocab.json", self.content["model"]["vocab"] | ids)
            merges = (f"{a} {b}\n" for a, b in self.content["model"]["merges"])
            (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(merges), encoding="utf-8", newline="\n")


def train_tokenizer(texts: Iterable[str], vocab_size: int, pattern: Pattern = "qwen2") -> TrainedTokenizer:
    """A tokenizer with `vocab_size` tokens, control tokens included, or fewer where the text has no more repeated pairs.

    The same texts in the same order give the same tokenizer, whatever the number of threads. The text of a control token in
    the texts is ordinary text. Raises InvalidDatasetError when there is no text, UsageError for an impossible size.
    """
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise UsageError(
            "A vocabulary has {least} tokens at least (every byte and the control tokens) and {most} at most, not {size}.",
            least=MIN_VOCAB_SIZE,
            most=MAX_VOCAB_SIZE,
            size=vocab_size,
        )
    backend = new_backend(pattern)
    backend.model = BPE()
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        min_frequency=MIN_FREQUENCY,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    n_chars = 0

    def counted() -> Iterator[str]:
        nonlocal n_chars
        for text in texts:
            n_chars += len(text)
            yield from _short_words(_well_formed(text))

    backend.train_from_iterator(counted(), trainer)
    if n_chars == 0:
        raise InvalidDatasetError("There is no text to train a tokenizer on. Give a dataset that has some.")
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    content = json.loads(backend.to_str())
    return TrainedTokenizer(content, pattern)


def new_backend(pattern: Pattern) -> tokenizers.Tokenizer:
    """The pipeline of Qwen2 or GPT-2 around an empty vocabulary."""
    choice = PRE_TOKENIZERS[_GGUF_NAME[pattern]]
    split = byte_level_split(choice)
    if choice.regex is None:
        (split,) = split["pretokenizers"]
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    skeleton: Json = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "NFC"} if choice.nfc else None,
        "pre_tokenizer": split,
        "post_processor": decoder,  # adds nothing; both models have it
        "decoder": decoder,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    return tokenizers.Tokenizer.from_str(json.dumps(skeleton))


def tokenizer_config(pattern: Pattern) -> Json:
    """tokenizer_config.json.

    eos_token is what ends a document, as in Qwen's base models; what else ends an answer is in generation_config.json.
    """
    config: Json = {
        "add_prefix_space": False,
        "additional_special_tokens": [token for token in SPECIAL_TOKENS if token != END_OF_TEXT],
        "bos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "errors": "replace",
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "Qwen2Tokenizer" if pattern == "qwen2" else "GPT2Tokenizer",
        "unk_token": None if pattern == "qwen2" else END_OF_TEXT,
    }
    return config


def chatml_template() -> str:
    """The chat template of models trained here: ChatML, with no system message of its own."""
    return CHATML.source


def _short_words(text: str) -> Iterator[str]:
    """`text`, cut inside words longer than any that is worth a token."""
    start = 0
    for match in _LONG_WORD.finditer(text):
        yield text[start : match.end()]
        start = match.end()
    yield text[start:]


def _well_formed(text: str) -> str:
    """`text` without halves of surrogate pairs, which no UTF-8 holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="ignore").decode()
    return text
