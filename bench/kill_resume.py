"""Kills a training run (-9) at random moments, continues it each time, and compares its bits with those of an undisturbed run.

    python bench/kill_resume.py [--kills 20] [--seed 0] [--arch qwen3] [--optimizer muon]

Prints one JSON line: `equal` says whether model and optimizer state are the same to the last bit.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from chatwright.text.dataset import write_dataset

N_STEPS = 400


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arch", default="qwen3")
    parser.add_argument("--optimizer", default="muon")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="chatwright-kills-") as folder:
        print(json.dumps(measure(Path(folder), options)))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both runs, compared."""
    generator = random.Random(options.seed)
    words = [f"word{number}" for number in range(300)]
    rows = [{"text": " ".join(generator.choices(words, k=80))} for _ in range(400)]
    write_dataset(folder / "dataset", {"documents": {"train": rows[20:], "held_out": rows[:20]}})
    whole, runs = folder / "whole", [folder / "run0"]
    began = time.monotonic()
    subprocess.run(start(folder, whole, options), check=True, capture_output=True)
    longest = 0.6 * (time.monotonic() - began)  # most kills then come before the end
    command, steps = start(folder, runs[0], options), []
    while len(steps) < options.kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (runs[-1] / "config.toml").exists():
            time.sleep(0.01)
        try:  # from the middle of start-up to the last moments
            process.wait(generator.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            steps.append(newest_step(runs[-1]))
            command = [sys.executable, "-m", "chatwright", "runs", "resume", str(runs[-1])]
        else:  # it came to its end: the next kills are of a new run
            assert process.returncode == 0, process.returncode
            assert same(whole, runs[-1]), (
                f"{runs[-1]} is different: {settings(whole) ^ settings(runs[-1]) or 'same settings'}"
            )
            runs.append(folder / f"run{len(runs)}")
            command = start(folder, runs[-1], options)
    subprocess.run(command, check=True, capture_output=True)
    return {
        "figure": "bit-identical after kills",
        "equal": all(same(whole, run) for run in runs),
        "kills": len(steps),
        "runs": len(runs),
        "checkpoints_at_kills": steps,
        "n_steps": N_STEPS,
        "arch": options.arch,
        "optimizer": options.optimizer,
        "seed": options.seed,
        "torch": torch.__version__,
        "machine": platform.platform(),
    }


def start(folder: Path, run: Path, options: argparse.Namespace) -> list[str]:
    """The command that begins a run."""
    return [
        sys.executable, "-m", "chatwright", "train", str(folder / "dataset"), "--size", "100k", "--vocab-size", "400",
        "--context", "64", "--batch-tokens", "1024", "--steps", str(N_STEPS), "--dropout", "0.1", "--arch", options.arch,
        "--optimizer", options.optimizer, "--precision", "fp32", "--out", str(run),
    ]  # fmt: skip


def settings(run: Path) -> set[str]:
    """What the run was told and derived, but for its date and the speed it measured."""
    lines = (run / "config.toml").read_text().splitlines()
    return {line for line in lines if not line.startswith(("created_at", "fp32_gflops", "bf16_gflops"))}


def newest_step(run: Path) -> int:
    """The step of the newest whole checkpoint."""
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


def same(a: Path, b: Path) -> bool:
    """Whether two finished runs are equal to the last bit."""
    files = ("model/model.safetensors", f"checkpoints/step-{N_STEPS:06d}/optimizer.safetensors")
    return all((a / file).read_bytes() == (b / file).read_bytes() for file in files)


if __name__ == "__main__":
    main()
