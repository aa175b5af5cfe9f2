"""The articles' PyTorch code, to the letter, runs in this environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(article: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an article's code in a folder, with no hub in reach and nothing set but the encoding of its output."""
    return subprocess.run(
        [sys.executable, HERE / f"{article}.py"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )


def test_article_001_trains_its_rnn(tmp_path: Path) -> None:
    done = run("001", tmp_path)
    assert done.returncode == 0, done.stderr
