"""What a detector reports, and which report counts where two overlap."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

# In the order of precedence: a digit run inside a key is the key's, an id with a right checksum is no phone number.
Kind = Literal["key", "email", "chinese_id", "bank_card", "phone", "ip"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Finding:
    """Personal data at text[start:end] (characters), as it is written there."""

    start: int
    end: int
    kind: Kind
    text: str

    @property
    def placeholder(self) -> str:
        """What stands in its place: `[EMAIL]`."""
        return f"[{self.kind.upper()}]"


def without_overlaps(findings: Iterable[Finding]) -> list[Finding]:
    """Sorted by place. Of those that overlap, the kind named first in KINDS counts, then the longer one."""
    kept: list[Finding] = []
    starts: list[int] = []
    for finding in sorted(findings, key=lambda f: (KINDS.index(f.kind), f.start - f.end, f.start)):
        place = bisect(starts, finding.start)
        after_previous = place == 0 or kept[place - 1].end <= finding.start
        if after_previous and (place == len(kept) or finding.end <= kept[place].start):
            kept.insert(place, finding)
            starts.insert(place, finding.start)
    return kept
