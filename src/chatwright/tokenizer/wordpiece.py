"""BERT's tokenizer (WordPiece, Schuster & Nakajima 2012), read from tokenizer.json or vocab.txt: for encoders only.

Built anew in the `tokenizers` library from the parts that are understood; a file with any other part is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from chatwright.errors import InvalidModelError
from chatwright.tokenizer.huggingface import read_json
from chatwright.tokenizer.pipeline import check_vocab

MAX_VOCAB_BYTES = 1 << 26
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Pieces:
    """A text, or a pair of them, as an encoder reads it, [CLS] and [SEP] included.

    `types`: 0 for the first text and its marks, 1 for the second. `offsets`: of each token, the characters (start, end) of its
    text that it stands for; (0, 0) for [CLS] and [SEP].
    """

    ids: list[int]
    types: list[int]
    offsets: list[tuple[int, int]]


class WordPiece:
    """Text → pieces. `pad_id` fills rows of a batch."""

    def __init__(self, tokenizer: Tokenizer, pad_id: int) -> None:
        self._tokenizer = tokenizer
        self.pad_id = pad_id
        self.vocab_size: int = tokenizer.get_vocab_size()

    def encode(self, text: str, pair: str | None = None) -> Pieces:
        """The pieces of a text, or of two."""
        encoding = self._tokenizer.encode(text, pair)
        return Pieces(list(encoding.ids), list(encoding.type_ids), list(encoding.offsets))

    def ids(self, text: str) -> list[int]:
        """The ids of a text alone."""
        # a batch of one: only that releases the GIL, which a megabyte would hold for a second
        ids: list[int] = self._tokenizer.encode_batch_fast([text])[0].ids
        return ids

    def piece(self, token_id: int) -> str | None:
        """How the vocabulary writes a token; None for an id that it has not."""
        return self._tokenizer.id_to_token(token_id)

    def id_of(self, piece: str) -> int | None:
        """The id of what the vocabulary writes so."""
        return self._tokenizer.token_to_id(piece)


def load_wordpiece(folder: Path, max_tokens: int | None = None) -> WordPiece:
    """The tokenizer of a BERT folder, which cuts texts to `max_tokens` (at least 3): of a pair the longer one first.

    Raises InvalidModelError when it is broken or of another kind.
    """
    tokenizer, pad_id = _read(folder)
    if max_tokens is not None:
        tokenizer.enable_truncation(max_tokens, strategy="longest_first")
    return WordPiece(tokenizer, pad_id)


def _read(folder: Path) -> tuple[Tokenizer, int]:
    """The library's tokenizer, and the id of padding."""
    path = folder / "tokenizer.json"
    if path.is_file():
        content = read_json(path)
        model = content.get("model")
        if not isinstance(model, dict) or model.get("type", "WordPiece") != "WordPiece":
            raise InvalidModelError("{source} holds no WordPiece tokenizer, as an encoder needs.", source=str(path))
        normalizer = content.get("normalizer")
        kind = content.get("pre_tokenizer")
        if (
            not isinstance(normalizer, dict)
            or normalizer.get("type") != "BertNormalizer"
            or _kind(kind) != "BertPreTokenizer"
        ):
            raise InvalidModelError(
                "{source}: only BERT's own normalisation and splitting are supported for WordPiece.", source=str(path)
            )
        listed = model.get("vocab")
        vocab = check_vocab(str(path), listed if isinstance(listed, dict) else {})
        return _build(str(path), vocab, normalizer, model)
    if not (folder / "vocab.txt").is_file():
        raise InvalidModelError("{folder} has no tokenizer: neither tokenizer.json nor vocab.txt.", folder=str(folder))
    settings = read_json(folder / "tokenizer_config.json")
    lower = settings.get("do_lower_case", True) is not False
    options: dict[str, Any] = {
        "lowercase": lower,
        "handle_chinese_chars": settings.get("tokenize_chinese_chars", True) is not False,
        "strip_accents": settings.get("strip_accents"),
    }
    return _build(str(folder / "vocab.txt"), _read_vocab(folder / "vocab.txt"), options, {})


def _build(
    source: str, vocab: Mapping[str, int], normalizer: Mapping[str, Any], model: Mapping[str, Any]
) -> tuple[Tokenizer, int]:
    unk, prefix = model.get("unk_token", "[UNK]"), model.get("continuing_subword_prefix", "##")
    longest = model.get("max_input_chars_per_word", 100)
    missing = [token for token in ("[CLS]", "[SEP]", "[PAD]", unk) if token not in vocab]
    if missing or not isinstance(prefix, str) or not isinstance(longest, int) or not 1 <= longest <= 10_000:
        raise InvalidModelError(
            "{source} is not BERT's vocabulary: {missing} is missing.",
            source=source,
            missing=", ".join(str(token)[:40] for token in missing) or "continuing_subword_prefix",
        )
    strip = normalizer.get("strip_accents")
    tokenizer = Tokenizer(
        models.WordPiece(dict(vocab), unk_token=unk, continuing_subword_prefix=prefix, max_input_chars_per_word=longest)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=normalizer.get("clean_text", True) is not False,
        handle_chinese_chars=normalizer.get("handle_chinese_chars", True) is not False,
        strip_accents=strip if isinstance(strip, bool) else None,
        lowercase=normalizer.get("lowercase", True) is not False,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL if token in vocab])
    # The text of a mark is ordinary text, unlike at Transformers: who writes [SEP] into a document could end it, and begin another.
    tokenizer.encode_special_tokens = True
    return tokenizer, vocab["[PAD]"]


def _kind(step: object) -> object:
    return step.get("type") if isinstance(step, dict) else None


def _read_vocab(path: Path) -> dict[str, int]:
    """One token a line, its id the number of the line."""
    try:
        if path.stat().st_size > MAX_VOCAB_BYTES:
            raise InvalidModelError("{path} is too large ({size} bytes).", path=path, size=path.stat().st_size)
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidModelError("{path} is not UTF-8 text.", path=str(path)) from error
    if lines and not lines[-1]:
        lines.pop()
    return {line.rstrip("\r"): index for index, line in enumerate(lines)}
