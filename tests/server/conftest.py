"""Servers that the tests share, each with one tiny model: open, with a key, slow and small, impatient."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.harness import RunningServer, start_server
from tests.server.tiny import make_model_folder

KEY = "sk-test-schlüssel-1234567890"

StartServer = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model."""
    return make_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def start(model_folder: Path) -> Iterator[StartServer]:
    """Starts servers with settings of one's own; all are stopped at the end."""
    servers: list[RunningServer] = []

    def start(**settings: Any) -> RunningServer:
        servers.append(start_server(model_folder, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(start: StartServer) -> RunningServer:
    """An open server with default settings."""
    return start()


@pytest.fixture(scope="session")
def keyed(start: StartServer) -> RunningServer:
    """A server with an API key."""
    return start(api_key=KEY)


@pytest.fixture(scope="session")
def slow(start: StartServer) -> RunningServer:
    """A server on a slow machine: answers take long enough to meet them half-way."""
    return start(slow_step_s=0.02)


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key="whatever",
        max_retries=0,
        http_client=openai.DefaultHttpx2Client(trust_env=False) if hasattr(openai, "DefaultHttpx2Client") else None,
    ) as client:
        yield client


@pytest.fixture
async def async_client(server: RunningServer) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, asynchronous."""
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="whatever", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def maker() -> Iterator[Any]:
    """scripts/make_endpoints.py."""
    scripts = str(Path(__file__).parents[2] / "scripts")
    sys.path.insert(0, scripts)
    import make_endpoints

    yield make_endpoints
    sys.path.remove(scripts)


@pytest.fixture(scope="session")
def surface(maker: Any) -> Any:
    """What it says of every endpoint."""
    return maker.Surface.read()
