"""Why something is not in a dataset: short reasons, which of them mean a bad row, and details that can be translated.

The reasons and details are English in dropped.jsonl and manifest.json, which are the same for all users, and in the user's
language wherever they are shown.
"""

from __future__ import annotations

from chatwright.errors import Detail as Detail
from chatwright.errors import from_json as from_json
from chatwright.errors import to_json as to_json
from chatwright.i18n import shown as shown

# Said of a row that is there all the same: nothing is lost but what is named.
NOTES = frozenset({"repeated line", "scanned page", "left out"})
# Files that are of another kind or hold nothing, and answers that were recorded as unwanted ones.
NOT_MEANT = frozenset(
    {
        "binary", "empty", "hidden", "link", "named twice", "not a file", "part of a ChatGPT export", "prepared dataset",
        "unsupported format", "unwanted answer",
    }
)  # fmt: skip
# Rows that can be read, and are not wanted.
FILTERED = frozenset(
    {
        "broken characters", "exact duplicate", "gibberish", "near duplicate", "numbers", "repeated lines",
        "repeated phrases", "symbols", "too near to a held-out row", "too short",
    }
)  # fmt: skip
# Somebody meant these to be read: --on-bad-row stop stops at each.
BAD = frozenset(
    {
        "bad json", "bad row", "bad spans", "bad tags", "bad yaml", "broken archive", "broken docx", "broken html",
        "broken parquet", "broken pdf", "chosen equals rejected", "empty answer", "empty assistant turn", "empty text",
        "encrypted archive", "encrypted docx", "encrypted pdf", "no assistant turn", "no label", "no text column",
        "no user turn", "not text", "scanned pdf", "several labels", "span outside the text", "sparse file", "too large",
        "too long", "too slow", "unknown role", "unknown shape", "unreadable", "unsafe name", "zip bomb",
    }
)  # fmt: skip
REASONS = NOTES | NOT_MEANT | FILTERED | BAD
