"""Whether our log probabilities are lm-evaluation-harness': the same model, the same items, float32, no hub.

    python bench/lm_eval_parity.py MODEL TASK.toml … [--url http://127.0.0.1:8000/v1 --served NAME]

MODEL is a folder in HF's layout. Each task (kind choice, classify, perplexity or generate, without chat) is written as the
harness' YAML with a JSONL beside it and run there with its HF backend, and with `local-completions` where an address of our
server is given; examples before the question are left out on all sides. Our side is the engine in float32. Needs lm-eval,
which is no dependency of Chatwright: install it into an
environment of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

from chatwright.engine.load import load_text_model
from chatwright.evaluation.backends.engine import EngineWriter
from chatwright.evaluation.documents import document_boundary
from chatwright.evaluation.examples import make_examples
from chatwright.evaluation.journal import Journal
from chatwright.evaluation.run import Answered, Silent, answer_with_writer
from chatwright.evaluation.task import Task, load_task
from chatwright.settings import Settings


def write_yaml(task: Task, folder: Path) -> None:
    """The harness renders the template itself; only the place of the right answer is worked out here."""
    import yaml

    examples = make_examples(task)
    rows = [dict(item) | {"gold": example.gold} for item, example in zip(task.items, examples, strict=True)]
    data = folder / f"{task.name}.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    spec: dict[str, Any] = {
        "task": task.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "metadata": {"version": 1},
    }
    match task.kind:
        case "choice" | "classify":
            first = examples[0]
            delimiter = first.choices[0].removesuffix(first.options[0])
            spec |= {
                "output_type": "multiple_choice",
                "doc_to_text": task.prompt,
                "doc_to_choice": list(task.labels) or task.choices,
                "doc_to_target": "gold",
                "target_delimiter": delimiter,
                "metric_list": [{"metric": "acc"}],
            }
        case "perplexity":
            spec |= {
                "output_type": "loglikelihood_rolling",
                "doc_to_text": "",
                "doc_to_target": task.prompt or "{{text}}",
                "metric_list": [{"metric": "bits_per_byte"}],
            }
        case "generate":
            spec |= {
                "output_type": "generate_until",
                "doc_to_text": task.prompt,
                "doc_to_target": "",
                "generation_kwargs": {"until": list(task.stop), "max_gen_toks": task.max_tokens, "do_sample": False},
                "metric_list": [{"metric": "exact_match"}],
            }
        case _:
            raise SystemExit(f"{task.name}: the harness has nothing like {task.kind}")
    (folder / f"{task.name}.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")


def theirs(model: Any, names: Sequence[str], folder: Path) -> dict[str, list[Any]]:
    """What the harness found for each item, in their order."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(model=model, tasks=list(names), task_manager=manager, bootstrap_iters=0, log_samples=True)
    samples = found["samples"]
    return {
        name: [each["filtered_resps"] for each in sorted(samples[name], key=lambda each: each["doc_id"])]
        for name in names
    }


def ours(path: Path, tasks: Sequence[Task]) -> list[Answered]:
    """The engine, in float32."""
    model = load_text_model(path, path.name, Settings(quantization="fp32", device="cpu"))

    async def run() -> list[Answered]:
        writer = EngineWriter(model)
        try:
            return await answer_with_writer(writer, [(t, make_examples(t)) for t in tasks], Journal(), Silent())
        finally:
            await writer.close()

    return asyncio.run(run())


def compare(answered: Answered, harness: Sequence[Any]) -> str:
    """The largest difference of a log probability, or how many answers are the same text."""
    task = answered.task
    if task.kind == "generate":
        same = sum(
            str(ours["said"]).strip() == str(their[0]).strip()
            for ours, their in zip(answered.results, harness, strict=True)
        )
        return f"{same} of {len(harness)} answers the same"
    worst, largest, agreed, n_compared = 0.0, 0.0, 0, 0
    for mine, their in zip(answered.results, harness, strict=True):
        if task.kind == "perplexity":
            pairs = [(-mine["nats"], _number(their[0]))]
        else:
            pairs = list(zip(mine["logprobs"], (_number(each) for each in their), strict=True))
            agreed += _best([a for a, _b in pairs]) == _best([b for _a, b in pairs])
        n_compared += len(pairs)
        worst = max(worst, *(abs(a - b) for a, b in pairs))
        largest = max(largest, *(abs(a) for a, _b in pairs))
    chosen = "" if task.kind == "perplexity" else f"; the same choice for {agreed} of {len(harness)}"
    return f"largest difference of {n_compared} log probabilities {worst:.2e} (they reach {largest:.0f}){chosen}"


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])


def _number(response: Any) -> float:
    return float(response[0]) if isinstance(response, list | tuple) else float(response)


def main() -> None:
    """See the top."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("tasks", nargs="+", type=Path)
    parser.add_argument("--url")
    parser.add_argument("--served")
    arguments = parser.parse_args()
    tasks = [replace(load_task(path), shots=()) for path in arguments.tasks]
    names = [task.name for task in tasks]
    mine = ours(arguments.model, tasks)
    from chatwright.engine.tokenizers import load_model_tokenizer

    start = document_boundary(load_model_tokenizer(arguments.model))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for task in tasks:
            write_yaml(task, folder)
        backends = {
            "hf": HFLM(
                pretrained=str(arguments.model), dtype="float32", device="cpu", batch_size=4, prefix_token_id=start
            )
        }
        if arguments.url:
            # It begins documents with the end of a turn unless told otherwise, and has no option for that.
            LocalCompletionsAPI.prefix_token_id = property(lambda _self: start)
            backends["local-completions"] = LocalCompletionsAPI(
                base_url=f"{arguments.url}/completions",
                model=arguments.served or arguments.model.name,
                tokenizer=str(arguments.model),
                tokenizer_backend="huggingface",
                tokenized_requests=True,
                num_concurrent=4,
                max_retries=1,
            )
        for backend, model in backends.items():
            found = theirs(model, names, folder)
            for answered in mine:
                result = compare(answered, found[answered.task.name])
                print(
                    f"{backend}\t{answered.task.name}\t{answered.task.kind}\tn={len(answered.results)}\t{result}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
