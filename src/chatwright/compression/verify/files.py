"""What two models' files say of a difference: numbers of the configuration, and which rows of which weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor

from chatwright.compression.source import Source
from chatwright.compression.verify.report import Finding, finding
from chatwright.model.checkpoint import GGUFCheckpoint
from chatwright.model.config import ModelConfig, parameter_shapes
from chatwright.model.gpt import rotary_frequencies

# Names of families, and how rotary frequencies are spelled, differ between formats; contexts are a promise, not arithmetic.
_SPELLING = (
    "family",
    "rope_theta",
    "rope_scaling",
    "local_rope_theta",
    "context_length",
    "tied",
    "windows",
    "vocab_size",
)
# rms of the rounding of a row by that of the row, with room for heavy tails
_ROUNDING = {"F64": 1e-6, "F32": 1e-6, "F16": 1e-3, "BF16": 4e-3, "Q8_0": 0.02, "Q8": 0.02, "Q6": 0.06, "Q5": 0.15}
_COARSEST = 0.4
_MOST_NAMED = 3


def compare_files(a: Source, b: Source) -> list[Finding]:
    """Findings of kind "rope", "config", "weights" (real) and "rounding" (not); empty for the same numbers."""
    found = list(_of_config(a.config, b.config))
    shapes_a, shapes_b = parameter_shapes(a.config), parameter_shapes(b.config)
    common = [name for name, shape in shapes_a.items() if shapes_b.get(name) == shape]
    rounded: Counter[tuple[str, str]] = Counter()
    worse: list[tuple[str, list[int], int, float]] = []
    if a.config.tied != b.config.tied:
        common.append("head.weight")
    for name in common:
        x, y = (_parameter(side, name) for side in (a, b))
        if torch.equal(x, y):
            continue
        kinds = _kind(a, name), _kind(b, name)
        rows = _rows_beyond(x, y, max(_tolerance(kind) for kind in kinds))
        if rows:
            scale = float((x - y).norm() / x.norm().clamp(min=1e-30))
            worse.append((name, rows, len(x) if x.dim() > 1 else 1, scale))
        else:
            rounded[kinds] += 1
    missing = sorted((shapes_a.keys() ^ shapes_b.keys()) - {"head.weight"})
    if missing:
        found.append(
            finding("weights", True, "Only one of the files holds {tensors}.", tensors=", ".join(missing[:_MOST_NAMED]))
        )
    for name, rows, n_rows, scale in worse[:_MOST_NAMED]:
        found.append(_worse(name, rows, n_rows, scale))
    if len(worse) > _MOST_NAMED:
        found.append(
            finding("weights", True, "{n} more tensors differ by more than rounding.", n=len(worse) - _MOST_NAMED)
        )
    for (kind_a, kind_b), n in rounded.items():
        if kind_a != kind_b:
            found.append(
                finding(
                    "rounding",
                    False,
                    "The files keep {n} tensors differently ({a} and {b}); their numbers differ as rounding would.",
                    n=n,
                    a=kind_a,
                    b=kind_b,
                )
            )
    return found


def _of_config(a: ModelConfig, b: ModelConfig) -> Iterator[Finding]:
    if a.positions == b.positions == "rotary" and a.head_dim == b.head_dim:
        yield from _of_rope(a, b)
    for field in fields(ModelConfig):
        x, y = getattr(a, field.name), getattr(b, field.name)
        same = math.isclose(x, y, rel_tol=1e-6) if isinstance(x, float) and isinstance(y, float) else x == y
        if not same and field.name not in _SPELLING:
            yield finding(
                "config",
                True,
                "The configurations differ: {field} is {a} and {b}.",
                field=field.name,
                a=str(x),
                b=str(y),
            )
    if a.windows != b.windows:
        yield finding("config", True, "The configurations differ: {field} is {a} and {b}.", field="windows",
                      a=str(set(a.windows)), b=str(set(b.windows)))  # fmt: skip


def _of_rope(a: ModelConfig, b: ModelConfig) -> Iterator[Finding]:
    local_a, local_b = a.local_rope_theta or a.rope_theta, b.local_rope_theta or b.rope_theta
    full = [rotary_frequencies(c.head_dim, c.rope_theta, c.rope_scaling) for c in (a, b)]
    local = [rotary_frequencies(a.head_dim, theta) for theta in (local_a, local_b)]
    if not torch.allclose(full[0], full[1], rtol=1e-4, atol=0):
        yield finding(
            "rope",
            True,
            "Positions are told apart differently: the base of the rotary frequencies is {a} and {b}{scaling}.",
            a=f"{a.rope_theta:g}",
            b=f"{b.rope_theta:g}",
            scaling="" if a.rope_scaling == b.rope_scaling else " (rope_scaling differs)",
        )
    elif a.local_rope_theta and b.local_rope_theta and not torch.allclose(local[0], local[1], rtol=1e-4, atol=0):
        yield finding(
            "rope",
            True,
            "Positions are told apart differently: the base of the rotary frequencies is {a} and {b}{scaling}.",
            a=f"{local_a:g}",
            b=f"{local_b:g}",
            scaling=" (rope_local_base_freq)",
        )


def _worse(name: str, rows: list[int], n_rows: int, scale: float) -> Finding:
    if n_rows > 1 and len(rows) <= max(1, n_rows // 20):
        return finding(
            "weights",
            True,
            "The weights differ: {tensor}, row {rows} of {n_rows} (the others agree).",
            tensor=name,
            rows=", ".join(map(str, rows[:_MOST_NAMED])) + ("…" if len(rows) > _MOST_NAMED else ""),
            n_rows=n_rows,
        )
    return finding(
        "weights",
        True,
        "The weights differ: {tensor}, by {percent:.2g} % of their size, in {rows} of {n_rows} rows.",
        tensor=name,
        percent=100 * scale,
        rows=len(rows),
        n_rows=n_rows,
    )


def _own(source: Source, parameter: str) -> str:
    """A head that is the embedding is found there."""
    return "embed.weight" if parameter == "head.weight" and source.config.tied else parameter


def _parameter(source: Source, name: str) -> Tensor:
    return source.parameter(_own(source, name)).float()


def _kind(source: Source, parameter: str) -> str:
    """The number format in the file; float32 where an adapter was added."""
    if source.adapter is not None:
        return "F32"
    parameter = _own(source, parameter)
    tensor = source.checkpoint.layout[parameter].tensor
    if isinstance(source.checkpoint, GGUFCheckpoint):
        return source.checkpoint.file.tensors[tensor].type.name
    return source.checkpoint.tensors[tensor].dtype


def _tolerance(kind: str) -> float:
    return _ROUNDING.get(kind, _ROUNDING.get(kind[:2], _COARSEST))


def _rows_beyond(x: Tensor, y: Tensor, tolerance: float) -> list[int]:
    """Rows that differ by more than rounding."""
    x, y = (x, y) if x.dim() > 1 else (x[None], y[None])
    error = (x - y).pow(2).mean(1).sqrt()
    size = torch.maximum(x.pow(2).mean(1).sqrt(), torch.tensor(1e-6))
    beyond = ~(error <= tolerance * size + 1e-7)
    return beyond.nonzero()[:, 0].tolist()
