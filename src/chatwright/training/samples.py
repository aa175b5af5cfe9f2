"""What the model said at a step, as Markdown that is read without us."""

from __future__ import annotations

from collections.abc import Sequence

from chatwright.errors import StorageError
from chatwright.text.work import write_atomically
from chatwright.training.objective import Sample
from chatwright.training.run import SAMPLES, Run


def write_samples(run: Run, step: int, samples: Sequence[Sample]) -> None:
    """Writes samples/step-000100.md. Raises StorageError."""
    folder = run.path / SAMPLES
    parts = [f"# step {step}\n"]
    for sample in samples:
        fence = "`" * max(3, 1 + _longest_run(sample.prompt + sample.text))
        parts.append(f"{fence}text\n{sample.prompt} ▶ {sample.text}\n{fence}\n")
    try:
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"step-{step:06d}.md", "\n".join(parts).encode())
    except OSError as error:
        raise StorageError("{path} cannot be written: {reason}", path=folder, reason=error.strerror) from error


def _longest_run(text: str) -> int:
    longest = current = 0
    for char in text:
        current = current + 1 if char == "`" else 0
        longest = max(longest, current)
    return longest
