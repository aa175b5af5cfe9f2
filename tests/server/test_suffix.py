"""`suffix`: a model trained to fill in is asked as it was trained; any other says that it was not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatwright.engine.tokenizers import load_text_side
from chatwright.model.describe import describe_model
from chatwright.model.gpt import GPT
from chatwright.model.init import initialise
from chatwright.model.presets import config_for_size
from chatwright.model.save import save_model
from chatwright.tokenizer import Tokenizer
from chatwright.tokenizer.fim import FimTokens
from chatwright.tokenizer.train import train_tokenizer
from tests.server.harness import MODEL, RunningServer, start_server
from tests.server.tiny import TEXT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says it fills in; its weights are as they were made."""
    folder = tmp_path_factory.mktemp("fim") / "tiny"
    trained = train_tokenizer(TEXT * 3, 384)
    model = GPT(config_for_size(150_000, trained.vocab_size, 128, "qwen3"))
    initialise(model, 0)
    save_model(model, folder, extra={"chatwright": {"fim": True}})
    trained.save(folder)
    return folder


@pytest.fixture(scope="module")
def filling(folder: Path) -> Iterator[RunningServer]:
    server = start_server(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_text_side(folder)[0]


def test_the_prompt_is_arranged_as_in_training(filling: RunningServer, tokenizer: Tokenizer) -> None:
    fim = FimTokens.of(tokenizer)
    assert fim is not None
    prompt, suffix = "def add(a, b):\n    ret", " + b\n<|fim_middle|>你好"
    ids = fim.prompt(tokenizer.encode(prompt), tokenizer.encode(suffix))
    marks = [fim.separator, fim.prefix, fim.suffix, fim.middle]
    assert [i for i in ids if i in tokenizer.hidden_ids] == marks, "and no text of the user's is one"
    asked: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "logprobs": 3}
    filled = filling.complete(prompt=prompt, suffix=suffix, **asked)
    by_ids = filling.complete(prompt=ids, **asked)
    assert filled["choices"] == [{**by_ids["choices"][0], "logprobs": filled["choices"][0]["logprobs"]}]
    assert filled["choices"][0]["logprobs"]["token_logprobs"] == by_ids["choices"][0]["logprobs"]["token_logprobs"]
    assert filled["usage"] == by_ids["usage"]
    from_ids = filling.complete(prompt=tokenizer.encode(prompt), suffix=suffix, **asked)
    assert from_ids["choices"][0]["text"] == filled["choices"][0]["text"]
    assert filling.complete(prompt=prompt, **asked)["choices"][0]["text"] != filled["choices"][0]["text"]


def test_each_of_several_prompts_gets_the_suffix(filling: RunningServer, tokenizer: Tokenizer) -> None:
    asked: dict[str, Any] = {"suffix": " x", "max_tokens": 4, "temperature": 0}
    both = filling.complete(prompt=["The", "你好"], **asked)
    alone = [filling.complete(prompt=prompt, **asked)["choices"][0]["text"] for prompt in ("The", "你好")]
    assert [choice["text"] for choice in both["choices"]] == alone
    n = sum(len(tokenizer.encode(text)) for text in ("The", "你好", " x", " x")) + 2 * 4
    assert both["usage"]["prompt_tokens"] == n


def test_nothing_may_stand_before(filling: RunningServer) -> None:
    assert filling.complete(prompt="", suffix="The end", max_tokens=3)["choices"]


@pytest.mark.parametrize("token", ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>", "<|im_end|>"])
def test_control_tokens_end_the_answer(filling: RunningServer, tokenizer: Tokenizer, token: str) -> None:
    answer = filling.complete(prompt="a", suffix="b", max_tokens=5, logit_bias={str(tokenizer.special_ids[token]): 100})
    assert answer["choices"][0]["text"] == ""
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_streamed_it_is_the_same(filling: RunningServer) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "The", "suffix": "!", "max_tokens": 8, "temperature": 0}
    lines = filling.post("/v1/completions", {**asked, "stream": True}).text.split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert text == filling.post("/v1/completions", asked).json()["choices"][0]["text"]


def test_echo_and_suffix_do_not_go_together(filling: RunningServer) -> None:
    response = filling.post("/v1/completions", {"model": MODEL, "prompt": "a", "suffix": "b", "echo": True})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "echo"


def test_what_does_not_fit_is_refused(filling: RunningServer) -> None:
    response = filling.post("/v1/completions", {"model": MODEL, "prompt": "a", "suffix": "b " * 200})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_a_model_that_was_not_trained_for_it_says_so(server: RunningServer) -> None:
    response = server.post("/v1/completions", {"model": MODEL, "prompt": "The", "suffix": "x"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("suffix", "unsupported_parameter")
    assert "not trained to fill in" in error["message"]
    assert server.complete(prompt="The", suffix="", max_tokens=1)


def test_the_mark_is_read_from_the_models_config(folder: Path, tmp_path: Path) -> None:
    assert describe_model(folder).fills_in
    config = json.loads((folder / "config.json").read_text())
    for own in (None, {}, {"fim": False}, {"fim": "yes"}, "fim"):
        (tmp_path / "config.json").write_text(json.dumps({**config, "chatwright": own}))
        (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        assert not describe_model(tmp_path).fills_in
