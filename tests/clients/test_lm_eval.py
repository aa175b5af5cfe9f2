"""lm-evaluation-harness against the server: scoring by `echo` and `logprobs`, with the server's own tokenizer, and generating."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="other projects' clients have an environment of their own: make clients-test")

import httpx
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from tests.clients.conftest import MODEL, TOKEN, Api

QUESTIONS = [
    {"question": "The capital of France is", "choices": [" Paris", " Rome", " a dog"], "answer": 0},
    {"question": "Two plus two is", "choices": [" four", " a green", " the"], "answer": 0},
    {"question": "日本的首都是", "choices": ["东京", "狗", "七"], "answer": 0},
]
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
doc_to_text: "%s"
target_delimiter: ""
"""
TASKS = {
    "own_choice": """
task: own_choice
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}]
""",
    "own_answer": """
task: own_answer
output_type: generate_until
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 6, temperature: 0.0}
metric_list: [{metric: exact_match}]
""",
    "own_text": """
task: own_text
output_type: loglikelihood_rolling
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}]
""",
}


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskManager:
    """Tasks of our own: the harness' fetch their data."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", TOKEN)
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(question, ensure_ascii=False) + "\n" for question in QUESTIONS))
    for name, task in TASKS.items():
        prompt = "" if name == "own_text" else "{{question}}"
        (tmp_path / f"{name}.yaml").write_text(task + COMMON % (data, prompt))
    return TaskManager(include_path=str(tmp_path), include_defaults=False)


def evaluate(kind: str, url: str, names: list[str], tasks: TaskManager, **options: Any) -> dict[str, Any]:
    told = simple_evaluate(
        model=kind,
        model_args=f"model={MODEL},base_url={url},max_retries=1",
        tasks=names,
        task_manager=tasks,
        log_samples=True,
        bootstrap_iters=0,
        **options,
    )
    assert told is not None
    return dict(told)


def test_it_scores_as_the_model_does(api: Api, tasks: TaskManager) -> None:
    """By default the harness finds the server's tokenizer and sends token ids; its sums are those of the server's own log
    probabilities of prompt and choice."""
    told = evaluate("local-completions", f"{api.url}/completions", ["own_choice", "own_answer", "own_text"], tasks)
    for sample in told["samples"]["own_choice"]:
        for choice, [[logprob, _]] in zip(sample["doc"]["choices"], sample["resps"], strict=True):
            assert logprob == pytest.approx(score(api, sample["doc"]["question"], choice), abs=1e-3)
    assert told["results"]["own_choice"]["acc,none"] > 0.3, "by chance it is a third, and these are easy"
    assert all(isinstance(sample["resps"][0][0], str) for sample in told["samples"]["own_answer"])
    assert told["results"]["own_text"]["word_perplexity,none"] > 1


def test_it_chats(api: Api, tasks: TaskManager) -> None:
    told = evaluate(
        "local-chat-completions", f"{api.url}/chat/completions", ["own_answer"], tasks, apply_chat_template=True
    )
    answers = [sample["resps"][0][0] for sample in told["samples"]["own_answer"]]
    assert len(answers) == len(QUESTIONS)
    assert any(answers)


def score(api: Api, prompt: str, choice: str) -> float:
    """The log probability of the choice behind the prompt, as a plain request gets it: tokens of the whole, less the prompt's."""

    def ids(text: str) -> list[int]:
        answer = httpx.post(f"{api.url}/tokenize", json={"prompt": text, "add_special_tokens": False}, timeout=60)
        found: list[int] = answer.json()["tokens"]
        return found

    whole, start = ids(prompt + choice), len(ids(prompt))
    body = {"model": MODEL, "prompt": whole, "max_tokens": 0, "echo": True, "logprobs": 1}
    answer = httpx.post(f"{api.url}/completions", json=body, timeout=60).json()
    return float(sum(answer["choices"][0]["logprobs"]["token_logprobs"][start:]))
