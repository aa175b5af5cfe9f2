"""Numbers out of two sets of logits, and the yardsticks of rounding: what the model itself differs by in a coarser format.

T places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from chatwright.compression.source import Source
from chatwright.compression.verify.report import Figures
from chatwright.compression.verify.side import Logits, Precision
from chatwright.model.gpt import GPT

Numbers = npt.NDArray[np.float64]
LADDER: tuple[Precision, ...] = ("fp16", "bf16", "int8", "int4")  # from fine to coarse


def coarseness(precision: Precision) -> int:
    """The higher the coarser."""
    return -1 if precision == "fp32" else LADDER.index(precision)


_BLOCK = 32


@dataclass(frozen=True)
class Difference:
    """Of one text. `delta` (T, V): B minus A; `by_place` (T,): its rms; `kl` and `top1` (T,); `spread`: of A's own values."""

    delta: Numbers
    by_place: Numbers
    kl: Numbers
    top1: npt.NDArray[np.bool_]
    spread: float
    first: bool  # whether the first row is the text's first token


def difference(a_TV: Logits, b_TV: Logits, *, normalised: bool) -> Difference | None:
    """`normalised`: one side has log probabilities only, so the other's are taken too. Rows that a side left out (NaN) are not
    compared; None where none is left, or where one holds what is no number."""
    asked = np.asarray(~(np.isnan(a_TV).all(axis=1) | np.isnan(b_TV).all(axis=1)))
    a, b = a_TV[asked].astype(np.float64), b_TV[asked].astype(np.float64)
    if not len(a) or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    log_a, log_b = _log_softmax(a), _log_softmax(b)
    delta = log_b - log_a if normalised else b - a
    return Difference(
        delta=delta,
        by_place=np.sqrt((delta**2).mean(1)),
        kl=np.maximum((np.exp(log_a) * (log_a - log_b)).sum(1), 0.0),
        top1=a.argmax(1) == b.argmax(1),
        spread=float(a.std(1).mean()),
        first=bool(asked[0]),
    )


def figures(differences: Sequence[Difference]) -> Figures:
    """Of all places together."""
    squares = np.concatenate([d.by_place for d in differences]) ** 2
    rms = float(np.sqrt(squares.mean()))
    kl = np.concatenate([d.kl for d in differences])
    return Figures(
        n=len(squares),
        max_abs=float(max(np.abs(d.delta).max() for d in differences)),
        rms=rms,
        relative=rms / (float(np.mean([d.spread for d in differences])) or 1.0),
        kl_mean=float(kl.mean()),
        kl_max=float(kl.max()),
        top1=float(np.concatenate([d.top1 for d in differences]).mean()),
    )


def of_one_token(differences: Sequence[Difference]) -> tuple[int, float]:
    """The token whose logit has the largest share of all difference, and that share: a damaged row of the head has nearly all."""
    energy = sum((_without_shift(d.delta) ** 2).sum(0) for d in differences)
    assert not isinstance(energy, int)
    token = int(energy.argmax())
    return token, float(energy[token] / max(energy.sum(), 1e-300))


def by_half(differences: Sequence[Difference]) -> tuple[float, float, float]:
    """rms at the first token, in the first half of the texts and in the second: rounding is even, wrong positions grow."""
    long = [d for d in differences if d.first and len(d.by_place) >= 4] or list(differences)
    first = float(np.sqrt(np.mean([d.by_place[0] ** 2 for d in long])))
    halves = [np.array_split(d.by_place[1:] ** 2, 2) for d in long if len(d.by_place) >= 3]
    if not halves:
        return first, first, first
    early, late = (float(np.sqrt(np.concatenate([half[i] for half in halves]).mean())) for i in (0, 1))
    return first, early, late


@torch.inference_mode()
def yardsticks(
    source: Source, texts: Mapping[str, Sequence[int]], *, normalised: bool, until: float
) -> dict[Precision, float]:
    """rms by which the model differs from itself in a coarser format, from fine to coarse until one differs by `until`.

    fp16 and bf16 compute in it; int8 and int4 round the matrices, in blocks of 32 with a scale each.
    """
    exact = source.model(torch.float32)
    plain = {name: _logits(exact, ids) for name, ids in texts.items()}
    found: dict[Precision, float] = {}
    for precision in LADDER:
        model = _coarser(exact, precision)
        differences = [
            difference(plain[name], _logits(model, ids), normalised=normalised) for name, ids in texts.items()
        ]
        known = [each for each in differences if each is not None]
        found[precision] = figures(known).rms if known else float("inf")
        if found[precision] >= until:
            break
    return found


def _coarser(exact: GPT, precision: Precision) -> GPT:
    model = deepcopy(exact)
    if precision in ("fp16", "bf16"):
        return model.to(torch.float16 if precision == "fp16" else torch.bfloat16)
    largest = 127 if precision == "int8" else 7
    for parameter in model.parameters():
        if parameter.dim() == 2 and parameter.shape[1] % _BLOCK == 0:
            blocks = parameter.reshape(-1, _BLOCK)
            scale = (blocks.abs().amax(1, keepdim=True) / largest).clamp(min=1e-30)
            parameter.copy_(((blocks / scale).round() * scale).reshape(parameter.shape))
    return model


def _logits(model: GPT, ids: Sequence[int]) -> Logits:
    found: Logits = model(torch.tensor([list(ids)]))[0].float().numpy()
    return found


def _log_softmax(logits: Numbers) -> Numbers:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), dtype=np.float64)


def _without_shift(delta_TV: Numbers) -> Numbers:
    return np.asarray(delta_TV - np.median(delta_TV, axis=1, keepdims=True), dtype=np.float64)
