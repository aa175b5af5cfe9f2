"""The commands of a tutorial's page, to be run as they stand there: by the tests in short, by the benchmarks in full."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    (language, name): ROOT / "docs" / language / "tutorials" / f"{name}.md"
    for language in ("en", "zh")
    for name in ("documents", "customer-service")
}


def commands(page: Path) -> list[str]:
    """Every command of the page's ```bash blocks, in order; lines that end with a backslash are joined, comments dropped."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                found.append(shlex.join(words) if "#" in line else re.sub(r"\s+", " ", line.strip()))
    return found
