"""The whole way with the newest client: upload, job, events, checkpoint, chat with the result, delete.

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=TOKEN python -m examples.fine_tuning.newest [MODEL]

TOKEN: the token that `chatwright serve` prints, or with accounts a key with the scopes inference, files and fine-tuning.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import openai

from examples.fine_tuning.veloria import FACTS, n_known, write_conversations


def ask(client: openai.OpenAI, model: str) -> list[str]:
    """Answers to the questions that were not trained on."""
    answers = []
    for fact in FACTS:
        completion = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": fact.unseen}], temperature=0, max_tokens=30
        )
        answers.append(completion.choices[0].message.content or "")
    return answers


def main(model: str = "smollm2:135m") -> int:
    """0 where the answers changed as trained."""
    client = openai.OpenAI()
    before = ask(client, model)
    print(f"before: {n_known(before)} of {len(FACTS)} known, for example: {before[0]!r}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "veloria.jsonl"
        print(f"examples: {write_conversations(path)}")
        with path.open("rb") as stream:
            file = client.files.create(file=stream, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=model, training_file=file.id, suffix="veloria", seed=7)
    print(f"job: {job.id}")
    seen: set[str] = set()
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        page = client.fine_tuning.jobs.list_events(job.id, limit=100)
        for event in reversed(page.data):
            if event.id not in seen:
                seen.add(event.id)
                print(f"  {event.message}")
        job = client.fine_tuning.jobs.retrieve(job.id)
    if job.status != "succeeded":
        print(f"it has {job.status}: {job.error}")
        return 1
    print(f"chosen: {job.hyperparameters.to_dict()}, trained tokens: {job.trained_tokens}")
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id).data:
        answers = ask(client, checkpoint.fine_tuned_model_checkpoint)
        print(f"checkpoint of step {checkpoint.step_number}: {n_known(answers)} known")
    table = client.files.content(job.result_files[0]).text
    print(f"results: {len(table.splitlines()) - 1} steps")
    assert job.fine_tuned_model is not None
    after = ask(client, job.fine_tuned_model)
    print(f"after, {job.fine_tuned_model}: {n_known(after)} of {len(FACTS)} known, for example: {after[0]!r}")
    assert job.fine_tuned_model in [each.id for each in client.models.list()]
    client.models.delete(job.fine_tuned_model)
    try:
        ask(client, job.fine_tuned_model)
    except openai.NotFoundError:
        print("deleted")
    else:
        return 1
    client.files.delete(file.id)
    return 0 if n_known(after) >= 4 and n_known(before) == 0 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
