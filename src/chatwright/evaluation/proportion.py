"""A share of cases with an interval that is right for few of them and at its ends: Wilson's (1927)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Proportion:
    """`hits` of `n` cases; a tie may count as half. A bootstrap would say of 5 hits out of 5 that nothing else can be."""

    hits: float
    n: int
    confidence: float = 0.95

    @property
    def share(self) -> float:
        """NaN without cases."""
        return self.hits / self.n if self.n else math.nan

    @property
    def bounds(self) -> tuple[float, float]:
        """Low and high; (0, 1) without cases: nothing is known."""
        if not self.n:
            return 0.0, 1.0
        z = NormalDist().inv_cdf(0.5 + self.confidence / 2)
        centre = (self.share + z * z / (2 * self.n)) / (1 + z * z / self.n)
        half = z / (1 + z * z / self.n) * math.sqrt(self.share * (1 - self.share) / self.n + z * z / (4 * self.n**2))
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.bounds
        return f"{self.share:.1%} [{low:.1%}, {high:.1%}], n = {self.n}"
