"""Writes the tokenizer and chat template of any model that Chatwright loads as files that Transformers loads too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatwright.errors import InvalidModelError
from chatwright.tokenizer.gguf import read_gguf, special_texts
from chatwright.tokenizer.huggingface import read_json
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.pipeline import BpeFile, Json

# What Transformers writes beside the weights for the text side of a model, over the years.
FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def copy_tokenizer(source: Path, folder: Path, gguf_metadata: Mapping[str, Any] | None = None) -> None:
    """Write the tokenizer and chat template of the model in `source` (a folder, or a GGUF file with its metadata) into `folder`.

    The copy gives the same ids here and in Transformers. generation_config.json says which tokens end an answer. Raises
    InvalidModelError as `load_tokenizer` does.
    """
    home = source if source.is_dir() else source.parent
    tokenizer = load_tokenizer(home, gguf_metadata)
    folder.mkdir(parents=True, exist_ok=True)
    if any((home / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        _copy_files(home, folder)
        named = read_json(folder / "tokenizer_config.json")
    elif gguf_metadata is not None:
        file = read_gguf(gguf_metadata)
        named = special_texts(gguf_metadata)
        write_json(folder / "tokenizer.json", tokenizer_json(file))
        write_json(folder / "tokenizer_config.json", _config(file, named, gguf_metadata))
        write_json(folder / "special_tokens_map.json", named)
    else:  # load_tokenizer has refused such a folder
        raise InvalidModelError(
            "{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt.", folder=str(home)
        )
    template = (gguf_metadata or {}).get("tokenizer.chat_template")
    if isinstance(template, str) and not (folder / "chat_template.jinja").is_file() and "chat_template" not in named:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="")
    ends = {"bos_token_id": tokenizer.bos_id, "eos_token_id": sorted(tokenizer.eos_ids) or None}
    write_json(folder / "generation_config.json", {key: value for key, value in ends.items() if value is not None})


def tokenizer_json(file: BpeFile) -> Json:
    """The content of tokenizer.json that says what `file` says."""
    added_ids = {token.id for token in file.added_tokens}
    merged = {part for a, b in file.merges for part in (a, b, a + b)}
    # An added token stands in the vocabulary as it is written in texts, not in the alphabet of bytes, or the library would
    # give it another id.
    vocab = {token: i for token, i in file.vocab.items() if i not in added_ids or token in merged}
    vocab |= {token.text: token.id for token in file.added_tokens}
    byte_level: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token.id,
                "content": token.text,
                "single_word": token.single_word,
                "lstrip": token.lstrip,
                "rstrip": token.rstrip,
                "normalized": token.normalized,
                "special": token.special,
            }
            for token in sorted(file.added_tokens, key=lambda token: token.id)
        ],
        "normalizer": file.normalizer,
        "pre_tokenizer": file.pre_tokenizer,
        "post_processor": _around(file) or (byte_level if file.byte_level else None),
        "decoder": byte_level if file.byte_level else _sentencepiece_decoder(file),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": file.unk_token,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": file.fuse_unk,
            "byte_fallback": file.byte_fallback,
            "ignore_merges": file.ignore_merges,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [[a, b] for a, b in file.merges],
        },
    }


def write_json(path: Path, value: Any) -> None:
    """As Transformers writes its own files."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")


def _copy_files(home: Path, folder: Path) -> None:
    for name in FILES:
        if (home / name).is_file():
            shutil.copyfile(home / name, folder / name)
    config = read_json(folder / "tokenizer_config.json")
    if config.pop("auto_map", None) is not None:  # names code of the repository it came from, which is never run
        write_json(folder / "tokenizer_config.json", config)


def _config(file: BpeFile, named: Mapping[str, str], metadata: Mapping[str, Any]) -> Json:
    config: Json = {
        "add_bos_token": bool(file.prefix_ids),
        "add_eos_token": bool(file.suffix_ids),
        "clean_up_tokenization_spaces": False,
        # Classes named after models rebuild the pipeline from what that model has; this one takes tokenizer.json as it is.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
    }
    context_length = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    return config | ({"model_max_length": context_length} if isinstance(context_length, int) else {})


def _around(file: BpeFile) -> Json | None:
    """The post-processor that puts BOS and EOS around a text."""
    if not file.prefix_ids and not file.suffix_ids:
        return None
    text_of = {token_id: text for text, token_id in file.vocab.items()} | {t.id: t.text for t in file.added_tokens}
    used = {text_of[i]: i for i in (*file.prefix_ids, *file.suffix_ids)}

    def special(token_id: int, sequence: int) -> Json:
        return {"SpecialToken": {"id": text_of[token_id], "type_id": sequence}}

    def whole(name: str, sequence: int) -> list[Json]:
        return [
            *(special(i, sequence) for i in file.prefix_ids),
            {"Sequence": {"id": name, "type_id": sequence}},
            *(special(i, sequence) for i in file.suffix_ids),
        ]

    return {
        "type": "TemplateProcessing",
        "single": whole("A", 0),
        "pair": [*whole("A", 0), *whole("B", 1)],
        "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]} for text, i in used.items()},
    }


def _sentencepiece_decoder(file: BpeFile) -> Json:
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if file.strip_leading_space else []
    return {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *strip,
        ],
    }
