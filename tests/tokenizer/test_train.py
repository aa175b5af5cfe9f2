"""Tokenizers trained here: every text comes back, Transformers agrees, and nobody's text is a control token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, GPT2Tokenizer

import chatwright
from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.tokenizer import ChatTemplate, TemplateRenderer, encode_chat, load_chat_template, load_tokenizer
from chatwright.tokenizer.chat_formats import GEMMA
from chatwright.tokenizer.corpus import PAGE_CHARS, measure, pages, sample
from chatwright.tokenizer.patterns import QWEN2_REGEX
from chatwright.tokenizer.special import SPECIAL_TOKENS
from chatwright.tokenizer.train import (
    MIN_VOCAB_SIZE,
    Pattern,
    TrainedTokenizer,
    chatml_template,
    choose_vocab_size,
    train_tokenizer,
)
from chatwright.tokenizer.vocab_size import explain_vocab_size
from tests.tokenizer.conftest import TEXTS

SOURCE = Path(chatwright.__file__).parent
PATTERNS: tuple[Pattern, ...] = ("qwen2", "gpt2")
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def corpus() -> list[str]:
    """Half a megabyte that lies at hand: Python and English, and the Chinese of our own messages."""
    files = sorted(
        [*SOURCE.rglob("tokenizer/*.py"), *SOURCE.rglob("locale/zh/*.json"), *SOURCE.rglob("server/**/*.py")]
    )
    return [file.read_text(encoding="utf-8") for file in files]


@pytest.fixture(scope="module")
def trained() -> dict[Pattern, TrainedTokenizer]:
    return {pattern: train_tokenizer(corpus(), 2048, pattern) for pattern in PATTERNS}


@pytest.fixture(params=PATTERNS)
def one(request: pytest.FixtureRequest, trained: dict[Pattern, TrainedTokenizer]) -> TrainedTokenizer:
    return trained[request.param]


def test_the_vocabulary_has_the_size_asked_for_and_ends_with_the_control_tokens(one: TrainedTokenizer) -> None:
    tokenizer = one.tokenizer
    assert one.vocab_size == tokenizer.vocab_size == 2048
    assert list(tokenizer.special_ids) == list(SPECIAL_TOKENS)
    assert list(tokenizer.special_ids.values()) == list(range(2042, 2048))
    assert {tokenizer.special_ids["<|endoftext|>"], tokenizer.special_ids["<|im_end|>"]} == tokenizer.eos_ids


@given(text=ANY_TEXT)
def test_every_text_comes_back(trained: dict[Pattern, TrainedTokenizer], text: str) -> None:
    for pattern in PATTERNS:
        tokenizer = trained[pattern].tokenizer
        expected = unicodedata.normalize("NFC", text) if pattern == "qwen2" else text
        ids = tokenizer.encode(text)
        assert b"".join(map(tokenizer.token_bytes, ids)).decode() == expected
        assert tokenizer.hidden_ids.isdisjoint(ids)


def test_every_byte_is_a_token(one: TrainedTokenizer) -> None:
    tokens = [one.tokenizer.token_bytes(i) for i in range(one.vocab_size)]
    assert {token for token in tokens if len(token) == 1} == {bytes([byte]) for byte in range(256)}
    assert len(set(tokens)) == len(tokens) - len(SPECIAL_TOKENS) + 1


def test_the_text_of_a_control_token_is_text(one: TrainedTokenizer) -> None:
    tokenizer = train_tokenizer(["".join(SPECIAL_TOKENS) * 50] * 50, 400, one.pattern).tokenizer
    for text in SPECIAL_TOKENS:
        ids = tokenizer.encode(f"a{text}b")
        assert tokenizer.hidden_ids.isdisjoint(ids)
        assert tokenizer.decode(ids) == f"a{text}b"


def test_transformers_gives_the_same_ids(one: TrainedTokenizer, tmp_path: Path) -> None:
    one.save(tmp_path)
    ours, loaded = one.tokenizer, load_tokenizer(tmp_path)
    assert loaded.eos_ids == ours.eos_ids
    assert loaded.special_ids == ours.special_ids
    for model_type in (None, "qwen3", "gpt2", "llama"):
        if model_type:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        hf = AutoTokenizer.from_pretrained(tmp_path)
        assert len(hf) == one.vocab_size
        for text in [*TEXTS, *corpus()[:3]]:
            assert hf(text).input_ids == ours.encode(text) == loaded.encode(text), (text, model_type)
            assert hf.decode(ours.encode(text)) == ours.decode(ours.encode(text))
        for text in SPECIAL_TOKENS:
            assert hf.convert_tokens_to_ids(text) == ours.special_ids[text]
            assert hf(f"a{text}b", split_special_tokens=True).input_ids == ours.encode(f"a{text}b")


def test_gpt2s_own_class_reads_vocab_and_merges(trained: dict[Pattern, TrainedTokenizer], tmp_path: Path) -> None:
    trained["gpt2"].save(tmp_path)
    ours = trained["gpt2"].tokenizer
    for _ in range(2):  # with tokenizer.json, and without
        hf, loaded = GPT2Tokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
        for text in TEXTS:
            assert hf(text).input_ids == ours.encode(text) == loaded.encode(text)
        assert hf.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(ours.special_ids.values())
        assert hf.eos_token_id == ours.special_ids["<|endoftext|>"]
        assert loaded.eos_ids == ours.eos_ids
        (tmp_path / "tokenizer.json").unlink(missing_ok=True)


def test_it_compresses_as_the_library_alone_does(trained: dict[Pattern, TrainedTokenizer]) -> None:
    texts = corpus()
    alone = LibraryTokenizer(BPE())
    alone.normalizer = normalizers.NFC()
    alone.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=2048, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    alone.train_from_iterator(texts, trainer)
    ours = measure(trained["qwen2"].tokenizer, (("all", text) for text in texts))["all"].bytes_per_token
    theirs = sum(len(text.encode()) for text in texts) / sum(
        len(e.ids) for e in alone.encode_batch(texts, add_special_tokens=False)
    )
    assert ours > 2.5
    assert ours == pytest.approx(theirs, rel=0.01), "the same text, pattern and size"
    sampled = train_tokenizer(sample(texts, 600_000, 300_000), 2048).tokenizer
    assert measure(sampled, (("all", text) for text in texts))["all"].bytes_per_token == pytest.approx(theirs, rel=0.1)


def test_the_same_text_gives_the_same_tokenizer_whatever_the_threads(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from chatwright.tokenizer.train import train_tokenizer;"
        "texts = Path(sys.argv[1]).read_text().split('\\f');"
        "train_tokenizer(texts, 1024).save(Path(sys.argv[2]))"
    )
    (tmp_path / "corpus").write_text("\f".join(corpus()))
    for name, threads in (("one", "1"), ("four", "4")):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "corpus"), str(tmp_path / name)],
            check=True,
            env=os.environ | {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"},
        )
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "four" / file.name).read_bytes(), file.name


def test_a_small_text_gives_a_smaller_vocabulary() -> None:
    trained = train_tokenizer(["ab ab"], 5000)
    assert trained.vocab_size < 300
    assert trained.tokenizer.decode(trained.tokenizer.encode("ab 好")) == "ab 好"


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_without_text_there_is_nothing_to_train_on(texts: list[str]) -> None:
    with pytest.raises(InvalidDatasetError, match="no text"):
        train_tokenizer(texts, 1000)


@pytest.mark.parametrize("size", [0, -1, MIN_VOCAB_SIZE - 1, 10**9])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match="vocabulary"):
        train_tokenizer(["text"], size)


def test_a_text_without_blanks_and_halves_of_surrogates_do_no_harm() -> None:
    trained = train_tokenizer(["天地玄黄宇宙洪荒" * 20_000, "a\ud800b"], 400)
    longest = max(len(trained.tokenizer.token_bytes(i).decode(errors="ignore")) for i in range(trained.vocab_size))
    assert longest <= 256


def test_the_chat_template_says_the_same_here_and_in_transformers(tmp_path: Path, one: TrainedTokenizer) -> None:
    one.save(tmp_path)
    template = load_chat_template(tmp_path)
    assert template is not None
    assert template.source == chatml_template()
    hf = AutoTokenizer.from_pretrained(tmp_path)
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "巴黎"}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "It is.", "tool_calls": [call, call]},
    ]
    tools = [{"type": "function", "function": {"name": "weather", "description": "天气"}}]
    for n in range(1, len(messages) + 1):
        for more in ({}, {"tools": tools}):
            ids = hf.apply_chat_template(messages[:n], add_generation_prompt=True, return_dict=False, **more)
            assert ids == encode_chat(one.tokenizer, template, messages[:n], **more)
    template.close()


def test_gemmas_turns_are_those_of_googles_own_template(renderer: TemplateRenderer) -> None:
    template = ChatTemplate(GEMMA.source, {"bos_token": "<bos>"}, renderer)
    messages = [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": " 你好 "},
        {"role": "assistant", "content": "Hi.\n"},
        {"role": "user", "content": "Bye"},
    ]
    assert template.render(messages) == (
        "<bos><start_of_turn>user\nBe brief.\n\n\n你好<end_of_turn>\n<start_of_turn>model\nHi.<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )


def test_chatml_is_what_everybody_calls_so(renderer: TemplateRenderer) -> None:
    template = ChatTemplate(chatml_template(), {}, renderer)
    messages = [{"role": role, "content": role.upper()} for role in ("system", "user", "assistant", "tool")]
    assert template.render(messages) == (
        "<|im_start|>system\nSYSTEM<|im_end|>\n<|im_start|>user\nUSER<|im_end|>\n"
        "<|im_start|>assistant\nASSISTANT<|im_end|>\n<|im_start|>tool\nTOOL<|im_end|>\n<|im_start|>assistant\n"
    )


@given(n_bytes=st.integers(0, 10**13), n_parameters=st.none() | st.integers(10**4, 10**11))
def test_the_chosen_size_is_affordable_and_taught(n_bytes: int, n_parameters: int | None) -> None:
    choice = explain_vocab_size(n_bytes, n_parameters)
    assert choice.size == choose_vocab_size(n_bytes, n_parameters)
    assert choice.size % 64 == 0
    assert 512 <= choice.size <= 32768
    assert choice.size in (choice.by_text, choice.by_model, 512, 8192, 32768)
    assert choose_vocab_size(2 * n_bytes, n_parameters) >= choice.size


def test_small_models_get_small_vocabularies() -> None:
    sizes = [choose_vocab_size(10**9, n) for n in (10**6, 3 * 10**6, 10**7, 3 * 10**7, 10**8)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 3072
    assert 4096 <= sizes[2] <= 8192


@given(st.lists(st.integers(1, 400), max_size=60), st.floats(0.05, 2))
def test_a_sample_is_spread_evenly(lengths: list[int], share: float) -> None:
    texts = [chr(97 + i % 26) * n for i, n in enumerate(lengths)]
    n_bytes = sum(lengths)
    taken = list(sample(texts, n_bytes, int(n_bytes * share)))
    if share >= 1:
        assert taken == texts
    assert abs(sum(map(len, taken)) - min(1, share) * n_bytes) <= max(lengths, default=0) + 1
    assert taken == list(sample(texts, n_bytes, int(n_bytes * share)))


@given(st.lists(st.sampled_from(["好", "\n", "x" * 50_000, "y" * 70_000]), max_size=8))
def test_pages_are_the_text(parts: list[str]) -> None:
    text = "".join(parts)
    cut = list(pages(text))
    assert "".join(cut) == text
    assert all(len(page) <= PAGE_CHARS for page in cut)
