"""Tokenizers out of HF folders: tokenizer.json, or GPT-2's vocab.json and merges.txt, with the settings beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatwright.errors import InvalidModelError
from chatwright.tokenizer.patterns import PreTokenizer, byte_level_split
from chatwright.tokenizer.pipeline import (
    AddedToken,
    BpeFile,
    Json,
    check_merges,
    check_vocab,
    ids_around,
    steps,
)

# The largest known tokenizer.json (Gemma 3) has 33 MB.
MAX_FILE_BYTES = 256 * 2**20


def read_json(path: Path) -> Json:
    """The JSON object in a file, {} when there is no such file. Raises InvalidModelError when it is something else."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidModelError("{path} is too large to be a tokenizer file.", path=str(path))
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidModelError("{path} is not valid JSON: {reason}.", path=str(path), reason=str(error)) from error
    if not isinstance(value, dict):
        raise InvalidModelError("{path} does not hold a JSON object.", path=str(path))
    return value


def read_tokenizer_json(folder: Path) -> BpeFile:
    """The tokenizer of `folder`/tokenizer.json. Raises InvalidModelError when it is broken or no BPE."""
    path = folder / "tokenizer.json"
    return read_tokenizer_content(
        str(path),
        read_json(path),
        read_json(folder / "tokenizer_config.json"),
        read_json(folder / "special_tokens_map.json"),
    )


def read_tokenizer_content(
    source: str, content: Json, config: Mapping[str, Any], special_map: Mapping[str, Any]
) -> BpeFile:
    """The same of the contents of a tokenizer.json, tokenizer_config.json and special_tokens_map.json; `source` names them."""
    model = content.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab", {}), dict | list):
        raise InvalidModelError("{source} holds no tokenizer model.", source=source)
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise InvalidModelError(
            "{source}: the tokenizer kind {kind} is not supported, only BPE.", source=source, kind=repr(kind)[:80]
        )
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise InvalidModelError("{source}: BPE with word prefixes or suffixes is not supported.", source=source)
    vocab = check_vocab(source, model["vocab"] if isinstance(model.get("vocab"), dict) else {})
    unk_token = model.get("unk_token")
    if not isinstance(unk_token, str | None):
        raise InvalidModelError("{source}: unk_token is not text.", source=source)
    decoders = {step.get("type") for step in steps(content.get("decoder"))}
    byte_level = "ByteLevel" in decoders
    byte_fallback = bool(model.get("byte_fallback"))
    if not byte_level and not byte_fallback and not decoders & {"Metaspace", "ByteFallback", "Replace"}:
        raise InvalidModelError(
            "{source}: this kind of BPE is not supported, only byte-level and SentencePiece-like BPE.", source=source
        )
    file = BpeFile(
        source,
        vocab,
        check_merges(source, model.get("merges", []), vocab),
        normalizer=content.get("normalizer"),
        pre_tokenizer=content.get("pre_tokenizer"),
        byte_level=byte_level,
        byte_fallback=byte_fallback,
        fuse_unk=bool(model.get("fuse_unk")),
        ignore_merges=bool(model.get("ignore_merges")),
        unk_token=unk_token,
        strip_leading_space=not byte_level and _strips_leading_space(content.get("decoder")),
    )
    added = content.get("added_tokens") or []
    if not isinstance(added, list):
        raise InvalidModelError("{source}: added_tokens is not a list.", source=source)
    file.added_tokens = [_added_token(source, entry) for entry in added]
    settle_added_tokens(file, config, special_map)
    known_ids = frozenset({*vocab.values(), *(token.id for token in file.added_tokens)})
    file.prefix_ids, file.suffix_ids = ids_around(source, content.get("post_processor"), known_ids)
    return file


