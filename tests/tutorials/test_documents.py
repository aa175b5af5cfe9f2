"""Tutorial A's page runs as it stands there, in short: fewer manuals, a smaller model, some steps instead of five minutes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.tutorial import PAGES, ROOT, commands
from tests.tutorials.runner import CommandFailedError, Shell

SHORTER = {
    r"--minutes 5": "--steps 12 --size 0.3m --context 64",
    r"--max-tokens 60": "--max-tokens 20",
    r'"max_tokens": 40': '"max_tokens": 20',
}


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_the_page_runs(make_shell: Callable[[str], Shell]) -> None:
    shell = make_shell("en")
    fetch, *rest = commands(PAGES["en", "documents"])
    try:
        shell.run([fetch], {"$": " --small"})
    except CommandFailedError as error:  # no apt, or no mirror in reach: it says so, and any other documents do
        if "apt-get" not in str(error):
            raise
        for language in ("en", "zh"):
            shutil.copytree(ROOT / "docs" / language, shell.folder / "playground" / "manuals" / language)
    shell.run(rest, SHORTER)

    playground = shell.folder / "playground"
    completed = json.loads(next(said for command, said in shell.said.items() if command.startswith("curl")))
    assert completed["choices"][0]["text"]
    metrics = [json.loads(line) for line in (playground / "manuals-run" / "metrics.jsonl").read_text().splitlines()]
    held_out = [line["bits_per_byte"] for line in metrics if "bits_per_byte" in line]
    assert held_out[-1] < held_out[0], "it learned"
    for promised in ("report.html", "samples", "model/config.json", "config.toml"):
        assert (playground / "manuals-run" / promised).exists()
    assert (playground / "manuals-dataset" / "report.html").exists()
    assert (playground / "manuals-dataset" / "dropped.jsonl").exists()


def test_the_chinese_page_is_the_same_page_and_says_so_in_chinese(tmp_path: Path) -> None:
    page = PAGES["zh", "documents"].read_text(encoding="utf-8")
    assert "训练" in page
    assert commands(PAGES["zh", "documents"]) == commands(PAGES["en", "documents"])
