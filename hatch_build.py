"""Refuses to make a wheel or an sdist without the built web app; npm itself never runs inside a PEP 517 build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WebAppBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Editable installs go through: there the server says how to build the app."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        index = Path(self.root) / "src" / "chatwright" / "web_dist" / "index.html"
        if version != "editable" and not index.is_file():
            raise RuntimeError("The web app is not built (src/chatwright/web_dist is missing). Run `make web` first.")
