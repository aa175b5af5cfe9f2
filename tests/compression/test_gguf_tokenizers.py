"""Tokenizers of every kind in a GGUF written here: our reader and llama.cpp give the ids of the folder that it was made from."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM
from transformers.convert_slow_tokenizer import generate_merges

from chatwright.compression.export_gguf import TYPES, GGUFType, export_gguf
from chatwright.compression.source import Source
from chatwright.compression.verify.llama import LlamaSide
from chatwright.compression.verify.ours import TextSide
from chatwright.compression.verify.side import Message
from chatwright.compression.verify.texts import CHATS, CONTROL
from chatwright.errors import InvalidModelError
from tests.model.tiny_models import CASES, randomise
from tests.tokenizer.conftest import MAKERS, TEXTS, Reference

llama_cpp = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp (the extra llama)")

# tokenizer → architecture
MODELS = {
    "gpt-2": "gpt2",
    "smollm": "llama, tied",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "llama-bpe": "llama, llama3 rope",
    "tekken": "mistral, no window",
    "sentencepiece-prepend": "llama, every head its own keys",
    "sentencepiece-first": "llama, wide heads",
    "sentencepiece-gemma": "gemma3",
}
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] | trim }} {{ eos_token }}"
    "{% else %}[INST] {{ m['content'] | trim }} [/INST]{% endif %}{% endfor %}"
)
TEMPLATES = {
    "gpt-2": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
    "smollm": _CHATML,
    "qwen2": _CHATML,
    "qwen3": _CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}"),
    "llama-bpe": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ m['content'] | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "tekken": _LLAMA2,
    "sentencepiece-prepend": _LLAMA2,
    "sentencepiece-first": _LLAMA2,
    "sentencepiece-gemma": (
        "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
        "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n"
    ),
}
_PARTS = [
    *("<b>", "</p>", " ", "  ", "   ", "     ", "\n", "\n\n", "\n\n\n\n\n", "\t", "\t\t", "\r\n", "\u00a0", "\u3000", "\u200b"),
    *("The", "the", " capital", "fox", "x", "Z", "é", "ï", "ब", "你好", "天气", "，", "世界", "東京", "🎉", "👩\u200d👧"),
    *("1", "12", "123", "3.14", "½", "٣", "'s", "'LL", "_", "/", "://", "...", "?!", "def f(x):", "    return"),
    *("<|im_end|>", "<s>", "</s>", "<unk>", "<0x41>", "[INST]", "<start_of_turn>", "<|eot_id|>", "\x07"),
]  # fmt: skip


def _random_texts(n: int) -> list[str]:
    choose = random.Random(0)
    return ["".join(choose.choices(_PARTS, k=choose.randint(1, 14))) for _ in range(n)]


STRINGS = [*TEXTS, *_random_texts(250)]
# What GGUF has no word for: Mistral's newer tokenizer puts a space before the first word alone, unless one is there.
NO_SECOND_SPACE = "sentencepiece-first"
# llama.cpp does not compose: what NFC would change is another text there.
DECOMPOSED = ("e\u0301", "\u1161", "हिन्दी")


def strings(kind: str) -> list[str]:
    """Those that GGUF can say."""
    return [text for text in STRINGS if not (kind == NO_SECOND_SPACE and text.startswith(" "))]


def conversations(kind: str) -> Mapping[str, Sequence[Message]]:
    """Those that GGUF can say."""
    return {} if kind == NO_SECOND_SPACE else CHATS


@dataclass(frozen=True)
class Exported:
    kind: str
    folder: Path
    gguf: Path


def _like_sentencepiece(folder: Path) -> None:
    """Merges as Transformers' converter derives them from SentencePiece's scores: every way to make a token."""
    content = json.loads((folder / "tokenizer.json").read_text())
    vocab: dict[str, int] = content["model"]["vocab"]
    special = [token["content"] for token in content["added_tokens"]]
    scores = {token: float(-i) for token, i in vocab.items()}
    content["model"]["merges"] = [list(pair) for pair in generate_merges(vocab, scores, skip_tokens=special)]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def make_folder(kind: str, folder: Path) -> Path:
    """A tiny model of the tokenizer's usual architecture beside it, with a few embeddings more than tokens."""
    reference = Reference("qwen2" if kind == "qwen3" else kind, folder)
    if kind in ("sentencepiece-prepend", "sentencepiece-first"):
        _like_sentencepiece(folder)
    if kind == "tekken":  # as Mistral's own file says
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"]["ignore_merges"] = True
        (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(TEMPLATES[kind], encoding="utf-8")
    config = CASES[MODELS[kind]]
    options = {**config.to_dict(), "vocab_size": len(reference.hf) // 32 * 32 + 32}
    if kind == "tekken":
        options["hidden_act"] = "silu"
    model = AutoModelForCausalLM.from_config(type(config)(**options))
    randomise(model)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("tokenizers")
    folder = make_folder(request.param, path / "hf")
    export_gguf(Source.open(folder), path / "out.gguf")
    return Exported(request.param, folder, path / "out.gguf")


@pytest.fixture
def ours(exported: Exported) -> Iterator[TextSide]:
    side = TextSide(exported.folder)
    yield side
    side.close()


def test_every_kind_is_here() -> None:
    assert {*MODELS} - {"qwen3"} == {*MAKERS}


def test_our_reader_gives_the_same_ids(exported: Exported, ours: TextSide) -> None:
    back = TextSide(exported.gguf)
    try:
        for text in strings(exported.kind):
            assert back.encode(text) == ours.encode(text), text
        for name, messages in conversations(exported.kind).items():
            assert back.encode_chat(messages) == ours.encode_chat(messages), name
        both = zip(ours.pieces(), back.pieces(), strict=True)
        assert [pair for pair in both if pair[0] and pair[0] != pair[1]] == []
        assert back.tokenizer.special_ids.items() >= ours.tokenizer.special_ids.items()
        assert back.tokenizer.eos_ids >= ours.tokenizer.eos_ids  # of a GGUF the well-known ends of a turn count too
        assert back.tokenizer.bos_id == ours.tokenizer.bos_id
    finally:
        back.close()


@llama_cpp
def test_llama_cpp_gives_the_same_ids(exported: Exported, ours: TextSide) -> None:
    llama = LlamaSide("llama.cpp", exported.gguf, 1)
    try:
        n_same = 0
        for text in strings(exported.kind):
            if exported.kind.startswith("qwen") and any(part in text for part in DECOMPOSED):
                continue
            assert llama.encode(text) == ours.encode(text), text
            n_same += 1
        assert n_same > 200
        for name, messages in conversations(exported.kind).items():
            if name != CONTROL:  # there llama.cpp takes what the user wrote for the token itself
                assert llama.encode_chat(messages) == ours.encode_chat(messages), name
    finally:
        llama.close()


@llama_cpp
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("tokenizer", ["gpt-2", "qwen2", "qwen3", "sentencepiece-prepend", "sentencepiece-gemma"])
def test_llama_cpp_answers_from_every_type(tokenizer: str, kind: GGUFType, tmp_path: Path) -> None:
    folder = make_folder(tokenizer, tmp_path / "hf")
    export_gguf(Source.open(folder), tmp_path / "out.gguf", kind)
    ours, llama = TextSide(folder), LlamaSide("llama.cpp", tmp_path / "out.gguf", 1)
    try:
        for text in STRINGS[5:25:5]:
            assert llama.encode(text) == ours.encode(text), text
        assert llama.encode_chat(CHATS["zh"]) == ours.encode_chat(CHATS["zh"])
        assert len(llama.greedy(ours.encode("The capital"), 4)) in range(1, 5)
    finally:
        llama.close()
        ours.close()


def test_merges_that_scores_cannot_say_are_refused(tmp_path: Path) -> None:
    folder = make_folder("sentencepiece-first", tmp_path / "hf")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"].pop()  # SentencePiece knows no token that may not be made in one of its ways
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InvalidModelError, match="cannot say how this tokenizer merges"):
        export_gguf(Source.open(folder), tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
