"""Full-width forms, as Chinese input methods write them, as plain characters: １３８ is 138. Places stay the same."""

from __future__ import annotations

import re

_FULL_WIDTH = re.compile("[\uff10-\uff19\uff20-\uff3a\uff3f\uff41-\uff5a]")
# Commas, colons and brackets of Chinese prose are left alone, but for those that stand inside numbers.
_FOLDED = {
    code: code - 0xFEE0
    for first, last in ((0xFF10, 0xFF19), (0xFF20, 0xFF3A), (0xFF41, 0xFF5A))
    for code in range(first, last + 1)
}
_FOLDED |= dict(zip(map(ord, "（）＋－．＿"), map(ord, "()+-._"), strict=True))


def fold(text: str) -> str:
    """`text` itself where there is nothing to fold."""
    return text.translate(_FOLDED) if _FULL_WIDTH.search(text) else text
