"""How a benchmark says a figure: one JSON line, with the machine and the versions that it was taken on."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from typing import Any

import torch


def report(figure: str, value: float | None, unit: str, **more: Any) -> None:
    """One JSON line."""
    about = {
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {package: version(package) for package in ("chatwright", "torch")},
    }
    print(json.dumps({"figure": figure, "value": value, "unit": unit, **more, **about}, ensure_ascii=False), flush=True)
