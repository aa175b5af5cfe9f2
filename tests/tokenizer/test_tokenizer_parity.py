"""Ids equal Transformers' for every kind of tokenizer, from every kind of file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import GPT2Tokenizer
from transformers.integrations.gguf import convert_gguf_tokenizer

from chatwright.tokenizer import load_tokenizer


def test_ids_of_tokenizer_json_equal_transformers(reference, texts):
    ours = load_tokenizer(reference.folder)
    for text in texts:
        assert ours.encode(text) == reference.hf.encode(text), text
        assert ours.encode(text, add_special_tokens=False) == reference.hf.encode(text, add_special_tokens=False), text


def test_text_of_special_tokens_is_ordinary_text(reference):
    ours = load_tokenizer(reference.folder)
    for token in reference.hf.all_special_tokens:
        text = f"before {token} after{token}"
        assert ours.encode(text) == reference.hf.encode(text, split_special_tokens=True)
        assert ours.special_ids[token] == reference.hf.convert_tokens_to_ids(token)


def test_decoding_gives_what_transformers_gives(reference, texts):
    ours = load_tokenizer(reference.folder)
    for text in texts:
        ids = reference.hf.encode(text)
        assert ours.decode(ids) == reference.hf.decode(ids, skip_special_tokens=True), text


def test_ids_of_gguf_metadata_equal_those_of_the_original(reference, texts):
    if reference.kind == "sentencepiece-first":  # GGUF files keep nothing of the difference; llama.cpp prepends
        texts = [text for text in texts if text and not text.startswith(" ")]
    ours = load_tokenizer(Path("no folder"), reference.gguf_metadata())
    for text in texts:
        expected = reference.hf.encode(text, add_special_tokens=False)
        assert ours.encode(text, add_special_tokens=False) == expected, text


@pytest.mark.parametrize("kind", ["gpt-2", "qwen2", "llama-bpe", "tekken", "sentencepiece-first"])
def test_ids_of_gguf_metadata_equal_transformers_own_reading_of_it(kind, references, texts):
    metadata = references[kind].gguf_metadata()
    ours = load_tokenizer(Path("no folder"), metadata)
    keys = {"model": "tokenizer_type", "pre": "pre_tokenizer_type"}
    named = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    theirs, _ = convert_gguf_tokenizer("llama", {keys.get(key, key): value for key, value in named.items()})
    if kind == "sentencepiece-first":  # Transformers reads Metaspace into it, llama.cpp always puts a space first
        texts = [text for text in texts if text and not text.startswith(" ")]
    for text in texts:
        if kind == "qwen2":  # Qwen composes characters first; Transformers forgets that when it reads GGUF
            text = references[kind].backend.normalizer.normalize_str(text)
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False) == expected, text


def test_gguf_adds_bos_and_eos_where_it_says_so(references):
    metadata = references["smollm"].gguf_metadata()
    plain = load_tokenizer(Path("no folder"), metadata)
    both = load_tokenizer(
        Path("no folder"), metadata | {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    )
    ids = plain.encode("Hello", add_special_tokens=False)
    assert plain.encode("Hello") == ids
    assert both.encode("Hello") == [1, *ids, 2]
    assert both.encode("Hello", add_special_tokens=False) == ids


def test_sentencepiece_gguf_adds_bos_unless_told_otherwise(references):
    metadata = references["sentencepiece-first"].gguf_metadata()
    assert load_tokenizer(Path("no folder"), metadata).encode("Hi")[0] == 1
    metadata["tokenizer.ggml.add_bos_token"] = False
    assert load_tokenizer(Path("no folder"), metadata).encode("Hi")[0] != 1


def test_sentencepiece_gguf_without_space_prefix_puts_no_space_first(references):
    metadata = references["sentencepiece-first"].gguf_metadata() | {"tokenizer.ggml.add_space_prefix": False}
    ours = load_tokenizer(Path("no folder"), metadata)
    ids = ours.encode("The end", add_special_tokens=False)
    assert b"".join(map(ours.token_bytes, ids)) == b"The end"
    assert ours.decode(ours.encode(" x")) == " x"


def write_gpt2_files(folder: Path, target: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    (target / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    merges = ["#version: 0.2", *(" ".join(merge) for merge in content["model"]["merges"])]
    (target / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")


def test_vocab_and_merges_files_equal_gpt2_tokenizer(references, texts, tmp_path):
    write_gpt2_files(references["gpt-2"].folder, tmp_path)
    theirs = GPT2Tokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    for text in [*texts, "# not a comment", "#version"]:
        assert ours.encode(text) == theirs.encode(text), text
    end = ours.special_ids["<|endoftext|>"]
    assert ours.bos_id == end
    assert ours.eos_ids == {end}


def test_tokenizer_json_alone_says_whether_bos_is_added_as_in_transformers(references, tmp_path):
    shutil.copytree(references["llama-bpe"].folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": False}))
    theirs = type(references["llama-bpe"].hf).from_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).encode("Hi") == theirs.encode("Hi")


@pytest.mark.parametrize("flag", [True, False])
def test_vocab_and_merges_files_add_bos_where_the_settings_say_so(flag, references, tmp_path):
    write_gpt2_files(references["gpt-2"].folder, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": flag}))
    assert load_tokenizer(tmp_path).encode("Hi") == GPT2Tokenizer.from_pretrained(tmp_path).encode("Hi")


def test_every_end_token_of_the_model_ends_an_answer(references, tmp_path):
    shutil.copytree(references["qwen2"].folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 5]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    assert load_tokenizer(tmp_path).eos_ids == {0, 2, 5, 7}


def test_end_tokens_of_gguf_include_the_known_ones(references):
    ours = load_tokenizer(Path("no folder"), references["smollm"].gguf_metadata())
    assert ours.eos_ids == {ours.special_ids["<|im_end|>"], ours.special_ids["<|endoftext|>"]}


def test_vocab_size_is_the_highest_id_plus_one(reference):
    ours = load_tokenizer(reference.folder)
    assert ours.vocab_size == len(reference.hf)
    assert ours.token_bytes(ours.vocab_size) == b""
