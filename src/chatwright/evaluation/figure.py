"""A measured figure: the median of some rounds, with what a reader needs to judge it: range, n, machine, versions."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from chatwright.machine import available_cores, cpu_name, memory_limit_bytes


@dataclass(frozen=True)
class Figure:
    """`what` was measured of `system`: one value a round. `size` is the number that belongs to it (streams, tokens), `unit` that of
    the values."""

    what: str
    system: str
    values: tuple[float, ...]
    unit: str
    size: int | None = None

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def n(self) -> int:
        """How many rounds there were."""
        return len(self.values)

    def line(self, **about: Any) -> dict[str, Any]:
        """One line of JSON, to be dumped: all that is known, and `about` the run as a whole."""
        line: dict[str, Any] = {"figure": self.what, "system": self.system}
        if self.size is not None:
            line["size"] = self.size
        line |= {"value": rounded(self.value), "unit": self.unit}
        if self.n > 1:
            line["range"] = [rounded(min(self.values)), rounded(max(self.values))]
        return line | {"n": self.n} | about


def rounded(value: float) -> float:
    """To five digits: more were never measured."""
    return float(f"{value:.5g}")


def median_ratio(ours: Sequence[float], others: Sequence[Sequence[float]]) -> float:
    """Ours over the best of the others, within each round; the median. Between rounds a shared machine drifts by a third."""
    ratios = [a / max(b) for a, b in zip(ours, zip(*others, strict=True), strict=True)]
    median: float = statistics.median(ratios)
    return median


def machine() -> dict[str, Any]:
    """The machine as a reader of a figure needs it."""
    return {
        "cpu": cpu_name(),
        "cores": available_cores(),
        "memory_gib": round(memory_limit_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(packages: Iterable[str] = ("chatwright", "chatwright-kernels", "torch")) -> dict[str, str]:
    """Of Python and of those packages that are installed."""
    known = {"python": platform.python_version()}
    for package in packages:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def load_average() -> float | None:
    """Processes that wanted a core in the last minute: figures of a busy machine are those of a busy machine."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
