"""What a comparison found: figures, and sentences that name what is different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal[
    "tokenizer", "template", "control", "weights", "rope", "config", "rounding", "positions", "logits", "not finite", "cache",
    "greedy", "tie", "left out",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """`real`: more than rounding, and so a failure. `template` is an English sentence with `params`, to be translated."""

    kind: Kind
    real: bool
    template: str
    params: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.template.format(**self.params)


def finding(kind: Kind, real: bool, template: str, **params: object) -> Finding:
    """One sentence."""
    return Finding(kind, real, template, params)


def parted(real: bool, *, name: str, place: int, gap: float, tie: float, least: bool = False) -> Finding:
    """Where greedy tokens part: in a tie, or not. `gap`: of the two tokens that were taken, which need not be the two best;
    `least`: it is that or more, one of them was not told."""
    where = {"name": name, "place": place, "gap": gap, "tie": tie}
    if gap < tie:
        return finding(
            "tie",
            False,
            "Greedy tokens of {name!r} part at {place}, in a tie: the reference's logits of the two tokens are {gap:.2g}"
            " apart (less than {tie:g}).",
            **where,
        )
    if least:
        return finding(
            "greedy",
            real,
            "Greedy tokens of {name!r} part at {place}, where the reference's logits of the two tokens are {gap:.2g} apart or"
            " further: more than a tie ({tie:g}).",
            **where,
        )
    return finding(
        "greedy",
        real,
        "Greedy tokens of {name!r} part at {place}, where the reference's logits of the two tokens are {gap:.2g} apart: more"
        " than a tie ({tie:g}).",
        **where,
    )


@dataclass(frozen=True)
class Compared:
    """Token ids of one text or conversation. `first`: the first place where they differ, None where they are equal."""

    name: str
    n_tokens: int
    first: int | None


@dataclass(frozen=True)
class Figures:
    """Of logits (or log probabilities) at `n` places. `relative`: rms of the difference by the spread of the reference's own."""

    n: int
    max_abs: float
    rms: float
    relative: float
    kl_mean: float
    kl_max: float
    top1: float


@dataclass(frozen=True)
class Greedy:
    """`same`: tokens before the two part (all where they do not); `gap`: the reference's logits of the two tokens there,
    apart; at least so much where a server did not tell one of them."""

    name: str
    n_tokens: int
    same: int
    gap: float | None = None


@dataclass
class Report:
    """`seen`: "logits", or "answers" where only a server's likeliest tokens are."""

    a: str
    b: str
    seen: Literal["logits", "answers"]
    texts: list[Compared] = field(default_factory=list)
    chats: list[Compared] = field(default_factory=list)
    figures: Figures | None = None
    by_text: dict[str, Figures] = field(default_factory=dict)
    greedy: list[Greedy] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether something is really different."""
        return any(found.real for found in self.findings)

    def as_json(self, sentence: Any = str) -> dict[str, Any]:
        """Plain values; `sentence` puts a finding into words."""
        plain = asdict(self)
        plain["findings"] = [
            {"kind": found.kind, "real": found.real, "sentence": sentence(found)} for found in self.findings
        ]
        return plain | {"differs": self.differs}


def first_difference(a: Sequence[object], b: Sequence[object]) -> int | None:
    """The first place at which two sequences differ; None for equal ones."""
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return place
    return None if len(a) == len(b) else min(len(a), len(b))
