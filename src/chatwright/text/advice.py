"""What a person should know of the dataset they got, where the figures alone do not say it."""

from __future__ import annotations

from collections.abc import Iterator

from chatwright.i18n import _
from chatwright.text.manifest import Manifest

# Of the rows: fewer near duplicates than this surprise nobody.
MANY_NEAR_DUPLICATES = 0.1
# Of the text: what a default share of 5 % becomes where whole rows, and at least a few of them, have to be held out.
LARGE_SHARE = 0.1


def advice(manifest: Manifest, *, share_chosen: bool) -> Iterator[str]:
    """Sentences in the user's language. `share_chosen`: the user said what is held out."""
    for step in manifest.steps:
        dropped = step.dropped.get("near duplicate", 0)
        if step.name == "near duplicates" and dropped > MANY_NEAR_DUPLICATES * step.rows_in:
            yield _(
                "{dropped:,} of {n:,} rows say nearly the same as others and were left out; --near-duplicates off keeps them.",
                dropped=dropped,
                n=step.rows_in,
            )
    for kind, splits in manifest.kinds.items():
        held_out = splits["held_out"].bytes if "held_out" in splits else 0
        total = sum(contents.bytes for contents in splits.values())
        if not held_out:
            yield _(
                "Nothing of the {kind} is held out: whether a model does well on what it has not seen cannot be told. Give more"
                " text, or rows of their own with --held-out FILE.",
                kind=_(kind),
            )
        elif not share_chosen and held_out > LARGE_SHARE * total:
            yield _(
                "Of the {kind}, {n} rows of {total_rows} are held out ({share:.0%} of the text) and not the usual 5 %: of a small"
                " set 20 rows, or a fifth where that is less. --held-out SHARE chooses another share.",
                n=splits["held_out"].rows,
                total_rows=sum(contents.rows for contents in splits.values()),
                share=held_out / total,
                kind=_(kind),
            )