def read_vocab_and_merges(folder: Path) -> BpeFile:
    """GPT-2's own files: vocab.json and merges.txt (Radford et al. 2019)."""
    source = str(folder / "vocab.json")
    vocab = check_vocab(source, read_json(folder / "vocab.json"))
    try:
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidModelError("{path} is not UTF-8 text.", path=str(folder / "merges.txt")) from error
    merges = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
    config = read_json(folder / "tokenizer_config.json")
    file = BpeFile(
        source,
        vocab,
        check_merges(str(folder / "merges.txt"), merges, vocab),
        pre_tokenizer=byte_level_split(PreTokenizer(), add_prefix_space=bool(config.get("add_prefix_space"))),
    )
    for name in ("bos_token", "eos_token", "unk_token"):
        config.setdefault(name, "<|endoftext|>")
    special_map = read_json(folder / "special_tokens_map.json")
    settle_added_tokens(file, config, special_map)
    # Only here: where there is a tokenizer.json, its post-processor says what is added, as in Transformers 5.
    named = named_texts(config, special_map)
    ids = file.vocab | {token.text: token.id for token in file.added_tokens}
    bos, eos = ids.get(named.get("bos_token", "")), ids.get(named.get("eos_token", ""))
    file.prefix_ids = (bos,) if config.get("add_bos_token") is True and bos is not None else ()
    file.suffix_ids = (eos,) if config.get("add_eos_token") is True and eos is not None else ()
    return file


def settle_added_tokens(file: BpeFile, config: Mapping[str, Any], special_map: Mapping[str, Any]) -> None:
    """Add what tokenizer_config.json and special_tokens_map.json say to `file`: more added tokens, BOS, EOS."""
    known = {token.text for token in file.added_tokens}
    listed = config.get("added_tokens_decoder")
    for key, entry in listed.items() if isinstance(listed, dict) else ():
        if isinstance(entry, dict) and str(key).isdecimal() and entry.get("content") not in known:
            file.added_tokens.append(_added_token(file.source, {**entry, "id": int(key)}))
    known = {token.text for token in file.added_tokens}
    for text in _special_texts(config, special_map):
        if text not in known and text in file.vocab:
            known.add(text)
            file.added_tokens.append(AddedToken(text, file.vocab[text]))
    ids = file.vocab | {token.text: token.id for token in file.added_tokens}
    check_vocab(file.source, ids)
    named = named_texts(config, special_map)
    bos, eos = named.get("bos_token"), named.get("eos_token")
    file.bos_id = ids.get(bos) if bos is not None else None
    if eos is not None and eos in ids:
        file.eos_ids |= {ids[eos]}


def named_texts(config: Mapping[str, Any], special_map: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, unk_token and pad_token as the files name them; tokenizer_config.json has the last word."""
    named: dict[str, str] = {}
    for settings in (special_map, config):
        for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
            if (text := _text(settings.get(name))) is not None:
                named[name] = text
            elif name in settings and settings[name] is None:
                named.pop(name, None)
    return named


def eos_ids_of_model(folder: Path) -> frozenset[int]:
    """End tokens according to generation_config.json and config.json: a number or a list of them."""
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        ids.update(i for i in (value if isinstance(value, list) else [value]) if type(i) is int)
    return frozenset(ids)


def _special_texts(config: Mapping[str, Any], special_map: Mapping[str, Any]) -> list[str]:
    texts = list(named_texts(config, special_map).values())
    for settings in (special_map, config):
        for name in ("additional_special_tokens", "extra_special_tokens"):
            value = settings.get(name)
            entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
            texts += [text for entry in entries if (text := _text(entry)) is not None]
    return texts


def _text(entry: Any) -> str | None:
    """A token is written as its text, or as an object with the text in `content`."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) and text else None


def _added_token(source: str, entry: Any) -> AddedToken:
    text = _text(entry) if isinstance(entry, dict) else None
    token_id = entry.get("id") if isinstance(entry, dict) else None
    if text is None or not isinstance(token_id, int):
        raise InvalidModelError(
            "{source}: {entry} is not an added token with an id and a content.", source=source, entry=repr(entry)[:80]
        )
    flags = {name: entry.get(name) is True for name in ("special", "lstrip", "rstrip", "single_word", "normalized")}
    return AddedToken(text, token_id, **flags)


def _strips_leading_space(decoder: Any) -> bool:
    for step in steps(decoder):
        if step.get("type") == "Strip" and step.get("content") == " " and step.get("start"):
            return True
        if step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            return True
    return False
