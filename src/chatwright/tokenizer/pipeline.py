"""A checked BPE vocabulary with its text pipeline, whatever file it came from, turned into a `tokenizers.Tokenizer`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import tokenizers
from tokenizers.models import BPE

from chatwright.errors import InvalidModelError

# Far above any real vocabulary; a lying file must not make us allocate a table of 2**31 entries.
MAX_TOKEN_ID = 4_000_000

Json = dict[str, Any]


@dataclass(frozen=True)
class AddedToken:
    """A token matched as a whole before BPE. Meaning of the flags as in `tokenizers.AddedToken`."""

    text: str
    id: int
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


@dataclass
class BpeFile:
    """What a tokenizer file says, before it is built.

    `normalizer` and `pre_tokenizer` are written as in tokenizer.json. prefix_ids and suffix_ids (BOS, EOS) go around a text.
    `source` names the file in errors.
    n_ids: how many ids the file has, when that is more than the tokens with a text of their own.
    """

    source: str
    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    added_tokens: list[AddedToken] = field(default_factory=list)
    normalizer: Json | None = None
    pre_tokenizer: Json | None = None
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    byte_level: bool = True
    byte_fallback: bool = False
    fuse_unk: bool = False
    ignore_merges: bool = False
    unk_token: str | None = None
    strip_leading_space: bool = False
    n_ids: int = 0
    bos_id: int | None = None
    eos_ids: frozenset[int] = frozenset()


def bytes_to_characters() -> dict[int, str]:
    """GPT-2's spelling of the 256 bytes as printable characters (Radford et al. 2019, `encoder.py`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    spelled = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in spelled)
    return spelled | {byte: chr(256 + offset) for offset, byte in enumerate(others)}


def check_vocab(source: str, vocab: Mapping[Any, Any]) -> dict[str, int]:
    """The vocabulary, when every token is text and every id a number that only it has."""
    seen: dict[int, str] = {}
    for token, token_id in vocab.items():
        if not isinstance(token, str) or isinstance(token_id, bool) or not isinstance(token_id, int):
            raise InvalidModelError("{source}: the vocabulary must map texts to numbers.", source=source)
        if not 0 <= token_id <= MAX_TOKEN_ID:
            raise InvalidModelError("{source}: the token id {id} is out of range.", source=source, id=token_id)
        if token_id in seen:
            raise InvalidModelError(
                "{source}: the token id {id} is given to two tokens, {first} and {second}.",
                source=source,
                id=token_id,
                first=repr(seen[token_id]),
                second=repr(token),
            )
        seen[token_id] = token
    if not vocab:
        raise InvalidModelError("{source}: the vocabulary is empty.", source=source)
    try:
        "".join(seen.values()).encode()
    except UnicodeEncodeError as error:
        raise InvalidModelError("{source}: the vocabulary holds text that is not Unicode.", source=source) from error
    return dict(vocab)


