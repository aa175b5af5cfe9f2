"""One server with the default model for all of them, started from Chatwright's own environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.serving import serve

ROOT = Path(__file__).parents[2]
# Where Chatwright is installed, and where the default model lies; the latter as in tests/conftest.py, which is not loaded here.
PYTHON = os.environ.get("CHATWRIGHT_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
HOME = Path(os.environ.get("CHATWRIGHT_TEST_HOME", ROOT / ".cache" / "test-home"))
# The operator's key: with it the server keeps responses and files, as it does for a user with a key of their own.
TOKEN = "operator-token-of-the-clients-tests"
MODEL = "smollm2:135m"


@dataclass(frozen=True)
class Api:
    """Where the server is. `url`: with /v1, as OpenAI's clients want it; `bare`: without, as Anthropic's."""

    bare: str

    @property
    def url(self) -> str:
        return f"{self.bare}/v1"


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """`chatwright serve` with the default model."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHATWRIGHT_")}
    subprocess.run(
        [PYTHON, "-m", "chatwright", "pull", MODEL], env={**environment, "CHATWRIGHT_HOME": str(HOME)}, check=True
    )
    with serve(HOME, python=PYTHON, environment={"CHATWRIGHT_ADMIN_TOKEN": TOKEN}) as server:
        yield Api(server.url)
