"""What a step of training costs on this machine: a few real ones on random tokens, in a process of their own.

In another process because its peak memory is then that of training and nothing else, because it is given back at once, and because
one that the system kills for its memory is a finding and not the end of the user's command. What runs in it is the loop's own
`Stepper`, held-out scoring and checkpoint writing, on a model of the real shape. It takes a few seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self, cast

from chatwright.errors import TrainingError
from chatwright.model.config import ModelConfig
from chatwright.model.rnn_config import RNNConfig
from chatwright.training.config import TrainingConfig

if TYPE_CHECKING:
    import torch

    from chatwright.training.pretraining import HeldOut, Pretraining

# How long steps are repeated, and how many at least after the first, which pays for what later ones find in place.
MEASURED_S, MIN_STEPS = 3.0, 3
# A short run has a dozen checkpoints: what one took while something else wrote would cost it its steps.
N_SAVES = 3
STILL = 1e-12  # a learning rate
# Longer than the largest model that fits a machine needs for its first steps.
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class StepCost:
    """`micro_seconds`: forward and backward of one micro-batch; `update_seconds`: the optimizer's part of a step; `eval_seconds`:
    scoring of one held-out token; `save_seconds`: one checkpoint, which takes `checkpoint_bytes` on disk. `peak_bytes`: the most
    memory that the process (on a GPU: the device) held at any moment; `start_bytes`: with everything imported, before the model."""

    micro_seconds: float
    update_seconds: float
    eval_seconds: float
    save_seconds: float
    checkpoint_bytes: int
    peak_bytes: int
    start_bytes: int

    def step_seconds(self, config: TrainingConfig) -> float:
        """Of one step of `batch_rows` rows."""
        return config.batch_rows / config.micro_rows * self.micro_seconds + self.update_seconds

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `asdict` gave."""
        return cls(**values)


