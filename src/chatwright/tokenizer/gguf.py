"""Tokenizers out of GGUF metadata (`tokenizer.ggml.*`; the format is described in ggml's docs/gguf.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from chatwright.errors import InvalidModelError
from chatwright.tokenizer.patterns import PRE_TOKENIZERS, byte_level_split
from chatwright.tokenizer.pipeline import (
    AddedToken,
    BpeFile,
    bytes_to_characters,
    check_merges,
    check_vocab,
)

SOURCE = "GGUF metadata"

# A GGUF has no generation_config.json with a list of end tokens, so the well-known ones count, as in llama.cpp.
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>")


# What chat templates and Transformers call a token, and what GGUF does.
SPECIAL_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def read_gguf(metadata: Mapping[str, Any]) -> BpeFile:
    """The tokenizer that GGUF metadata describes.

    Raises InvalidModelError when it is broken, or of a kind that is not supported.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model is None:
        raise InvalidModelError("This GGUF file has no tokenizer (no tokenizer.ggml.model). Pull a complete one.")
    if model not in ("gpt2", "llama"):
        raise InvalidModelError(
            "The GGUF tokenizer kind {model} is not supported, only gpt2 (byte-level BPE) and llama "
            "(SentencePiece BPE).",
            model=repr(model)[:80],
        )
    tokens = _array(metadata, "tokens", str)
    types = _array(metadata, "token_type", int) if "tokenizer.ggml.token_type" in metadata else [1] * len(tokens)
    if len(types) != len(tokens):
        raise InvalidModelError(
            "{source}: {tokens} tokens but {types} token types.", source=SOURCE, tokens=len(tokens), types=len(types)
        )
    file = _byte_level(metadata, tokens, types) if model == "gpt2" else _sentencepiece(metadata, tokens, types)
    bos, eos = _named(metadata, "bos_token_id", len(tokens)), _named(metadata, "eos_token_id", len(tokens))
    file.bos_id = bos
    file.n_ids = len(tokens)
    ends = {_named(metadata, key, len(tokens)) for key in ("eos_token_id", "eot_token_id", "eom_token_id")}
    ends |= {
        i
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == TokenType.CONTROL and token in END_OF_TURN
    }
    file.eos_ids = frozenset(token_id for token_id in ends if token_id is not None)
    pre = metadata.get("tokenizer.ggml.pre")
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", model == "llama" or pre in ["llama-bpe", "llama3", "tekken"])
    add_eos = metadata.get("tokenizer.ggml.add_eos_token", False)
    file.prefix_ids = (bos,) if add_bos and bos is not None else ()
    file.suffix_ids = (eos,) if add_eos and eos is not None else ()
    return file


def special_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, unk_token and pad_token, as chat templates call them."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Sequence):
        return {}
    ids = {name: _named(metadata, key, len(tokens)) for name, key in SPECIAL_KEYS.items()}
    return {name: str(tokens[token_id]) for name, token_id in ids.items() if token_id is not None}


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> BpeFile:
    pre = metadata.get("tokenizer.ggml.pre")
    if pre is None and metadata.get("general.architecture") == "gpt2":
        pre = "gpt-2"  # files from before the key existed
    if not isinstance(pre, str) or pre not in PRE_TOKENIZERS:
        raise InvalidModelError(
            "The GGUF pre-tokenizer {pre} is not supported, only {names}.",
            pre=repr(pre)[:80],
            names=", ".join(sorted(PRE_TOKENIZERS)),
        )
    choice = PRE_TOKENIZERS[pre]
    spelling = bytes_to_characters()
    alphabet = set(spelling.values())
    spelled = [
        token if alphabet.issuperset(token) else "".join(spelling[byte] for byte in token.encode(errors="replace"))
        for token in tokens
    ]
    vocab, unused = _vocab(spelled)
    merges = check_merges(SOURCE, metadata.get("tokenizer.ggml.merges"), vocab)
    return BpeFile(
        SOURCE,
        vocab,
        merges,
        _added_tokens(tokens, types, unused),
        normalizer={"type": "NFC"} if choice.nfc else None,
        pre_tokenizer=byte_level_split(choice),
        ignore_merges=choice.ignore_merges,
    )


