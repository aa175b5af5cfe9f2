"""How a run trains: every number that the loop needs, resolved before the first step and stored in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self, get_args, get_type_hints

from chatwright.errors import TrainingError

Optimizer = Literal["muon", "adamw"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Raises TrainingError for a number out of range.

    A step sees `batch_rows` rows over all ranks, `micro_rows` at a time. `lr` is AdamW's; with Muon it is that of
    embeddings, norms and biases, and `muon_lr` that of the hidden matrices. The learning rate rises over `warmup_steps`, is
    constant, and falls linearly to `final_lr_share` of itself over the last `warmdown_share` of the steps. `weight_decay` acts
    on matrices of hidden layers. `patience`: stop after so many evaluations without improvement; 0 never.
    """

    n_steps: int
    batch_rows: int
    micro_rows: int
    seed: int = 0
    optimizer: Optimizer = "adamw"
    lr: float = 1e-3
    muon_lr: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.95
    weight_decay: float = 0.1
    warmup_steps: int = 0
    warmdown_share: float = 0.4
    final_lr_share: float = 0.0
    clip: float = 1.0
    precision: Precision = "fp32"
    compile: bool = False
    eval_every: int = 0
    sample_every: int = 0
    checkpoint_every: int = 0
    keep: int = 2
    patience: int = 0

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if not least <= value <= most:  # NaN included
                raise TrainingError(
                    "{setting} is {value}; it must be a number from {least} to {most}.",
                    setting=name,
                    value=value,
                    least=least,
                    most=most,
                )
        for name, kind in (("optimizer", Optimizer), ("precision", Precision)):
            if getattr(self, name) not in get_args(kind):
                raise TrainingError(
                    "{setting} is {value}; it must be one of: {choices}.",
                    setting=name,
                    value=getattr(self, name),
                    choices=", ".join(get_args(kind)),
                )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for config.toml."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote. Raises TrainingError for a missing, unknown or mistyped setting."""
        hints = get_type_hints(cls)
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise TrainingError("The run's config.toml has an unknown setting: {setting}.", setting=unknown[0])
        checked: dict[str, Any] = {}
        for name, field in known.items():
            if name not in values:
                if field.default is MISSING:
                    raise TrainingError("The run's config.toml lacks the setting {setting}.", setting=name)
                continue
            checked[name] = _typed(name, values[name], hints[name])
        return cls(**checked)


def _typed(name: str, value: Any, hint: Any) -> Any:
    kind: Any = str if get_args(hint) else hint
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    # tomlkit's numbers and strings are subclasses; a plain value is what the rest expects
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TrainingError(
            "In the run's config.toml, {setting} is {value}, which is not of the right type.", setting=name, value=value
        )
    return kind(value)


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("n_steps", 1, 1 << 40),
    ("batch_rows", 1, 1 << 30),
    ("micro_rows", 1, 1 << 30),
    ("seed", 0, (1 << 63) - 1),
    ("lr", 0.0, 10.0),
    ("muon_lr", 0.0, 10.0),
    ("beta1", 0.0, 0.99999),
    ("beta2", 0.0, 0.999999),
    ("eps", 0.0, 1.0),
    ("momentum", 0.0, 0.99999),
    ("weight_decay", 0.0, 100.0),
    ("warmup_steps", 0, 1 << 40),
    ("warmdown_share", 0.0, 1.0),
    ("final_lr_share", 0.0, 1.0),
    ("clip", 0.0, 1e9),
    ("eval_every", 0, 1 << 40),
    ("sample_every", 0, 1 << 40),
    ("checkpoint_every", 0, 1 << 40),
    ("keep", 1, 1 << 20),
    ("patience", 0, 1 << 20),
)
