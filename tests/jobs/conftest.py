"""The tiny model that jobs train."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.tiny import make_model_folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers that can chat."""
    return make_model_folder(tmp_path_factory.mktemp("base") / "tiny")