def measure_step(
    model: ModelConfig | RNNConfig,
    config: TrainingConfig,
    context_length: int,
    *,
    device: str = "cpu",
    dropout: float = 0.0,
    n_threads: int | None = None,
) -> StepCost:
    """Raises TrainingError when a step cannot be done on this machine, memory included."""
    request = {
        "kind": "rnn" if isinstance(model, RNNConfig) else "gpt",
        "model": asdict(model),
        "config": config.to_dict(),
        "context_length": context_length,
        "device": device,
        "dropout": dropout,
        "n_threads": n_threads,
    }
    command = [sys.executable, "-m", "chatwright.training.measure"]
    try:
        done = subprocess.run(  # noqa: S603  our own module
            command, input=json.dumps(request), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TrainingError(
            "A step of this model takes longer than {minutes} minutes on this machine. Take a smaller size (--size).",
            minutes=round(TIMEOUT_S / 60),
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise TrainingError(
            "One step of this model failed on this machine, most likely for lack of memory ({reason}). Take a smaller size (--size)"
            " or fewer rows at a time (--micro-rows).",
            reason=lines[-1][:200] if lines else f"exit code {done.returncode}",
        )
    return StepCost.from_dict(json.loads(done.stdout.splitlines()[-1]))


def _measure(request: Mapping[str, Any]) -> StepCost:
    import torch

    from chatwright.evaluation.documents import EncodedDocument
    from chatwright.training.distributed import World
    from chatwright.training.optimizer import Optimizers
    from chatwright.training.pretraining import HeldOut
    from chatwright.training.step import Stepper

    if request["n_threads"]:
        torch.set_num_threads(request["n_threads"])
    device = torch.device(request["device"])
    start_bytes = _resident_bytes()
    # Standing still costs what learning does, and does not diverge: there is nothing to learn from random tokens.
    config = replace(TrainingConfig.from_dict(request["config"]), lr=STILL, muon_lr=STILL)
    context_length = request["context_length"]
    document = EncodedDocument(range(min(4 * context_length, request["model"]["vocab_size"] - 1)), 1)
    held_out = HeldOut([document] * max(1, 16384 // len(document.ids)), [""], 1, 1)
    values = request["model"]
    model: ModelConfig | RNNConfig = (
        RNNConfig(**values)
        if request["kind"] == "rnn"
        else ModelConfig(**values | {"windows": tuple(values["windows"])})
    )
    objective = random_objective(model, context_length, request["dropout"], held_out, device)
    if config.compile:
        from chatwright.training.compiling import compile_model

        compile_model(objective.model)
    optimizers = Optimizers(objective.model, config)
    # one micro-batch a step: what more of them cost follows
    stepper = Stepper(objective, replace(config, batch_rows=config.micro_rows, n_steps=1_000_000), optimizers, World())
    objective.model.train()
    step_seconds = _repeat(stepper.step, device)
    update_seconds = _repeat(optimizers.step, device, budget_s=MEASURED_S / 6)
    with torch.no_grad(), stepper.autocast():
        eval_seconds = _repeat(lambda _: objective.evaluate(full=True), device, budget_s=MEASURED_S / 6, least=1)
    n_scored = sum(len(each.ids) - 1 for each in held_out.documents)
    tensors = optimizers.state() | {f"parameter/{k}": v for k, v in optimizers.parameters.items()}
    saves = [_save(tensors) for _ in range(N_SAVES)]
    return StepCost(
        micro_seconds=max(step_seconds - update_seconds, 0.0),
        update_seconds=update_seconds,
        eval_seconds=eval_seconds / n_scored,
        save_seconds=median(seconds for seconds, _size in saves),
        checkpoint_bytes=saves[0][1],
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _peak_bytes(),
        start_bytes=0 if device.type == "cuda" else start_bytes,
    )


def random_objective(
    config: ModelConfig | RNNConfig, context_length: int, dropout: float, held_out: HeldOut, device: torch.device
) -> Pretraining:
    """Pretraining of a new model on random tokens: costs what real ones cost."""
    from chatwright.model.gpt import GPT
    from chatwright.model.init import initialise
    from chatwright.model.rnn import RNN
    from chatwright.training.pretraining import Pretraining

    model = RNN(config, dropout) if isinstance(config, RNNConfig) else GPT(config, dropout)
    initialise(model, 0)
    return Pretraining(
        model.to(device),
        cast(Any, None),  # only samples need a tokenizer, and none are made
        cast(Any, _RandomTokens(config.vocab_size)),
        held_out,
        context_length=context_length,
        seed=0,
        name_documents=lambda numbers: [],
        write_model=lambda trained, folder: None,
    )


class _RandomTokens:
    """In the place of a `TokenFile`."""

    n_tokens = 1 << 24

    def __init__(self, vocab_size: int) -> None:
        import numpy as np

        self.generator, self.vocab_size = np.random.default_rng(0), vocab_size

    def read(self, start: int, n: int) -> Any:
        return self.generator.integers(self.vocab_size, size=n)


def _repeat(
    call: Callable[[int], object], device: torch.device, *, budget_s: float = MEASURED_S, least: int = MIN_STEPS
) -> float:
    """Median seconds of a call that is given its number."""
    import torch

    times: list[float] = []
    began = time.perf_counter()
    for number in range(10_000):
        start = time.perf_counter()
        call(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            times.append(time.perf_counter() - start)
        if len(times) >= least and time.perf_counter() - began > budget_s:
            break
    return median(times)


def _save(tensors: Mapping[str, torch.Tensor]) -> tuple[float, int]:
    """Writes them as a checkpoint does, for what that takes of memory: seconds, and the bytes on disk, the model's own file
    included."""
    from safetensors.torch import save_file

    with TemporaryDirectory(prefix="chatwright-measure-") as folder:
        file = Path(folder) / "optimizer.safetensors"
        began = time.perf_counter()
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
        seconds = time.perf_counter() - began
        parameters = sum(t.nbytes for name, t in tensors.items() if name.startswith("parameter/"))
        return seconds, file.stat().st_size + parameters


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _peak_bytes() -> int:
    """The most that was resident at any moment; now, where the system does not keep the most."""
    try:
        # Linux. Not ru_maxrss: that begins with the size of the parent at the fork, gigabytes perhaps.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return _resident_bytes()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_measure(json.load(sys.stdin)))) + "\n")
