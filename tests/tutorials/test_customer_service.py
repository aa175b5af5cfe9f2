"""Tutorial B's page runs as it stands there, in short: 40 rows, 2 folds, one step or two instead of three readings.

Its last section tunes a tiny model in three more ways, since a classifier of the default model leaves gigabytes of checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from examples.tutorial import PAGES, commands
from tests.server.tiny import make_model_folder
from tests.tutorials.runner import Shell

pytestmark = pytest.mark.model

SHORTER = {
    r"^chatwright tune smollm2:135m (.* --method (dpo|classify|tag))": r"chatwright tune ./tiny \1",
    r"^(python -m examples.shop .*)$": r"\1 --rows 40",
    r"--folds 5": "--folds 2",
    r"^(chatwright tune .*)$": r"\1 --epochs 0.1 --batch 2 --context 96 --precision fp32",
}


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_the_page_runs(make_shell: Callable[[str], Shell]) -> None:
    shell = make_shell("zh")
    make_model_folder(shell.folder / "tiny")
    shell.run(commands(PAGES["en", "customer-service"]), SHORTER)

    answers = [json.loads(said) for command, said in shell.said.items() if command.startswith("curl")]
    assert [answer["model"] for answer in answers] == ["shop", "smollm2:135m"]
    assert all(answer["choices"][0]["message"]["content"] for answer in answers)
    playground = shell.folder / "playground"
    assert (playground / "shop-run" / "adapter" / "adapter_config.json").exists()
    assert (playground / "shop-folds" / "folds.json").exists()
    for run in ("shop-classifier", "shop-tagger"):
        assert (playground / run / "model" / "config.json").exists()
