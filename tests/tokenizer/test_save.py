"""A copied tokenizer gives the ids of the original, here and in Transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GPT2Tokenizer

from chatwright.engine.tokenizers import copy_tokenizer, load_text_side
from chatwright.errors import InvalidModelError
from chatwright.tokenizer import Tokenizer, encode_chat, load_chat_template, load_tokenizer, save
from tests.tokenizer.conftest import CORPUS, Reference
from tests.tokenizer.test_tokenizer_chat import CHATML

CHAT = [{"role": "user", "content": "你好 <|im_end|>"}, {"role": "assistant", "content": "Hi."}]


def same(copy: Tokenizer, original: Tokenizer, texts: list[str]) -> None:
    for text in [*texts, *CORPUS, *original.special_ids]:
        assert copy.encode(text) == original.encode(text), text
    assert copy.special_ids == original.special_ids
    assert copy.hidden_ids == original.hidden_ids
    assert copy.eos_ids == original.eos_ids
    assert copy.bos_id == original.bos_id
    assert copy.vocab_size == original.vocab_size
    for i in range(original.vocab_size):
        assert copy.token_bytes(i) == original.token_bytes(i)


def test_the_default_model(default_model: Path, texts: list[str], tmp_path: Path) -> None:
    copy_tokenizer(default_model, tmp_path / "copy")
    original, template = load_text_side(default_model)
    copy, copied = load_text_side(tmp_path / "copy")
    same(copy, original, texts)
    assert template is not None
    assert copied is not None
    assert copied.source == template.source
    for messages in (CHAT, CHAT[:1]):
        assert encode_chat(copy, copied, messages) == encode_chat(original, template, messages)
    for config in (None, {"model_type": "llama"}, {"model_type": "qwen3"}):
        if config:
            (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
        hf = AutoTokenizer.from_pretrained(tmp_path / "copy")
        for text in texts:
            assert hf(text).input_ids == original.encode(text), (text, config)
        asked = [{"role": "user", "content": "你好"}]
        ids = hf.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        assert ids == encode_chat(original, template, asked)
        assert hf.eos_token == "<|im_end|>"
    template.close()
    copied.close()


def test_a_tokenizer_out_of_gguf_metadata(reference: Reference, texts: list[str], tmp_path: Path) -> None:
    metadata = reference.gguf_metadata() | {"tokenizer.chat_template": CHATML}
    save.copy_tokenizer(tmp_path / "model.gguf", tmp_path / "copy", metadata)
    original = load_tokenizer(tmp_path, metadata)
    same(load_tokenizer(tmp_path / "copy"), original, texts)
    hf = AutoTokenizer.from_pretrained(tmp_path / "copy")
    for text in texts:
        assert hf(text).input_ids == original.encode(text), text
    assert hf.chat_template == CHATML


@pytest.mark.parametrize("with_template", [False, True])
def test_a_tokenizer_out_of_a_folder(
    reference: Reference, texts: list[str], tmp_path: Path, with_template: bool
) -> None:
    source = tmp_path / "source"
    shutil.copytree(reference.folder, source)
    if with_template:
        (source / "chat_template.jinja").write_text(CHATML)
    copy_tokenizer(source, tmp_path / "copy")
    original = load_tokenizer(source)
    same(load_tokenizer(tmp_path / "copy"), original, texts)
    assert (load_chat_template(tmp_path / "copy") is not None) == with_template
    hf = AutoTokenizer.from_pretrained(tmp_path / "copy")
    for text in texts:
        assert hf(text).input_ids == original.encode(text), text


def test_gpt2s_own_files(references: dict[str, Reference], texts: list[str], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    content = json.loads((references["gpt-2"].folder / "tokenizer.json").read_text())
    (source / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    merges = "\n".join(" ".join(merge) for merge in content["model"]["merges"])
    (source / "merges.txt").write_text("#version: 0.2\n" + merges + "\n")
    copy_tokenizer(source, tmp_path / "copy")
    original = load_tokenizer(source)
    same(load_tokenizer(tmp_path / "copy"), original, texts)
    hf = GPT2Tokenizer.from_pretrained(tmp_path / "copy")
    for text in texts:
        assert hf(text).input_ids == original.encode(text), text


def test_every_token_that_ends_an_answer_is_kept(references: dict[str, Reference], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(references["smollm"].folder, source)
    (source / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    copy_tokenizer(source, tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").eos_ids == {0, 2}


def test_code_of_a_repository_is_not_pointed_at(references: dict[str, Reference], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(references["smollm"].folder, source)
    config = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": ["evil.Evil"]}}))
    copy_tokenizer(source, tmp_path / "copy")
    assert "evil" not in (tmp_path / "copy" / "tokenizer_config.json").read_text()
    assert load_tokenizer(tmp_path / "copy").encode("dog")


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(InvalidModelError, match="no tokenizer"):
        copy_tokenizer(tmp_path / "source", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_token_spelled_otherwise_than_its_bytes_keeps_its_id(
    references: dict[str, Reference], tmp_path: Path
) -> None:
    metadata = references["smollm"].gguf_metadata()
    tokens, types = [*metadata["tokenizer.ggml.tokens"], "<｜fin▁de｜>", "好 好"], metadata["tokenizer.ggml.token_type"]
    metadata |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [*types, 3, 4]}
    save.copy_tokenizer(tmp_path / "model.gguf", tmp_path / "copy", metadata)
    original = load_tokenizer(tmp_path, metadata)
    same(load_tokenizer(tmp_path / "copy"), original, ["a好 好b", "<｜fin▁de｜>"])
    hf = AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert hf("x<｜fin▁de｜>").input_ids[-1] == len(tokens) - 2
    assert hf("a好 好b").input_ids == original.encode("a好 好b")
    assert len(tokens) - 1 in original.encode("a好 好b")
