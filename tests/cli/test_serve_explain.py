"""Looking inside a model of a real server: it stays without torch, and leaves no process behind however it ends."""

from __future__ import annotations

import httpx
import psutil
import pytest

from tests.cli.served import PATIENCE_S, Serve, Served, until
from tests.cli.served import served as served

pytestmark = pytest.mark.timeout(300)


def lookers(server: Served) -> list[psutil.Process]:
    """The processes of a server that look inside models."""
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "chatwright.inspection.child" in child.cmdline()]


def test_a_server_looks_inside_without_torch_and_takes_the_process_along(served: Serve, tiny: str) -> None:
    server = served(tiny)
    assert lookers(server) == []
    question = {"model": tiny, "prompt": "The capital of Japan is", "max_tokens": 2}
    response = httpx.post(f"{server.url}/api/explain", json=question, trust_env=False, timeout=PATIENCE_S)
    assert response.status_code == 200, response.text
    assert [token["is_answer"] for token in response.json()["tokens"]][-2:] == [True, True]
    [looker] = lookers(server)
    assert looker.nice() > psutil.Process(server.process.pid).nice()
    assert not any("libtorch" in region.path for region in psutil.Process(server.process.pid).memory_maps())
    assert any("libtorch" in region.path for region in looker.memory_maps())
    assert server.complete(tiny).status_code == 200
    server.process.kill()
    server.process.wait()
    until(lambda: not looker.is_running() or looker.status() == psutil.STATUS_ZOMBIE)
