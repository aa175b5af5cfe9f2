"""What a source of models is to `pull`: a name, and a way to fetch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chatwright.hub.manifest import Manifest
from chatwright.hub.progress import Progress


@dataclass(frozen=True)
class Source:
    """A model to be fetched.

    `fetch(work, folder, progress)` fills `folder` with the model's files, keeping what can be continued in `work`, and
    returns what the manifest should say.
    """

    name: str
    source: str
    fetch: Callable[[Path, Path, Progress], Manifest]
