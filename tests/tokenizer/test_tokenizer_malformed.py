"""Broken, lying and unsupported tokenizer files are refused with a sentence that names what is wrong."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.errors import InvalidModelError
from chatwright.i18n import describe_error
from chatwright.tokenizer import load_chat_template, load_tokenizer
from chatwright.tokenizer.tokenizer import Tokenizer

NOWHERE = Path("no folder")


@pytest.fixture
def content(references):
    return json.loads((references["smollm"].folder / "tokenizer.json").read_text())


def load_json(folder, content):
    (folder / "tokenizer.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return load_tokenizer(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"model": 1}', '{"model": {}}', "[" * 100_000, '{"model": {"type": "BPE"}}']
)
def test_files_that_are_no_tokenizer(tmp_path, text):
    with pytest.raises(InvalidModelError, match=r"tokenizer\.json"):
        load_json(tmp_path, text)


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece", "WordLevel", "Magic", 7])
def test_other_kinds_are_refused_by_name(tmp_path, content, kind):
    content["model"]["type"] = kind
    with pytest.raises(InvalidModelError, match=str(kind)):
        load_json(tmp_path, content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"merges": ["a zzz"]}, "not in the vocabulary"),
        ({"merges": ["a b c"]}, "not a merge"),
        ({"merges": [["a"]]}, "not a merge"),
        ({"merges": [None]}, "not a merge"),
        ({"merges": 7}, "not a list"),
        ({"vocab": {"a": 0, "b": 0}}, "given to two tokens"),
        ({"vocab": {"a": -1}}, "out of range"),
        ({"vocab": {"a": 2**31}}, "out of range"),
        ({"vocab": {"a": "0"}}, "texts to numbers"),
        ({"vocab": {"\ud800": 0}}, "not Unicode"),
        ({"vocab": {}}, "empty"),
        ({"vocab": []}, "empty"),
        ({"end_of_word_suffix": "</w>"}, "suffixes"),
        ({"vocab": {"a": 10}, "merges": [], "unk_token": "missing"}, "'missing' is not in the vocabulary"),
        ({"unk_token": 7}, "unk_token is not text"),
    ],
)
def test_lying_models_are_refused(tmp_path, content, change, reason):
    content["model"] |= change
    with pytest.raises(InvalidModelError, match=reason):
        load_json(tmp_path, content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pre_tokenizer": {"type": "Nonsense"}}, "cannot be built"),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
            "built",
        ),
        ({"normalizer": 7}, "cannot be built"),
        ({"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}, "this kind of BPE"),
        ({"added_tokens": {"a": 1}}, "not a list"),
        ({"added_tokens": [{"content": "x"}]}, "added token"),
        ({"added_tokens": [7]}, "added token"),
        ({"added_tokens": [{"id": 300, "content": "<new>", "special": True}]}, "two tokens"),
        ({"added_tokens": [{"id": 2**40, "content": "<new>", "special": True}]}, "out of range"),
    ],
)
def test_lying_pipelines_are_refused(tmp_path, content, change, reason):
    with pytest.raises(InvalidModelError, match=reason):
        load_json(tmp_path, content | change)


def test_folders_without_a_usable_tokenizer_say_so(tmp_path):
    with pytest.raises(InvalidModelError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0b")
    with pytest.raises(InvalidModelError, match=r"tokenizer\.model"):
        load_tokenizer(tmp_path)


def test_merges_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidModelError, match="not UTF-8"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("model", ["bert", "t5", "rwkv", "plamo2", "gemma4", "none", None, 7])
def test_other_kinds_of_gguf_tokenizer_are_refused_by_name(references, model):
    metadata = references["smollm"].gguf_metadata() | {"tokenizer.ggml.model": model}
    with pytest.raises(InvalidModelError, match=str(model) if model else "no tokenizer"):
        load_tokenizer(NOWHERE, metadata)


@pytest.mark.parametrize("pre", ["deepseek-v3", "", None, 7, ["smollm"]])
def test_unknown_pre_tokenizers_are_refused_with_the_names_of_the_known(references, pre):
    metadata = references["smollm"].gguf_metadata() | {"tokenizer.ggml.pre": pre}
    with pytest.raises(InvalidModelError, match="smollm"):
        load_tokenizer(NOWHERE, metadata)


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": 7},
        {"tokens": "abc"},
        {"tokens": []},
        {"tokens": [1, 2]},
        {"tokens": ["a", "b"]},
        {"merges": None},
        {"merges": "a b"},
        {"merges": ["nope nope"]},
        {"token_type": [1]},
        {"token_type": ["1"] * 300},
        {"bos_token_id": 10**9},
        {"bos_token_id": -1},
        {"eos_token_id": "x"},
        {"eot_token_id": 10**9},
    ],
)
def test_lying_gguf_metadata_is_refused(references, change):
    metadata = references["smollm"].gguf_metadata() | {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    with pytest.raises(InvalidModelError):
        load_tokenizer(NOWHERE, metadata)


@pytest.mark.parametrize("scores", [None, [0.5], ["x"] * 1000])
def test_sentencepiece_gguf_without_honest_scores_is_refused(references, scores):
    metadata = references["sentencepiece-first"].gguf_metadata() | {"tokenizer.ggml.scores": scores}
    with pytest.raises(InvalidModelError):
        load_tokenizer(NOWHERE, metadata)


def test_a_repeated_token_of_gguf_keeps_its_place_and_the_first_id(references):
    metadata = references["smollm"].gguf_metadata()
    plain = load_tokenizer(NOWHERE, metadata)
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "<|im_end|>", "a"]
    metadata["tokenizer.ggml.token_type"] = [*metadata["tokenizer.ggml.token_type"], 3, 1]
    padded = load_tokenizer(NOWHERE, metadata)
    assert padded.encode("a banana") == plain.encode("a banana")
    assert padded.special_ids == plain.special_ids
    assert padded.vocab_size == plain.vocab_size + 2


def test_merges_that_would_write_a_control_token_are_left_out(tmp_path, content):
    vocab = content["model"]["vocab"]
    vocab["<s"], vocab["<s>"] = 5000, 5001
    content["model"]["merges"] = [["<", "s"], ["<s", ">"], *content["model"]["merges"]]
    content["model"]["ignore_merges"] = True
    content["added_tokens"].append({"id": 5001, "content": "<s>", "special": True})
    tokenizer = load_json(tmp_path, content)
    assert tokenizer.special_ids["<s>"] == 5001
    assert 5001 not in tokenizer.encode("<s> x<s>")
    assert tokenizer.decode(tokenizer.encode("<s> x<s>")) == "<s> x<s>"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=5), child, max_size=3),
    max_leaves=5,
)


def damaged(value, path, replacement):
    """`value` with the place that `path` leads to replaced."""
    value = copy.copy(value)
    if isinstance(value, dict | list) and value and path:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[path[0] % len(keys)]
        value[key] = damaged(value[key], path[1:], replacement)
        return value
    return replacement


@settings(deadline=None, max_examples=60)
@given(path=st.lists(st.integers(0, 5000), min_size=1, max_size=5), replacement=JSON)
def test_damaged_files_load_or_are_refused_but_never_crash(references, tmp_path_factory, path, replacement):
    folder = tmp_path_factory.mktemp("damaged")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        original = json.loads((references["sentencepiece-first"].folder / name).read_text())
        (folder / name).write_text(json.dumps(damaged(original, path, replacement)))
    try:
        tokenizer = load_tokenizer(folder)
        tokenizer.decode(tokenizer.encode("Hello 你好 <s>"))
    except InvalidModelError as error:
        describe_error(error, "zh")
    shutil.rmtree(folder)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), replacement=JSON, kind=st.sampled_from(["smollm", "sentencepiece-first"]))
def test_damaged_metadata_loads_or_is_refused_but_never_crashes(references, seed, replacement, kind):
    metadata = references[kind].gguf_metadata()
    key = random.Random(seed).choice(sorted(metadata))
    try:
        assert isinstance(load_tokenizer(NOWHERE, metadata | {key: replacement}), Tokenizer)
        load_chat_template(NOWHERE, {"tokenizer.ggml.tokens": replacement})
    except InvalidModelError as error:
        describe_error(error, "zh")
