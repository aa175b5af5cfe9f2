"""Adapters of a running server: loaded and unloaded by name, by whoever has the admin token and nobody else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from safetensors.torch import load_file, save_file

from chatwright.hub.adapters import AdapterFolders
from tests.server.conftest import KEY, StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, events_of, http_request, read_response, wait_until
from tests.server.tiny import make_adapter

TOKEN = "token-printed-at-start-1234567890"
GREEDY = {"prompt": "The capital of", "temperature": 0, "max_tokens": 12}
LONG = {"max_tokens": 120, "temperature": 0, "logit_bias": {"2": -100}}
ROUTES = [
    ("GET", "/v1/lora_adapters", None),
    ("POST", "/v1/load_lora_adapter", {"lora_name": "shop"}),
    ("POST", "/v1/unload_lora_adapter", {"lora_name": "shop"}),
]


@dataclass
class Managed:
    """A server with a home folder that holds the adapters `shop` and, as a run, `law`."""

    server: RunningServer
    home: Path

    def ask(self, method: str, path: str, body: Any = None, key: str | None = TOKEN, **headers: str) -> httpx.Response:
        if key is not None:
            headers["Authorization"] = f"Bearer {key}".strip()
        with self.server.http() as http:
            return http.request(method, path, json=body, headers={k: v.encode() for k, v in headers.items()})

    def load(self, name: str, path: str | None = None, **more: Any) -> httpx.Response:
        body = {"lora_name": name, **({"lora_path": path} if path is not None else {}), **more}
        return self.ask("POST", "/v1/load_lora_adapter", body)

    def unload(self, name: str) -> httpx.Response:
        return self.ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def listed(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.ask("GET", "/v1/lora_adapters").json()["data"]
        return listed

    def models(self) -> dict[str, str | None]:
        """Name → parent."""
        return {model["id"]: model.get("parent") for model in self.ask("GET", "/v1/models").json()["data"]}

    def text(self, model: str) -> str:
        response = self.ask("POST", "/v1/completions", {"model": model, **GREEDY})
        assert response.status_code == 200, response.text
        text: str = response.json()["choices"][0]["text"]
        return text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_adapter(model_folder, home / "adapters" / "shop", 1)
    make_adapter(model_folder, home / "runs" / "law" / "adapter", 2)
    return home


@pytest.fixture(scope="module")
def shared(start: StartServer, home: Path) -> Managed:
    return Managed(start(home=home, admin_token=TOKEN), home)


@pytest.fixture
def managed(shared: Managed) -> Iterator[Managed]:
    """With nothing loaded before, nor left loaded after."""
    yield shared
    for adapter in shared.listed():
        if adapter["loaded"]:
            wait_until(lambda name=adapter["id"]: shared.unload(name).status_code == 200)  # type: ignore[misc]
    assert shared.models() == {MODEL: None}
    assert shared.text(MODEL)


def test_an_adapter_is_loaded_answers_as_a_model_of_its_own_and_goes(managed: Managed) -> None:
    plain = managed.text(MODEL)
    assert managed.listed() == [
        {"id": "law", "object": "lora_adapter", "loaded": False},
        {"id": "shop", "object": "lora_adapter", "loaded": False},
    ]
    loaded = managed.load("shop")
    assert loaded.status_code == 200, loaded.text
    entry = {"id": "shop", "object": "lora_adapter", "loaded": True, "base_model": MODEL, "source": "shop"}
    assert loaded.json() == entry
    assert managed.load("lawyer", "law").status_code == 200
    assert managed.models() == {MODEL: None, "shop": MODEL, "lawyer": MODEL}
    assert managed.listed() == [entry, {**entry, "id": "lawyer", "source": "law"}]

    alone = {name: managed.text(name) for name in (MODEL, "shop", "lawyer")}
    assert alone[MODEL] == plain
    assert len(set(alone.values())) == 3
    with ThreadPoolExecutor() as pool:
        names = list(alone) * 3
        assert list(pool.map(managed.text, names)) == [alone[name] for name in names]

    gone = managed.unload("shop")
    assert (gone.status_code, gone.json()["loaded"]) == (200, False)
    assert_error(managed.ask("POST", "/v1/completions", {"model": "shop", **GREEDY}), 404, code="model_not_found")
    assert_error(managed.ask("GET", "/v1/models/shop"), 404, code="model_not_found")
    assert_error(managed.unload("shop"), 404, code="adapter_not_found", param="lora_name")
    assert managed.text("lawyer") == alone["lawyer"]
    assert managed.load("shop").status_code == 200
    assert managed.text("shop") == alone["shop"]


def test_the_official_client_can_do_it(managed: Managed) -> None:
    with openai.OpenAI(base_url=f"{managed.server.url}/v1", api_key=TOKEN, max_retries=0) as client:
        client.post("/load_lora_adapter", cast_to=object, body={"lora_name": "shop", "lora_path": "shop"})
        assert [model.id for model in client.models.list()] == [MODEL, "shop"]
        chat = [{"role": "user", "content": "Hello"}]
        answer = client.chat.completions.create(model="shop", messages=chat, max_tokens=5)  # type: ignore[arg-type]
        assert answer.model == "shop"
        client.post("/unload_lora_adapter", cast_to=object, body={"lora_name": "shop"})
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="shop", messages=chat)  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
@pytest.mark.parametrize("key", [None, "", "whatever", KEY, TOKEN[:-1], TOKEN + "x", TOKEN.upper()])
def test_without_the_token_nothing_is_told_or_changed(
    managed: Managed, method: str, path: str, body: Any, key: str | None
) -> None:
    response = managed.ask(method, path, body, key)
    message = assert_error(response, 401, code="invalid_admin_token")
    assert TOKEN not in message
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_a_server_without_a_token_changes_nothing(server: RunningServer, method: str, path: str, body: Any) -> None:
    for key in (None, "", "None", "whatever"):
        assert_error(Managed(server, Path()).ask(method, path, body, key), 403, code="no_admin_token")


def test_the_key_of_those_who_ask_is_not_the_token_of_those_who_manage(start: StartServer, home: Path) -> None:
    keyed = Managed(start(api_key=KEY, admin_token=TOKEN, home=home), home)
    for method, path, body in ROUTES:
        assert_error(keyed.ask(method, path, body, KEY), 403, code="not_admin")
        assert_error(keyed.ask(method, path, body, None), 401, code="invalid_api_key")
        assert_error(keyed.ask(method, path, body, "wrong"), 401, code="invalid_api_key")
    assert keyed.load("shop").status_code == 200
    # The token opens what the key opens.
    assert keyed.text("shop")
    assert keyed.ask("POST", "/v1/completions", {"model": "shop", **GREEDY}, KEY).status_code == 200


def test_a_page_of_another_site_cannot_use_even_a_stolen_token(managed: Managed) -> None:
    """What a browser would send for a page elsewhere: its Origin, a name that was rebound, a form."""
    body = {"lora_name": "shop"}
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"X-Forwarded-For": "1.2.3.4"}):
        response = managed.ask("POST", "/v1/load_lora_adapter", body, **headers)
        assert_error(response, 403, code="foreign_request")
    with managed.server.connect() as sock:
        fields = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain"}
        sock.sendall(http_request("POST", "/v1/load_lora_adapter", json.dumps(body).encode(), fields))
        assert read_response(sock)[0] == 415
    assert managed.models() == {MODEL: None}


PATHS = [
    "../shop",
    "..",
    ".",
    "/etc",
    "/etc/passwd",
    "shop/../law",
    "shop/../../x",
    "adapters/../shop",
    "a/b/c",
    "shop/",
    "./shop",
    "~/shop",
    "~root",
    "C:\\shop",
    "\\\\host\\share",
    "..\\shop",
    "shop\\adapter",
    "%2e%2e%2fshop",
    "shop\x00",
    "shop\n",
    "file:///etc",
    "http://evil.example/x",
    "sh op",
    "适配器",
    " shop",
    "con",
    "x" * 500,
    "-x",
    "$HOME",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_never_followed_but_refused_with_the_reason(managed: Managed, path: str) -> None:
    message = assert_error(managed.load("mine", path), 400, code="invalid_value", param="lora_path")
    assert "never a path of the file system" in message
    if len(path) <= 300:
        assert "is not a name" in assert_error(managed.load(path, "shop"), 400, param="lora_name")


def test_an_absolute_path_into_the_home_folder_is_none_either(managed: Managed) -> None:
    path = str(managed.home / "adapters" / "shop")
    assert_error(managed.load("mine", path), 400, code="invalid_value", param="lora_path")


@pytest.fixture
def spoilt(managed: Managed, model_folder: Path) -> Iterator[Callable[[Callable[[Path], object]], str]]:
    """Copies `shop`, spoils the copy, and tells its name."""
    folder = managed.home / "adapters" / "spoilt"

    def make(spoil: Callable[[Path], object]) -> str:
        shutil.copytree(managed.home / "adapters" / "shop", folder)
        spoil(folder)
        return folder.name

    yield make
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def change_config(**changes: Any) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def change_weights(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
        change(weights)
        save_file(weights, file)

    return spoil


def first(weights: dict[str, Any], ending: str) -> str:
    return next(name for name in sorted(weights) if name.endswith(ending))


def with_value(value: float) -> Callable[[dict[str, Any]], object]:
    def change(weights: dict[str, Any]) -> None:
        weights[first(weights, "lora_B.weight")][0, 0] = value

    return change


def narrower(weights: dict[str, Any]) -> None:
    name = first(weights, "lora_A.weight")
    weights[name] = weights[name][:, :-1].contiguous()


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], object]:
    def change(weights: dict[str, Any]) -> None:
        for name in [name for name in weights if old in name]:
            weights[name.replace(old, new)] = weights.pop(name)

    return change


def cut_short(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    os.truncate(file, file.stat().st_size - 10)


def only_a_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def linked_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / "shop")


def linked_file(folder: Path) -> None:
    elsewhere = folder.parents[1] / "elsewhere.safetensors"
    (folder / "adapter_model.safetensors").replace(elsewhere)
    (folder / "adapter_model.safetensors").symlink_to(elsewhere)


def linked_run(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "adapter").symlink_to(folder.parent / "shop")


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "another shape": (change_weights(narrower), "does not fit this model"),
    "another rank": (change_config(r=3), "do not have the rank 3"),
    "a layer that is not there": (change_weights(renamed("q_proj", "x_proj")), "x_proj"),
    "a layer too many": (change_weights(renamed("layers.1.", "layers.9.")), "layers.9."),
    "one half of a factor": (
        change_weights(lambda weights: weights.pop(first(weights, "lora_A.weight"))),
        "the factors of the layer 'model.layers.0.mlp.down_proj'",
    ),
    "not a number": (change_weights(with_value(float("nan"))), "not a number"),
    "infinity": (change_weights(with_value(float("inf"))), "not a number"),
    "another method": (change_config(peft_type="IA3"), "only LORA"),
    "more than LoRA": (change_config(use_dora=True), "use_dora"),
    "no JSON": (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json"),
    "a list": (lambda folder: (folder / "adapter_config.json").write_text("[]"), "adapter_config.json"),
    "cut short": (cut_short, "adapter_model.safetensors"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "is missing"),
    "only a pickle": (only_a_pickle, "never loaded"),
    "a folder for weights": (
        lambda folder: (
            (folder / "adapter_model.safetensors").unlink(),
            (folder / "adapter_model.safetensors").mkdir(),
        ),
        "is missing",
    ),
    "a link in its place": (linked_folder, "symbolic link"),
    "a link among its files": (linked_file, "symbolic link"),
    "a link in a run": (linked_run, "symbolic link"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_cannot_be_used_is_refused_with_the_reason_and_the_server_goes_on(
    managed: Managed, spoilt: Callable[[Callable[[Path], object]], str], case: str
) -> None:
    assert managed.load("shop").status_code == 200
    before = managed.text("shop")
    spoil, reason = SPOILT[case]
    message = assert_error(managed.load("mine", spoilt(spoil)), 400, code="invalid_adapter", param="lora_path")
    assert reason in message
    assert managed.models() == {MODEL: None, "shop": MODEL}
    assert managed.text("shop") == before
    # What is refused is not half there: its name is free, and the next one gets it.
    assert managed.load("mine", "law").status_code == 200


def test_what_is_no_adapter_is_not_found(managed: Managed) -> None:
    (managed.home / "adapters" / "empty").mkdir(exist_ok=True)
    (managed.home / "runs" / "pretrained" / "model").mkdir(parents=True, exist_ok=True)
    (managed.home / "adapters" / "file").write_text("x")
    for name in ("absent", "empty", "pretrained", "file", "org/absent:tag", "x" * 96 + "/" + "y" * 96 + ":" + "z" * 90):
        response = managed.load("mine", name)
        if len(name) < 200:
            assert_error(response, 404, code="adapter_not_found", param="lora_path")
        else:  # longer than a file's name can be
            assert_error(response, 400)


def test_a_name_is_given_once(managed: Managed) -> None:
    assert managed.load("shop").status_code == 200
    assert_error(managed.load("shop", "law"), 400, code="name_taken", param="lora_name")
    assert_error(managed.load(MODEL, "law"), 400, code="name_taken", param="lora_name")
    assert_error(managed.unload(MODEL), 400, code="invalid_value", param="lora_name")
    assert_error(managed.load("other", "law", load_inplace=True), 400, code="unsupported_parameter")
    assert_error(managed.load("other", "law", base_model_name="absent"), 400, param="base_model_name")
    assert managed.load("other", "law", base_model_name=MODEL, unknown_field=1).status_code == 200
    assert managed.load("again", "law").status_code == 200  # one folder, two names


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"lora_name": None},
        {"lora_name": 1},
        {"lora_name": ["shop"]},
        {"lora_name": {"a": 1}},
        {"lora_name": ""},
        {"lora_name": "x" * 301},
        {"lora_name": "a", "lora_path": 1},
        {"lora_name": "a", "lora_path": ["/etc"]},
        {"lora_name": "a", "lora_path": "y" * 5000},
        {"lora_name": "a", "load_inplace": "perhaps"},
    ],
)
def test_a_body_of_another_form_is_a_400(managed: Managed, body: Any) -> None:
    assert_error(managed.ask("POST", "/v1/load_lora_adapter", body), 400)
    if "lora_path" not in body and "load_inplace" not in body:
        assert managed.ask("POST", "/v1/unload_lora_adapter", body).status_code in (400, 404)


def test_one_that_answers_takes_nothing_new_and_ends_its_answers(start: StartServer, home: Path) -> None:
    managed = Managed(start(home=home, admin_token=TOKEN, slow_step_s=0.02), home)
    assert managed.load("shop").status_code == 200
    body = {"model": "shop", "prompt": "The", **LONG}
    alone = managed.ask("POST", "/v1/completions", body).json()["choices"][0]["text"]
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(managed.ask, "POST", "/v1/completions", {**body, "stream": True})
        wait_until(lambda: managed.server.load()[0] == 1)
        assert managed.unload("shop").status_code == 200
        assert "shop" not in managed.models()
        assert managed.server.load()[0] == 1, "the answer should still be under way"
        assert_error(managed.ask("POST", "/v1/completions", body), 404, code="model_not_found")
        streamed = "".join(event["choices"][0]["text"] for event in events_of(stream.result().text))
    assert streamed == alone
    assert managed.load("shop").status_code == 200
    assert managed.ask("POST", "/v1/completions", body).json()["choices"][0]["text"] == alone


def test_what_happens_to_the_files_later_does_not_reach_what_is_loaded(
    managed: Managed, spoilt: Callable[[Callable[[Path], object]], str]
) -> None:
    """Weights are copied: those mapped from a file that is cut short would end the engine's process."""
    name = spoilt(lambda folder: None)
    assert managed.load(name).status_code == 200
    before = managed.text(name)
    os.truncate(managed.home / "adapters" / name / "adapter_model.safetensors", 0)
    assert managed.text(name) == before


def test_refusals_are_in_the_language_of_who_manages(managed: Managed) -> None:
    body = {"lora_name": "mine", "lora_path": "absent"}
    refused = managed.ask("POST", "/v1/load_lora_adapter", body, **{"Accept-Language": "zh-CN,zh;q=0.9"})
    assert "没有名为 absent 的适配器" in assert_error(refused, 404)


def test_folders_that_are_not_there_or_cannot_be_read_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert AdapterFolders((tmp_path / "absent", tmp_path / "file")).list() == []