def check_merges(source: str, merges: Any, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """The merges ("a b" or ["a", "b"]) as pairs whose parts and result are in the vocabulary."""
    if not isinstance(merges, Sequence) or isinstance(merges, str | bytes):
        raise InvalidModelError("{source}: the merges are not a list.", source=source)
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        if isinstance(merge, str):
            a, _, b = merge.partition(" ")
        else:
            a, b = merge if isinstance(merge, list) and len(merge) == 2 else ("", "")
        if not (isinstance(a, str) and isinstance(b, str) and a and b) or (isinstance(merge, str) and " " in b):
            raise InvalidModelError(
                "{source}: {merge} is not a merge of two tokens.", source=source, merge=repr(merge)[:80]
            )
        if a not in vocab or b not in vocab or a + b not in vocab:
            raise InvalidModelError(
                "{source}: the merge {merge} names a token that is not in the vocabulary.",
                source=source,
                merge=repr(merge)[:80],
            )
        pairs.append((a, b))
    return pairs


def without_tokens(
    vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], removed: frozenset[str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges that can not produce any of the `removed` tokens."""
    kept = {token: token_id for token, token_id in vocab.items() if token not in removed}
    return kept, [(a, b) for a, b in merges if a in kept and b in kept and a + b in kept]


def build_backend(file: BpeFile, vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """The Rust tokenizer of these parts, without any added token.

    Raises InvalidModelError with the library's reason when a part of the pipeline is malformed or unknown.
    """
    skeleton: Json = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": file.normalizer,
        "pre_tokenizer": file.pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    # `tokenizers` raises bare `Exception`, whatever was wrong.
    try:
        parts = tokenizers.Tokenizer.from_str(json.dumps(skeleton))
        backend = tokenizers.Tokenizer(
            BPE(
                vocab=vocab,
                merges=merges,
                unk_token=file.unk_token,
                fuse_unk=file.fuse_unk,
                byte_fallback=file.byte_fallback,
                ignore_merges=file.ignore_merges,
            )
        )
    except Exception as error:
        raise InvalidModelError(
            "{source}: the tokenizer cannot be built: {reason}.", source=file.source, reason=str(error)
        ) from error
    adopt_pipeline(backend, parts)
    return backend


def adopt_pipeline(backend: tokenizers.Tokenizer, parts: tokenizers.Tokenizer) -> None:
    """Give `backend` the normaliser and the pre-tokeniser of `parts`."""
    if parts.normalizer is not None:
        backend.normalizer = parts.normalizer
    if parts.pre_tokenizer is not None:
        backend.pre_tokenizer = parts.pre_tokenizer


def steps(part: object) -> list[Json]:
    """The steps of a normaliser, pre-tokeniser, decoder or post-processor, sequences flattened; nonsense left out."""
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        return []
    if part["type"] != "Sequence":
        return [part]
    lists = (part.get(key) for key in ("normalizers", "pretokenizers", "processors", "decoders"))
    nested = next((children for children in lists if isinstance(children, list)), [])
    return [step for child in nested for step in steps(child)]


def as_continuation(pre_tokenizer: Json | None) -> Json | None:
    """The pre-tokeniser for text that does not start the prompt; None where that makes no difference.

    Metaspace with `prepend_scheme: first` puts its space before the very beginning of the text only.
    """
    if not any(
        step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first" for step in steps(pre_tokenizer)
    ):
        return None
    changed = deepcopy(pre_tokenizer)
    for step in steps(changed):
        if step.get("type") == "Metaspace":
            step["prepend_scheme"] = "never"
    return changed


def ids_around(
    source: str, post_processor: object, vocab_ids: frozenset[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a tokenizer.json's post-processor puts before and behind a text.

    Read here, since the library panics on a template that names a token which it does not define.
    """
    before: list[int] = []
    behind: list[int] = []
    for step in steps(post_processor):
        if step["type"] == "ByteLevel":
            continue
        try:
            if step["type"] in ("BertProcessing", "RobertaProcessing"):
                first, last = [step["cls"][1]], [step["sep"][1]]
            else:
                first, last = _template_ids(step["single"], step["special_tokens"])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InvalidModelError("{source}: the post-processor is broken.", source=source) from error
        before, behind = first + before, behind + last
    if not all(type(token_id) is int and token_id in vocab_ids for token_id in (*before, *behind)):
        raise InvalidModelError("{source}: the post-processor is broken.", source=source)
    return tuple(before), tuple(behind)


def _template_ids(single: list[Json], special_tokens: Json) -> tuple[list[int], list[int]]:
    """TemplateProcessing's `single`: tokens by name, around exactly one `Sequence`."""
    (place,) = (i for i, piece in enumerate(single) if "Sequence" in piece)
    ids = [[] if i == place else special_tokens[piece["SpecialToken"]["id"]]["ids"] for i, piece in enumerate(single)]
    return [*chain.from_iterable(ids[:place])], [*chain.from_iterable(ids[place:])]
