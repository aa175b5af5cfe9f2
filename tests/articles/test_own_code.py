"""The articles' PyTorch and Transformers code, to the letter, in this environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatwright.cli.edge import run as chatwright
from chatwright.text.dataset import write_dataset

HERE = Path(__file__).parent


def run(code: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an article's code in a folder, with no hub in reach and nothing set but the encoding of its output."""
    environment = {"PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        [sys.executable, code],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )


def test_article_001_runs_up_to_its_own_slip_and_trains_without_it(tmp_path: Path) -> None:
    """Its target has a time axis, (3, 5, 5), while its model answers for the last step only, (3, 5): no PyTorch takes that loss.
    All before it runs here: the imports, the model, the forward pass. With the target's shape mended, the rest does too."""
    done = run(HERE / "001.py", tmp_path)
    assert "loss = criterion(output, y)" in done.stderr
    assert "The size of tensor a (3) must match the size of tensor b (5)" in done.stderr

    code = (HERE / "001.py").read_text(encoding="utf-8")
    slip = "y = torch.randn(3, 5, output_size)"
    assert code.count(slip) == 1
    mended = tmp_path / "mended.py"
    seeded = "import torch\ntorch.manual_seed(0)\n" + code.replace(slip, "y = torch.randn(3, output_size)")
    mended.write_text(seeded + "print(loss.item())\n", encoding="utf-8")
    done = run(mended, tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0  # from the variance of the targets, about 1 and more at first


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some sentences in the article's language."""
    path = tmp_path_factory.mktemp("data") / "dataset"
    texts = [f"人工智能是一种技术，它的第 {i} 个例子是语言模型。A language model continues a text." for i in range(160)]
    rows = [{"text": text} for text in texts]
    write_dataset(path, {"documents": {"train": rows[:150], "held_out": rows[150:]}})
    return path


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
@pytest.mark.slow
def test_article_004_generates_with_a_model_trained_here(positions: str, dataset: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    shape = ("--arch", "gpt2", "--positions", positions, "--size", "0.1m", "--context", "64", "--vocab-size", "320")
    assert chatwright(["train", str(dataset), *shape, "--steps", "12", "--out", str(run_folder)]) == 0
    (run_folder / "model").rename(tmp_path / "gpt2")

    done = run(HERE / "004.py", tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("人工智能是一种...")  # and what a dozen steps teach, if anything, behind it