def _sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> BpeFile:
    is_gemma = str(metadata.get("general.architecture")).startswith("gemma")
    if is_gemma:
        tokens = [_as_gemma_spells(token, kind) for token, kind in zip(tokens, types, strict=True)]
    vocab, unused = _vocab(tokens)
    if "tokenizer.ggml.merges" in metadata:
        merges = check_merges(SOURCE, metadata["tokenizer.ggml.merges"], vocab)
    else:
        scores = _array(metadata, "scores", (int, float))
        if len(scores) != len(tokens):
            raise InvalidModelError(
                "{source}: {tokens} tokens but {scores} scores.",
                source=SOURCE,
                tokens=len(tokens),
                scores=len(scores),
            )
        if is_gemma:  # the score of SentencePiece's own file, which the converter overwrites
            scores = [
                0.0 if kind == TokenType.USER_DEFINED else score for score, kind in zip(scores, types, strict=True)
            ]
        merges = merges_from_scores(vocab, scores)
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    unk = _named(metadata, "unknown_token_id", len(tokens))
    if unk is None:
        unk = next((i for i, kind in enumerate(types) if kind == TokenType.UNKNOWN), None)
    return BpeFile(
        SOURCE,
        vocab,
        merges,
        _added_tokens(tokens, types, unused),
        normalizer=_spaces_as_marks(prefix=bool(prefix)),
        byte_level=False,
        byte_fallback=True,
        fuse_unk=True,
        unk_token=None if unk is None else tokens[unk],
        strip_leading_space=bool(prefix),
    )


def _spaces_as_marks(*, prefix: bool) -> dict[str, Any]:
    """As llama.cpp and SentencePiece do it: `prefix` puts a space before every text, one that begins with a space too, and
    behind every control token. (Transformers' newer Llama tokenizers do neither; GGUF has no word for that.)
    """
    marks = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, marks]} if prefix else marks


def _as_gemma_spells(token: str, kind: int) -> str:
    """llama.cpp's converter writes spaces in the user-defined tokens of Gemma, where its own tokenizer.json has the mark."""
    return token.replace(" ", "▁") if kind == TokenType.USER_DEFINED else token


def merges_from_scores(vocab: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """SentencePiece's BPE joins whichever neighbours make the token of the highest score: every way to make a token is
    a merge, the best tokens first, ties in the order in which Transformers' converter has them.
    """
    ways: list[tuple[float, int, int, str, str]] = []
    for token, token_id in vocab.items():
        local = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        local = [(a, b) for a, b in local if a in vocab and b in vocab]
        local.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        ways += [(scores[token_id], len(a), len(b), a, b) for a, b in local]
    ways.sort(key=lambda way: way[:3], reverse=True)
    return [(a, b) for *_, a, b in ways]


def _vocab(tokens: Sequence[str]) -> tuple[dict[str, int], frozenset[int]]:
    """token → id, and the ids whose text an earlier token has (converters pad vocabularies with duplicates)."""
    vocab: dict[str, int] = {}
    duplicates = [i for i, token in enumerate(tokens) if vocab.setdefault(token, i) != i]
    return check_vocab(SOURCE, vocab), frozenset(duplicates)


def _added_tokens(tokens: Sequence[str], types: Sequence[int], skipped: frozenset[int]) -> list[AddedToken]:
    """Control and user-defined tokens; an unknown token is control too, as it stands for no text."""
    special = {TokenType.CONTROL: True, TokenType.UNKNOWN: True, TokenType.USER_DEFINED: False}
    return [
        AddedToken(token, i, special=special[TokenType(kind)])
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in special and token and i not in skipped
    ]


def _array(metadata: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Sequence[Any]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not all(isinstance(x, kind) for x in value):
        raise InvalidModelError(
            "{source}: {key} is missing or is not a list of the right kind.", source=SOURCE, key=f"tokenizer.ggml.{key}"
        )
    return value


def _named(metadata: Mapping[str, Any], key: str, n_tokens: int) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < n_tokens:
        raise InvalidModelError(
            "{source}: {key} = {value} is not the id of a token.",
            source=SOURCE,
            key=f"tokenizer.ggml.{key}",
            value=repr(value)[:80],
        )
    return value
