"""Small tasks written as a user writes them, for the tests of evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CAPITALS = [("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Egypt", "Cairo")]


def write_task(folder: Path, name: str, items: Sequence[Mapping[str, Any]], /, **settings: Any) -> Path:
    """NAME.toml beside NAME.jsonl; settings that are None are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"name": name, "language": "en", "data": f"{name}.jsonl", **settings}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in raw.items() if value is not None]
    (folder / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    (folder / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    return folder / f"{name}.toml"


def capitals(folder: Path, **settings: Any) -> Path:
    """Multiple choice."""
    cities = [city for _country, city in CAPITALS]
    items = [{"country": country, "choices": cities, "answer": city} for country, city in CAPITALS]
    return write_task(
        folder, "capitals", items, **{"kind": "choice", "prompt": "The capital of {{ country }} is", **settings}
    )


def sentences(folder: Path, **settings: Any) -> Path:
    """Which of two sentences is likelier as a whole."""
    items = [{"choices": ["The cat sat on the mat.", "Mat the on sat cat the."], "answer": 0}]
    return write_task(folder, "sentences", items, **{"kind": "choice", "prompt": "", **settings})


def sums(folder: Path, **settings: Any) -> Path:
    """Answers to be written."""
    items = [{"question": f"{a} + {a}", "answer": [str(2 * a), f"It is {2 * a}"]} for a in range(1, 6)]
    defaults = {"kind": "generate", "prompt": "Q: {{ question }}\nA:", "max_tokens": 6}
    return write_task(folder, "sums", items, **{**defaults, **settings})


def texts(folder: Path, language: str = "en") -> Path:
    """Texts for bits per byte."""
    items = [
        {"text": "The cat sat on the mat, and the dog did not."},
        {"text": "你好，世界！天气很好。"},
        {"text": "print(1)"},
    ]
    return write_task(folder, "texts", items, kind="perplexity", language=language)


def reviews(folder: Path, **settings: Any) -> Path:
    """Labels by likelihood."""
    items = [
        {"text": "I loved it", "answer": "good"},
        {"text": "Dull and slow", "answer": "bad"},
        {"text": "A joy", "answer": "good"},
        {"text": "Never again", "answer": "bad"},
    ]
    defaults = {"kind": "classify", "labels": ["good", "bad"], "prompt": "Review: {{ text }}\nIt was"}
    return write_task(folder, "reviews", items, **{**defaults, **settings})


def orders(folder: Path, **settings: Any) -> Path:
    """Instructions in a chat."""
    items = [
        {"prompt": "Say hello in at most 3 words.", "checks": [{"kind": "max_words", "value": 3}]},
        {"prompt": "写一句中文。", "checks": [{"kind": "language", "value": "zh"}, {"kind": "n_lines", "value": 1}]},
    ]
    return write_task(folder, "orders", items, **{"kind": "instructions", "chat": True, "max_tokens": 8, **settings})


def names(folder: Path, **settings: Any) -> Path:
    """Entities, written as a JSON list."""
    items = [{"text": "Anna met Bob in Rome.", "entities": [
        {"start": 0, "end": 4, "label": "PER"}, {"start": 9, "end": 12, "label": "PER"}, {"start": 16, "end": 20, "label": "LOC"},
    ]}, {"text": "Nobody came.", "entities": []}]  # fmt: skip
    prompt = {"prompt": "Names in: {{ text }}\n", "max_tokens": 8}
    return write_task(folder, "names", items, **{"kind": "entities", **prompt, **settings})
