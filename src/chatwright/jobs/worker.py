"""The main of a job's process: `python -m chatwright.jobs.worker PHASE FOLDER BUDGET`, started by the server, which it may outlive.

PHASE is `check` (the files become a dataset; without PyTorch) or `tune` (from the dataset, or from the run's last checkpoint, to
the result). It writes into FOLDER only, and ends with `outcome.json` where there is no more to be done. SIGTERM asks it to save and
end; then there is no outcome, and the same call goes on.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from chatwright.errors import ChatwrightError, InUseError, InvalidDatasetError, InvalidModelError, ModelNotFoundError
from chatwright.jobs.budget import TUNE, Budget
from chatwright.jobs.examples import InvalidFileError, make_dataset
from chatwright.jobs.folder import DATASET, JobFolder, Outcome, Request
from chatwright.training.run import CONFIG, Run
from chatwright.training.tune_recipe import Method, TuneOptions, usual_learning_rate

HELD_EXIT_CODE = 75  # EX_TEMPFAIL: another worker has the job
# Behind everything that answers somebody, ahead of nothing.
NICENESS = 15
# The kernel takes this process first when memory runs out, not the server beside it.
OOM_SCORE = 800
# What the planner does not decide: examples that are seen at least, in epochs of which there are not too many.
SEEN_AT_LEAST, MOST_AUTO_EPOCHS, AUTO_EPOCHS = 200, 25, 3
KEPT_CHECKPOINTS = 3  # as many as OpenAI keeps


def main() -> int:
    """The exit code says nothing that the folder does not say."""
    phase, folder, budget = sys.argv[1], JobFolder(Path(sys.argv[2])), Budget.from_json(sys.argv[3])
    _be_modest(budget)
    try:
        with folder.held():
            if folder.outcome() is None:
                _work(phase, folder, budget)
    except InUseError:
        return HELD_EXIT_CODE
    return 0


def _work(phase: str, folder: JobFolder, budget: Budget) -> None:
    request = folder.request()
    try:
        if folder.checked() is None:
            make_dataset(folder, request.method)
        if phase == TUNE and _tune(folder, request, budget):
            folder.end(Outcome(succeeded=True))
    except ChatwrightError as error:
        traceback.print_exc()
        folder.end(_failure(error))
    except Exception:  # noqa: BLE001  the edge of a process: whoever waits for it has to hear that trying again is of no use
        traceback.print_exc()
        folder.end(
            Outcome(
                False,
                "server_error",
                "The training failed by a mistake of this program. The log of the job says where.",
            )
        )


def _tune(folder: JobFolder, request: Request, budget: Budget) -> bool:
    """Whether it came to its end, and was not asked to stop before."""
    from chatwright.engine.device import find_device
    from chatwright.model.adapter import open_adapter
    from chatwright.text.dataset import Dataset
    from chatwright.training.base_model import BaseModel
    from chatwright.training.tune import resume_tuning, start_tuning

    device = find_device(budget.device)
    if (folder.run / CONFIG).exists():
        # Another machine or version than it began with gives other last bits: nobody who waits for a job minds.
        tuned = resume_tuning(Run.open(folder.run), device=device, force=True)
        return tuned.signal is None
    checked = folder.checked()
    assert checked is not None
    if folder.parent is not None:
        open_adapter(folder.parent)  # refused before the model is loaded
    base = BaseModel.open(Path(request.base_path), request.base_name)
    tuned = start_tuning(
        base,
        Dataset.open(folder.path / DATASET),
        options_of(request, checked.n_rows, folder.parent),
        folder.run,
        device=device,
        n_threads=budget.n_threads,
    )
    return tuned.signal is None


def options_of(request: Request, n_rows: int, parent: Path | None) -> TuneOptions:
    """What `chatwright tune` is asked for. A step's rows are examples, as the API counts them, so nothing is packed."""
    method: Method = "dpo" if request.method == "dpo" else "lora"
    multiplier = request.learning_rate_multiplier
    epochs = request.n_epochs
    if epochs is None and method == "lora":
        epochs = auto_epochs(n_rows)
    return TuneOptions(
        method=method,
        seed=request.seed,
        epochs=epochs,
        lr=None if multiplier is None else multiplier * usual_learning_rate(method),
        batch=request.batch_size,
        beta=request.beta,
        packed=False,
        keep=KEPT_CHECKPOINTS,
        adapter=parent,
    )


def auto_epochs(n_rows: int) -> int:
    """Few examples are seen more often: three epochs of twenty are not enough steps to learn anything."""
    return min(MOST_AUTO_EPOCHS, max(AUTO_EPOCHS, math.ceil(SEEN_AT_LEAST / n_rows)))


def _failure(error: ChatwrightError) -> Outcome:
    """The error as the API says it. Without paths of this machine where they can be told apart."""
    if isinstance(error, InvalidFileError):
        return Outcome(False, error.code, f"The job failed due to an invalid file. {error}", error.param)
    message = str(error)
    for name, value in error.params.items():
        if isinstance(value, Path) or name in ("path", "run"):
            message = message.replace(str(value), Path(str(value)).name)
    if isinstance(error, InvalidDatasetError):
        return Outcome(False, "invalid_training_file", message, "training_file")
    if isinstance(error, ModelNotFoundError | InvalidModelError):
        return Outcome(False, "model_not_available", message, "model")
    return Outcome(False, "training_failed", message)


def _be_modest(budget: Budget) -> None:
    """Chat goes on beside this."""
    os.environ["OMP_NUM_THREADS"] = str(budget.n_threads)
    with suppress(OSError):
        os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
    if budget.memory_bytes and sys.platform == "linux" and not _may_use_gpu(budget):
        import resource

        # Data and not address space: a framework maps far more than it ever touches.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (budget.memory_bytes, budget.memory_bytes))


def _may_use_gpu(budget: Budget) -> bool:
    """Its driver maps far more than it takes, which no limit may count."""
    return budget.device.startswith("cuda") or (budget.device == "auto" and Path("/dev/nvidiactl").exists())


if __name__ == "__main__":
    sys.exit(main())
