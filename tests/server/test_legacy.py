"""The wire of openai < 1.0 and of Azure: paths with the model's name in them, old names, engines and edits."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.server.conftest import KEY
from tests.server.harness import MODEL, RunningServer, assert_error, events_of

# What openai 0.28.1 sends beside the body.
OLD_CLIENT = {
    "User-Agent": "OpenAI/v1 PythonBindings/0.28.1",
    "X-OpenAI-Client-User-Agent": '{"bindings_version": "0.28.1", "httplib": "requests", "lang": "python"}',
    "OpenAI-Organization": "",
    "Authorization": "Bearer anything",
}


@pytest.mark.parametrize("base", ["", "/v1"])
@pytest.mark.parametrize("name", [MODEL, "text-davinci-002", "davinci", "gpt-3.5-turbo"])
def test_engines_complete_and_chat_under_the_name_asked_for(server: RunningServer, base: str, name: str) -> None:
    body: dict[str, Any] = {"prompt": "The capital of", "max_tokens": 3, "temperature": 0}
    for path in (f"/engines/{name}/completions", f"/engines/{name}/generate"):
        answer = server.post(base + path, body, headers=OLD_CLIENT)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["model"], answer.json()["object"]) == (name, "text_completion")
    events = events_of(server.post(f"{base}/engines/{name}/completions", {**body, "stream": True}).text)
    assert {event["model"] for event in events} == {name}
    messages = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    answer = server.post(f"{base}/engines/{name}/chat/completions", messages, headers=OLD_CLIENT)
    assert (answer.json()["model"], answer.json()["object"]) == (name, "chat.completion")


def test_the_name_in_the_path_counts_and_is_unquoted(server: RunningServer) -> None:
    body = {"model": "no-such-model", "prompt": "x", "max_tokens": 1}
    assert server.post(f"/v1/engines/{MODEL}/completions", body).json()["model"] == MODEL
    for name in ("org%2Fname", "a%20b", "..%2F..%2Fetc%2Fpasswd", "%00", "x%5C..%5Cy", "%E4%BD%A0"):
        message = assert_error(server.post(f"/v1/engines/{name}/completions", body), 404, "model_not_found", "model")
        assert "passwd" not in message or "../../etc/passwd" in message
        with server.http() as http:
            assert_error(http.get(f"/v1/engines/{name}"), 404, "model_not_found")
            assert_error(http.get(f"/v1/models/{name}"), 404, "model_not_found")


@pytest.mark.parametrize("base", ["", "/v1"])
def test_engines_and_models_are_listed_and_retrieved(server: RunningServer, base: str) -> None:
    with server.http(headers=OLD_CLIENT) as http:
        engines = http.get(f"{base}/engines").json()
        assert engines == {
            "object": "list",
            "data": [{"id": MODEL, "object": "engine", "owner": "chatwright", "permissions": None, "ready": True}],
        }
        assert http.get(f"{base}/engines/{MODEL}").json() == engines["data"][0]
        models = http.get(f"{base}/models").json()
        assert models["object"] == "list"
        assert [model["id"] for model in models["data"]] == [MODEL]
        assert http.get(f"{base}/models/{MODEL}").json() == models["data"][0]
        assert http.get(f"{base}/models/gpt-3.5-turbo").json()["id"] == "gpt-3.5-turbo"
        assert_error(http.get(f"{base}/models/no-such-model"), 404, code="model_not_found", param="model")


def test_edits_answer_in_their_old_shape(server: RunningServer) -> None:
    body = {"model": "text-davinci-edit-001", "input": "Thee cat", "instruction": "Correct it.", "n": 2}
    for path, name in (("/v1/edits", None), ("/edits", MODEL), (f"/v1/engines/{MODEL}/edits", None)):
        answer = server.post(path, {**body, "model": name or body["model"]}, headers=OLD_CLIENT).json()
        assert answer["object"] == "edit"
        assert [choice["index"] for choice in answer["choices"]] == [0, 1]
        assert set(answer["choices"][0]) == {"text", "index"}
        assert answer["usage"]["total_tokens"] == (
            answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
        )
    assert_error(server.post("/v1/edits", {"model": MODEL, "input": "x"}), 400, param="instruction")
    assert_error(server.post("/v1/edits", {"input": "x", "instruction": "y"}), 400, code="missing_model")


def test_azure_clients_are_served(keyed: RunningServer) -> None:
    with (
        openai.AzureOpenAI(
            azure_endpoint=keyed.url, api_version="2024-06-01", azure_deployment=MODEL, api_key="x", max_retries=0
        ) as azure,
        pytest.raises(openai.AuthenticationError),
    ):
        azure.completions.create(model=MODEL, prompt="x")
    path = f"/openai/deployments/{MODEL}/completions?api-version=2023-05-15"
    headers = {"api-key": KEY.encode()}
    assert keyed.post(path, {"prompt": "The", "max_tokens": 2}, headers=headers).json()["model"] == MODEL
    path = f"/openai/deployments/{MODEL}/chat/completions?api-version=2023-05-15"
    messages = [{"role": "user", "content": "Hi"}]
    assert keyed.post(path, {"messages": messages, "max_tokens": 2}, headers=headers).status_code == 200


def test_instruct_names_take_a_prompt_as_an_instruction(server: RunningServer) -> None:
    prompt = "The capital of"
    n_plain = len(server.model.tokenizer.encode(prompt))

    def n_prompt(**body: Any) -> int:
        return int(server.complete(max_tokens=1, **body)["usage"]["prompt_tokens"])

    chat = server.post(
        "/v1/chat/completions",
        {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 12, "temperature": 0},
    ).json()
    for name in ("text-davinci-002", "text-davinci-003", "text-ada-001", "gpt-3.5-turbo-instruct"):
        answer = server.complete(model=name, prompt=prompt, max_tokens=12, temperature=0)
        assert answer["model"] == name
        assert answer["usage"].items() <= chat["usage"].items()
        assert answer["choices"][0]["text"] == chat["choices"][0]["message"]["content"]
        assert n_prompt(model=name, prompt=[prompt]) == chat["usage"]["prompt_tokens"]
        assert n_prompt(model=name, prompt=prompt, echo=True) == n_plain
        assert n_prompt(model=name, prompt=server.model.tokenizer.encode(prompt)) == n_plain
    for name in ("davinci", "davinci-002", MODEL, "gpt-3.5-turbo"):
        assert n_prompt(model=name, prompt=prompt) == n_plain


def test_unknown_names_and_no_name_are_refused(server: RunningServer) -> None:
    message = assert_error(
        server.post("/v1/completions", {"model": "gpt-9000", "prompt": "x"}), 404, "model_not_found", "model"
    )
    assert "gpt-9000" in message
    assert MODEL in message
    for path, body in (
        ("completions", {"prompt": "x"}),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ):
        for model in ({}, {"model": None}, {"model": ""}):
            assert_error(server.post(f"/v1/{path}", {**body, **model}), 400, "missing_model", "model")
    for model in ("../../etc/passwd", "/etc/passwd", "C:\\x", "tiny\0", "tiny/", " tiny", "x" * 200):
        assert_error(server.post("/v1/completions", {"model": model, "prompt": "x"}), 404, "model_not_found", "model")
