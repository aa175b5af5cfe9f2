"""The same with openai 0.28.1, by both of its ways: `FineTune` (prompts and completions) and `FineTuningJob` (conversations).

OPENAI_API_BASE=http://127.0.0.1:8000/v1 OPENAI_API_KEY=TOKEN python -m examples.fine_tuning.old [MODEL]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

from examples.fine_tuning.veloria import FACTS, n_known, write_completions, write_conversations

api: Any = openai  # this client is another one than the one that types are checked with


def fine_tune(path: Path, model: str) -> int:
    """The way of 2021. How many of the facts the result knows."""
    write_completions(path)
    with path.open("rb") as stream:
        file = api.File.create(file=stream, purpose="fine-tune", user_provided_filename="veloria.jsonl")
    job = api.FineTune.create(training_file=file.id, model=model, suffix="veloria")
    print(f"{job.id}: {job.status}")
    for event in api.FineTune.stream_events(job.id):
        print(f"  {event.message}")
    job = api.FineTune.retrieve(job.id)
    assert job.status == "succeeded", job
    assert job.id in [each.id for each in api.FineTune.list().data]
    assert api.FineTune.list_events(job.id).data[-1].message == "The job has successfully completed."
    table = api.File.download(job.result_files[0].id)
    print(f"results: {len(table.splitlines()) - 1} steps, chosen: {dict(job.hyperparams)}")
    answers = [
        api.Completion.create(model=job.fine_tuned_model, prompt=fact.unseen, temperature=0, max_tokens=30)
        .choices[0]
        .text
        for fact in FACTS
    ]
    print(f"{job.fine_tuned_model}: {n_known(answers)} of {len(FACTS)} known, for example: {answers[0]!r}")
    api.Model.delete(job.fine_tuned_model)
    return n_known(answers)


def fine_tuning_job(path: Path, model: str) -> int:
    """The way of 2023."""
    write_conversations(path)
    with path.open("rb") as stream:
        file = api.File.create(file=stream, purpose="fine-tune", user_provided_filename="veloria.jsonl")
    job = api.FineTuningJob.create(training_file=file.id, model=model, hyperparameters={"n_epochs": 5})
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        job = api.FineTuningJob.retrieve(job.id)
    assert job.status == "succeeded", job
    assert job.id in [each.id for each in api.FineTuningJob.list(limit=5).data]
    print(f"{job.id}: {api.FineTuningJob.list_events(id=job.id, limit=1).data[0].message}")
    answers = [
        api.ChatCompletion.create(
            model=job.fine_tuned_model,
            messages=[{"role": "user", "content": fact.unseen}],
            temperature=0,
            max_tokens=30,
        )
        .choices[0]
        .message.content
        for fact in FACTS
    ]
    print(f"{job.fine_tuned_model}: {n_known(answers)} of {len(FACTS)} known, for example: {answers[0]!r}")
    api.Model.delete(job.fine_tuned_model)
    return n_known(answers)


def main(model: str = "smollm2:135m") -> int:
    """0 where both answer as trained."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "veloria.jsonl"
        known = [fine_tune(path, model), fine_tuning_job(path, model)]
    return 0 if min(known) >= 4 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
