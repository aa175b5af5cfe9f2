"""Weights that are numbers: what is written for others must not hold NaN or infinity."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from chatwright.errors import InvalidModelError


def is_finite(values: Tensor) -> bool:
    """Whether all are numbers."""
    return bool(torch.isfinite(values).all())


def check_finite(path: Path, name: str, parameter: Tensor) -> None:
    """Raises InvalidModelError for numbers that are none. `path`: of the files that hold them."""
    if not is_finite(parameter):
        raise InvalidModelError(
            "{path}: the parameter {name} holds numbers that are not finite (NaN or infinity). The model is broken; nothing"
            " was written.",
            path=path,
            name=name,
        )
