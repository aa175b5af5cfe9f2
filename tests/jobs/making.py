"""Folders of jobs for tests: a tiny model, and something small for it to learn."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chatwright.jobs.budget import Budget, Phase
from chatwright.jobs.children import Child
from chatwright.jobs.folder import Inputs, JobFolder, JobsFolder, Request
from chatwright.store.ids import new_id

PATIENCE_S = 250.0
BUDGET = Budget(n_threads=1, memory_bytes=0, device="cpu")


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def pair(question: str, good: str, bad: str) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": good}],
        "non_preferred_output": [{"role": "assistant", "content": bad}],
    }


CATS = [chat(f"The cat {n}?", "The cat sat on the mat.") for n in range(8)]
DOGS = [chat(f"The dog {n}?", "and the dog did not.") for n in range(3)]
PAIRS = [pair(f"The cat {n}?", "sat on the mat", "print(add(1, 2))") for n in range(6)]


def make_job(
    home: Path,
    base: Path,
    training: bytes | Sequence[dict[str, Any]],
    validation: Sequence[dict[str, Any]] = (),
    parent: Path | None = None,
    **asked: Any,
) -> JobFolder:
    """A job that nobody works at yet."""
    home.mkdir(parents=True, exist_ok=True)
    file, held_out = home / "training.jsonl", home / "validation.jsonl"
    file.write_bytes(training if isinstance(training, bytes) else lines(*training))
    held_out.write_bytes(lines(*validation))
    request = Request(**({"method": "supervised", "base_path": str(base), "base_name": "", "seed": 1} | asked))
    inputs = Inputs(file, held_out if validation else None, parent, request=request)
    return JobsFolder(home).make(new_id("ftjob"), inputs)


def work(folder: JobFolder, phase: Phase = "tune", budget: Budget = BUDGET) -> Child:
    """A worker, until it has ended."""
    child = Child.start(folder, phase, budget)
    wait_for(child)
    return child


def wait_for(child: Child) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while child.is_alive():
        assert time.monotonic() < deadline, child.folder.last_words(20)
        time.sleep(0.05)


def wait_until(condition: Any, child: Child) -> None:
    """Something that a worker does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, child.folder.last_words(20)
        assert child.is_alive(), child.folder.last_words(20)
        time.sleep(0.02)
