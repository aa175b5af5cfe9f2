"""How fast chat is while a job trains, beside the same with its process stopped; taken in turns, so that whatever else the machine
does weighs on both.

    python -m bench.beside_job URL TOKEN HOME [--model smollm2:135m] [--n 8]

The server at URL has its home folder at HOME, on this machine. A job is made, measured beside, and cancelled.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import openai

from chatwright.jobs.folder import JobsFolder
from examples.fine_tuning.veloria import write_conversations


def tokens_per_second(client: openai.OpenAI, model: str, seed: int) -> float:
    """Of one answer of a hundred tokens, from the first to the last."""
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Tell me a long story about a cat."}],
        max_tokens=100,
        seed=seed,
        stream=True,
    )
    times = [time.perf_counter() for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    return (len(times) - 1) / (times[-1] - times[0])


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("home", type=Path)
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--n", type=int, default=8)
    options = parser.parse_args()
    client = openai.OpenAI(base_url=f"{options.url}/v1", api_key=options.token)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        write_conversations(path)
        with path.open("rb") as stream:
            file = client.files.create(file=stream, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=options.model, training_file=file.id, hyperparameters={"n_epochs": 100})
    job_folder = JobsFolder(options.home).job(job.id)
    metrics = job_folder.run / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_bytes().splitlines()) >= 2):
        time.sleep(0.5)
    worker = job_folder.worker()
    assert worker is not None
    beside, alone = [], []
    try:
        for number in range(options.n):
            worker.resume()
            beside.append(tokens_per_second(client, options.model, number))
            worker.suspend()
            alone.append(tokens_per_second(client, options.model, number))
    finally:
        worker.resume()
        client.fine_tuning.jobs.cancel(job.id)
    ratios = sorted(a / b for a, b in zip(beside, alone, strict=True))
    print(
        json.dumps(
            {
                "n": options.n,
                "ratio": round(median(ratios), 3),
                "least": round(ratios[0], 3),
                "most": round(ratios[-1], 3),
                "beside": [round(each, 1) for each in beside],
                "alone": [round(each, 1) for each in alone],
            }
        )
    )


if __name__ == "__main__":
    main()
