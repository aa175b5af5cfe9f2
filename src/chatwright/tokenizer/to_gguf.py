"""Writes a tokenizer and chat template as GGUF metadata (`tokenizer.*`), the inverse of `tokenizer.gguf`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chatwright.errors import InvalidModelError
from chatwright.tokenizer.gguf import SPECIAL_KEYS, TokenType, merges_from_scores
from chatwright.tokenizer.huggingface import (
    eos_ids_of_model,
    named_texts,
    read_json,
    read_tokenizer_json,
    read_vocab_and_merges,
)
from chatwright.tokenizer.patterns import PRE_TOKENIZERS, byte_level_split
from chatwright.tokenizer.pipeline import BpeFile, Json, steps

# Several names mean the same; the first is the one that llama.cpp's own converter writes.
_PREFERRED = ("gpt-2", "qwen2", "smollm", "llama-bpe")
_BYTE = "<0x{:02X}>"


def tokenizer_metadata(folder: Path, vocab_size: int) -> dict[str, Any]:
    """The tokenizer in an HF folder as GGUF says it, with a token for each of the model's `vocab_size` embeddings.

    Raises InvalidModelError when it is broken, or cuts text in a way that GGUF has no name for.
    """
    has_json = (folder / "tokenizer.json").is_file()
    file = read_tokenizer_json(folder) if has_json else read_vocab_and_merges(folder)
    file.eos_ids |= eos_ids_of_model(folder)
    named = named_texts(read_json(folder / "tokenizer_config.json"), read_json(folder / "special_tokens_map.json"))
    return metadata_of(file, named, vocab_size)


def metadata_of(file: BpeFile, named: Mapping[str, str], vocab_size: int) -> dict[str, Any]:
    """`tokenizer_metadata` of what a file says. `named`: bos_token, eos_token, unk_token, pad_token."""
    tokens, types = _tokens(file, vocab_size)
    metadata: dict[str, Any] = {}
    if file.byte_level:
        metadata |= {"model": "gpt2", "pre": _pre_tokenizer(file)}
    else:
        metadata |= {"model": "llama", "pre": "default"}
    metadata |= {"tokens": tokens, "token_type": types}
    if file.byte_level:
        metadata["merges"] = [f"{a} {b}" for a, b in file.merges]
    else:
        metadata |= _sentencepiece(file, tokens, types)
    ids = file.vocab | {token.text: token.id for token in file.added_tokens}
    special = {key: ids[named[name]] for name, key in SPECIAL_KEYS.items() if named.get(name) in ids}
    known_ends = frozenset(i for i in file.eos_ids if i < vocab_size)
    special |= _ends(known_ends, special.get("eos_token_id"))
    if file.bos_id is not None:
        special["bos_token_id"] = file.bos_id
    metadata |= special
    metadata |= _around(file, special)
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}


def _tokens(file: BpeFile, vocab_size: int) -> tuple[list[str], list[int]]:
    """Text and type of every id; an id without a token, of an embedding that pads the matrix, is unused."""
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [int(TokenType.UNUSED)] * vocab_size
    bytes_ = {_BYTE.format(byte) for byte in range(256)} if file.byte_fallback else set()
    largest = max([*file.vocab.values(), *(token.id for token in file.added_tokens)], default=0)
    if largest >= vocab_size:
        raise InvalidModelError(
            "{path}: the tokenizer has {n_tokens} tokens, but the model knows {vocab_size}. They do not belong together.",
            path=file.source,
            n_tokens=largest + 1,
            vocab_size=vocab_size,
        )
    for token, i in file.vocab.items():
        tokens[i], types[i] = token, TokenType.BYTE if token in bytes_ else TokenType.NORMAL
        if token == file.unk_token:
            types[i] = TokenType.UNKNOWN
    for added in file.added_tokens:
        tokens[added.id] = added.text
        if types[added.id] != TokenType.UNKNOWN:
            types[added.id] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    return tokens, [int(kind) for kind in types]


def _pre_tokenizer(file: BpeFile) -> str:
    """The name of how a byte-level tokenizer cuts text before BPE. llama.cpp knows ways by name only."""
    wanted = (_canonical(file.pre_tokenizer), _composes(file.normalizer), file.ignore_merges)
    for name in (*_PREFERRED, *PRE_TOKENIZERS):
        choice = PRE_TOKENIZERS[name]
        if wanted == (_canonical(byte_level_split(choice)), choice.nfc, choice.ignore_merges):
            return name
    raise InvalidModelError(
        "{source}: GGUF has no name for the way in which this tokenizer cuts text into words (known: {names}). A model whose"
        " tokenizer is trained by `chatwright tokenizer train` can be exported.",
        source=file.source,
        names=", ".join(sorted(PRE_TOKENIZERS)),
    )


def _canonical(pre_tokenizer: Json | None) -> list[tuple[Any, ...]]:
    """What matters of the steps of a pre-tokeniser."""
    found: list[tuple[Any, ...]] = []
    for step in steps(pre_tokenizer):
        match step["type"]:
            case "ByteLevel":
                found.append(("ByteLevel", bool(step.get("add_prefix_space")), step.get("use_regex", True)))
            case "Digits":
                found.append(("Digits", bool(step.get("individual_digits"))))
            case "Split":
                pattern = step.get("pattern")
                regex = pattern.get("Regex") if isinstance(pattern, dict) else None
                found.append(("Split", regex, step.get("behavior"), bool(step.get("invert"))))
            case other:
                found.append((other,))
    return found


def _composes(normalizer: Json | None) -> bool | None:
    """Whether the normaliser is NFC; None for one that GGUF cannot say."""
    kinds = [step["type"] for step in steps(normalizer)]
    return {(): False, ("NFC",): True}.get(tuple(kinds))


def _sentencepiece(file: BpeFile, tokens: list[str], types: list[int]) -> dict[str, Any]:
    """Scores in the place of merges, checked: the reader has to turn them back.

    User-defined tokens have 0, as in SentencePiece's own files, and spaces instead of the mark: llama.cpp looks for them in the
    text as it stands. (Where merging them so early would change the order, they keep their place in it.)
    """
    by_token = {token: i for token, i in file.vocab.items() if types[i] != TokenType.UNUSED}
    merged = _scores(file.merges, tokens)
    in_place = [
        score if kind in (TokenType.NORMAL, TokenType.USER_DEFINED) else 0.0
        for score, kind in zip(merged, types, strict=True)
    ]
    first = [score if kind == TokenType.NORMAL else 0.0 for score, kind in zip(merged, types, strict=True)]
    scores = next(
        (
            each
            for each in (first, in_place)
            if file.byte_fallback and merges_from_scores(by_token, each) == file.merges
        ),
        None,
    )
    if scores is None:
        raise InvalidModelError(
            "{source}: GGUF cannot say how this tokenizer merges. Convert the model with llama.cpp's own"
            " convert_hf_to_gguf.py, which reads tokenizer.model.",
            source=file.source,
        )
    spelled = [
        token.replace("▁", " ") if kind == TokenType.USER_DEFINED else token
        for token, kind in zip(tokens, types, strict=True)
    ]
    return {"tokens": spelled, "scores": scores, "add_space_prefix": _prefixes_space(file)}


def _scores(merges: Sequence[tuple[str, str]], tokens: Sequence[str]) -> list[float]:
    """The earlier a token is merged, the higher its score.

    Tokens whose merges are mixed with each other have the same: Transformers' converter orders the merges of one score by the
    lengths of their parts. Gemma's runs of white space and HTML tags are such.
    """
    last: dict[str, int] = {a + b: position for position, (a, b) in enumerate(merges)}
    scores: dict[str, float] = {}
    group, group_ends = 0, -1
    for position, (a, b) in enumerate(merges):
        if position > group_ends:
            group += 1
        group_ends = max(group_ends, last[a + b])
        scores[a + b] = -float(group)
    lowest = -float(len(merges) + 1)
    return [scores.get(token, lowest) for token in tokens]


def _prefixes_space(file: BpeFile) -> bool:
    before = [*steps(file.normalizer), *steps(file.pre_tokenizer)]
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in before
    )


def _ends(eos_ids: frozenset[int], named: int | None) -> dict[str, int]:
    """GGUF has room for three ends: the end of a text, of a turn, of a message."""
    first = named if named in eos_ids or not eos_ids else min(eos_ids)
    others = sorted(eos_ids - {first} if first is not None else eos_ids)
    ends = {"eos_token_id": first} | dict(zip(("eot_token_id", "eom_token_id"), others, strict=False))
    return {key: value for key, value in ends.items() if value is not None}


def _around(file: BpeFile, special: Mapping[str, int]) -> dict[str, bool]:
    bos, eos = special.get("bos_token_id"), special.get("eos_token_id")
    if file.prefix_ids not in ((), (bos,)) or file.suffix_ids not in ((), (eos,)):
        raise InvalidModelError(
            "{source}: GGUF cannot say which tokens this tokenizer puts around a text.", source=file.source
        )
    return {"add_bos_token": bool(file.prefix_ids), "add_eos_token": bool(file.suffix_ids)}
