"""Adapters on the command line: beside their base, in the place of a model, and refused when they do not belong."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from chatwright.cli.adapters import Chosen, with_adapters
from chatwright.errors import UsageError
from tests.cli.conftest import Run
from tests.cli.test_serve import read_until
from tests.server.tiny import make_adapter


@pytest.fixture
def adapter(tiny_folder: Path, tiny: str, tmp_path: Path) -> Path:
    """A run with an adapter of the tiny model, under its name in the home folder, that changes what it says."""
    make_adapter(tiny_folder, tmp_path / "my-run" / "adapter", 1, tiny)
    return tmp_path / "my-run"


def completion(url: str, model: str) -> str:
    body = {"model": model, "prompt": "The capital of", "temperature": 0, "max_tokens": 12}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text: str = json.load(answer)["choices"][0]["text"]
    return text


def test_a_base_and_its_adapter_are_served_side_by_side(
    process: Callable[..., Popen[str]], command: Run, tiny: str, adapter: Path, home: Path
) -> None:
    server = process("serve", tiny, "--port", "0", "--adapter", f"mine={adapter}")
    said = read_until(server, "Ctrl-C stops the server")
    assert f"Loading mine: {tiny} with the adapter in {adapter}" in said
    url = json.loads((home / "server.json").read_text())["url"]
    with urllib.request.urlopen(f"{url}/v1/models", timeout=20) as answer:
        assert [model["id"] for model in json.load(answer)["data"]] == [tiny, "mine"]
    base, mine = completion(url, tiny), completion(url, "mine")
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=60) == 0
    assert base != mine

    options = ("The capital of", "--temperature", "0", "--max-tokens", "12")
    assert command("complete", tiny, *options).out == base + "\n"
    for path in (adapter, adapter / "adapter"):  # the base is found by the name that the adapter gives it
        assert command("complete", str(path), *options).out == mine + "\n"


@pytest.mark.parametrize("option", ["mine", "=x", "mine=", "../x=y", "a b=c"])
def test_what_is_no_adapter_option_is_refused(command: Run, tiny: str, option: str) -> None:
    result = command("serve", tiny, "--port", "0", "--adapter", option)
    assert result.code == 2
    assert "--adapter takes NAME=DIR" in result.err


def test_adapters_that_do_not_belong_are_refused(command: Run, tiny: str, adapter: Path, tmp_path: Path) -> None:
    result = command("serve", tiny, "--port", "0", "--adapter", f"{tiny}={adapter}")
    assert result.code == 2
    assert f"cannot be called {tiny}" in result.err
    result = command("serve", tiny, "--port", "0", "--adapter", f"x={tmp_path / 'absent'}")
    assert result.code == 1
    assert "There is no adapter at" in result.err
    config = adapter / "adapter" / "adapter_config.json"
    raw = json.loads(config.read_text())
    config.write_text(json.dumps(raw | {"r": 5}))
    result = command("serve", tiny, "--port", "0", "--adapter", f"x={adapter}")
    assert result.code == 1
    assert "do not have the rank 5" in result.err
    config.write_text(json.dumps(raw | {"base_model_name_or_path": "somewhere/else"}))
    result = command("complete", str(adapter), "x")
    assert result.code == 1
    assert "made for 'somewhere/else', which is not here" in result.err


def test_of_several_models_the_base_is_the_one_that_the_adapter_names(adapter: Path, tiny: str) -> None:
    one, other = Chosen("one", Path("/a")), Chosen(tiny, Path("/b"))
    assert with_adapters([one, other], [f"mine={adapter}"])[2] == Chosen("mine", Path("/b"), adapter / "adapter", tiny)
    with pytest.raises(UsageError, match="Which of the models is the base"):
        with_adapters([one, Chosen("two", Path("/b"))], [f"mine={adapter}"])
    two = with_adapters([one], [f"mine={adapter}", f"again={adapter}"])
    assert [model.name for model in two] == ["one", "mine", "again"]
    with pytest.raises(UsageError, match="cannot be called mine"):
        with_adapters([one], [f"mine={adapter}", f"mine={adapter}"])
