"""/v1/tokenize and /v1/detokenize: exactly the tokens that the other endpoints count and continue."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.server.harness import MODEL, RunningServer, assert_error

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello 你好 🙂"}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


def tokenize(server: RunningServer, **body: Any) -> dict[str, Any]:
    response = server.post("/v1/tokenize", {"model": MODEL, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == server.model.context_length
    return answer


@pytest.mark.parametrize("text", ["The capital", "你好，世界！🙂", " leading and trailing ", "<|im_end|>", ""])
def test_text_comes_back(server: RunningServer, text: str) -> None:
    ids = tokenize(server, prompt=text)["tokens"]
    response = server.post("/v1/detokenize", {"model": MODEL, "tokens": ids})
    assert response.json() == {"prompt": text}


def test_a_prompt_has_the_tokens_that_completions_count(server: RunningServer) -> None:
    answer = tokenize(server, prompt="The capital 你好", return_token_strs=True)
    completion = server.complete(prompt="The capital 你好", max_tokens=0, echo=True, logprobs=0)
    assert completion["usage"]["prompt_tokens"] == answer["count"]
    assert answer["token_strs"][0] == completion["choices"][0]["logprobs"]["tokens"][0]
    assert (
        completion["choices"][0]["text"]
        == server.complete(prompt=answer["tokens"], max_tokens=0, echo=True)["choices"][0]["text"]
    )


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_a_conversation_has_the_tokens_that_chat_counts(server: RunningServer, tools: Any) -> None:
    body = {"messages": MESSAGES, **({"tools": tools} if tools else {})}
    answer = tokenize(server, **body)
    chat = server.post("/v1/chat/completions", {"model": MODEL, "max_tokens": 1, **body}).json()
    assert chat["usage"]["prompt_tokens"] == answer["count"]


def test_the_model_need_not_be_named_and_the_bare_path_works(server: RunningServer) -> None:
    assert server.post("/tokenize", {"prompt": "The"}).json() == tokenize(server, prompt="The")
    assert server.post("/detokenize", {"tokens": []}).json() == {"prompt": ""}


def test_a_text_longer_than_the_context_is_counted(server: RunningServer) -> None:
    assert tokenize(server, prompt="The " * 5000)["count"] > server.model.context_length


def test_without_marks(server: RunningServer) -> None:
    with_marks, without = (tokenize(server, prompt="The cat", add_special_tokens=on)["tokens"] for on in (True, False))
    assert "".join(map(str, without)) in "".join(map(str, with_marks))


def test_a_control_token_has_an_id_to_ask_for(server: RunningServer) -> None:
    """As lm-evaluation-harness does, which scores the first token of a text behind it."""
    with server.http() as http:
        info = http.get("/tokenizer_info").json()
        assert http.get("/v1/tokenizer_info", params={"model": MODEL}).json() == info
        assert_error(http.get("/v1/tokenizer_info", params={"model": "nobody"}), 404, "model_not_found")
    assert info["model_max_length"] == server.model.context_length
    assert info["eos_token"] == "<|im_end|>"
    assert "chat_template" not in info
    special = server.model.tokenizer.special_ids["<|im_end|>"]
    assert tokenize(server, prompt="<|im_end|>", add_special_tokens=False)["tokens"] == [special]
    assert special not in tokenize(server, prompt="<|im_end|>")["tokens"], "what completions would read is text"
    assert special not in tokenize(server, prompt="x<|im_end|>", add_special_tokens=False)["tokens"]


def test_what_is_not_asked_for_is_not_there(server: RunningServer) -> None:
    answer = server.post("/v1/tokenize", {"model": MODEL, "prompt": "The cat"})
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"count", "max_model_len", "tokens"}


def test_texts_of_tokens_are_not_written_on_the_event_loop(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million of them would keep everybody waiting for a second."""
    label, threads = server.model.token_label, set()

    def noting(token_id: int) -> str:
        threads.add(threading.current_thread())
        return label(token_id)

    monkeypatch.setattr(server.model, "token_label", noting)
    assert tokenize(server, prompt="The cat", return_token_strs=True)["token_strs"]
    assert len(threads) == 1
    assert server.thread not in threads


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "nothing": ("tokenize", {}, "prompt"),
    "both": ("tokenize", {"prompt": "x", "messages": MESSAGES}, "prompt"),
    "no messages": ("tokenize", {"messages": []}, "messages"),
    "a number": ("tokenize", {"prompt": 3}, "prompt"),
    "megabytes": ("tokenize", {"prompt": "x" * (2**20 + 1)}, "prompt"),
    "an image": ("tokenize", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
    "without the assistant's turn": (
        "tokenize",
        {"messages": MESSAGES, "add_generation_prompt": False},
        "add_generation_prompt",
    ),
    "an open turn": ("tokenize", {"messages": MESSAGES, "continue_final_message": True}, "continue_final_message"),
    "a template": ("tokenize", {"messages": MESSAGES, "chat_template": "{{ x }}"}, "chat_template"),
    "no tokens": ("detokenize", {}, "tokens"),
    "a text for tokens": ("detokenize", {"tokens": "x"}, "tokens"),
    "an id that is none": ("detokenize", {"tokens": [1, 10**6]}, "tokens"),
    "a negative id": ("detokenize", {"tokens": [-1]}, "tokens"),
}


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_a_400_that_names_the_field(server: RunningServer, name: str) -> None:
    path, body, param = BAD[name]
    assert_error(server.post(f"/v1/{path}", {"model": MODEL, **body}), 400, param=param)
    assert_error(server.post(f"/v1/{path}", {"prompt": "x", "tokens": [1], "model": "nobody"}), 404, "model_not_found")
