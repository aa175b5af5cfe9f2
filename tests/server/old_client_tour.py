"""Every endpoint that openai 0.28.1 knows and this server has, once. Run with that client on the path, by test_official_clients.

Prints one line of JSON for each answer: [name of its kind, object].
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import openai

api: Any = openai  # this client is another one than the one that types are checked with


def tell(kind: str, answer: Any) -> Any:
    print(json.dumps([kind, answer]), flush=True)
    return answer


def generating(model: str) -> None:
    asked = {"prompt": "The", "max_tokens": 3, "logprobs": 2}
    tell("Completion", api.Completion.create(model=model, **asked))
    tell("Completion", api.Completion.create(engine="text-davinci-002", **asked))
    for chunk in api.Completion.create(model=model, stream=True, **asked):
        tell("Completion", chunk)
    messages = [{"role": "user", "content": "Hi"}]
    tell("ChatCompletion", api.ChatCompletion.create(model=model, messages=messages, max_tokens=3))
    tell("ChatCompletion", api.ChatCompletion.create(engine=model, messages=messages, max_tokens=3))
    for chunk in api.ChatCompletion.create(model=model, messages=messages, max_tokens=3, stream=True):
        tell("ChatCompletionChunk", chunk)
    for where in ({"model": model}, {"engine": "text-embedding-ada-002"}):
        tell("CreateEmbeddingResponse", api.Embedding.create(input=["A cat", "猫"], **where))
    tell("Edit", api.Edit.create(model=model, input="Thee cat", instruction="Correct it."))
    for engine in tell("Engines", api.Engine.list()).data:
        tell("Engine", api.Engine.retrieve(engine.id))
    tell("Completion", api.Engine(id=model).generate(prompt="The", max_tokens=2))
    for found in tell("Models", api.Model.list()).data:
        tell("Model", api.Model.retrieve(found.id))


def files(path: str) -> str:
    with open(path, "rb") as stream:  # noqa: PTH123
        file = tell("FileObject", api.File.create(file=stream, purpose="fine-tune", user_provided_filename="x.jsonl"))
    tell("FileObject", api.File.retrieve(file.id))
    tell("Files", api.File.list())
    with open(path, "rb") as stream:  # noqa: PTH123
        assert api.File.download(file.id) == stream.read()
    return str(file.id)


def training(model: str, file: str) -> None:
    tune = tell("FineTune", api.FineTune.create(training_file=file, model=model, n_epochs=1))
    tell("FineTune", api.FineTune.cancel(tune.id))
    tell("FineTunes", api.FineTune.list())
    tell("FineTune", api.FineTune.retrieve(tune.id))
    tell("FineTuneEvents", api.FineTune.list_events(tune.id))
    for event in api.FineTune.stream_events(tune.id):
        tell("FineTuneEvent", event)
    job = tell(
        "FineTuningJob", api.FineTuningJob.create(training_file=file, model=model, hyperparameters={"n_epochs": 1})
    )
    tell("FineTuningJobs", api.FineTuningJob.list(limit=5))
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.2)
        job = api.FineTuningJob.retrieve(job.id)
    assert tell("FineTuningJob", job).status == "succeeded", job
    tell("FineTuningJobEvents", api.FineTuningJob.list_events(id=job.id))
    again = api.FineTuningJob.create(training_file=file, model=model)
    tell("FineTuningJob", api.FineTuningJob.cancel(again.id))
    tell("ModelDeleted", api.Model.delete(job.fine_tuned_model))
    tell("FileDeleted", api.File.delete(file))


def main(model: str, path: str) -> None:
    generating(model)
    training(model, files(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
