"""The evaluation tasks that ship: complete, large enough, with one right answer an item, and balanced."""

from __future__ import annotations

import json
import random
import re
import sys
import tomllib
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "src" / "chatwright" / "evaluation" / "tasks"
TOMLS = sorted(TASKS.rglob("*.toml"))
KINDS = {"perplexity", "choice", "generate", "classify", "entities", "instructions"}
# In the safety folders, which no benchmark of ability takes in.
SAFETY_KINDS = {"bias", "toxicity"}
# Kind of a check → type of its value.
CHECKS = {
    "max_words": int, "min_words": int, "n_sentences": int, "n_lines": int, "contains": str, "not_contains": str,
    "starts_with": str, "ends_with": str, "regex": str, "language": str, "json": list,
}  # fmt: skip


def settings(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of_kind(*kinds: str) -> list[Path]:
    return [path for path in TOMLS if settings(path)["kind"] in kinds]


def ids(path: Path) -> str:
    return path.stem


def choice_text(item: dict[str, Any]) -> str:
    """What makes an item of multiple choice the item it is: its question and its right answer."""
    asked = [value for key, value in item.items() if key not in ("choices", "answer", "phenomenon")]
    return json.dumps([asked, item["choices"][item["answer"]]])


def test_six_tasks_a_language_and_every_kind_of_task() -> None:
    for language in ("en", "zh"):
        abilities = [path for path in TOMLS if path.parent == TASKS / language]
        assert len(abilities) >= 6
        assert {settings(path)["kind"] for path in abilities} == KINDS
        assert {settings(path)["kind"] for path in (TASKS / language / "safety").glob("*.toml")} == SAFETY_KINDS


def test_every_data_file_belongs_to_a_task_and_all_are_small() -> None:
    used = {path.parent / settings(path)["data"] for path in TOMLS}
    used |= {path.parent / settings(path)["shots_from"] for path in TOMLS if "shots_from" in settings(path)}
    assert set(TASKS.rglob("*.jsonl")) == used
    assert sum(path.stat().st_size for path in TASKS.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize("path", TOMLS, ids=ids)
def test_a_task_is_described_completely(path: Path) -> None:
    task = settings(path)
    safety = path.parent.name == "safety"
    assert task["name"] == path.stem
    assert task["language"] == path.relative_to(TASKS).parts[0]
    assert task["kind"] in (SAFETY_KINDS if safety else KINDS)
    assert task["title"]
    assert re.search("Apache-2.0|MIT|WordNet licence", task["source"])
    assert "LICENSES.md" in task["source"] or "Chatwright" in task["source"]
    if task["kind"] in ("choice", "classify", "generate", "entities"):
        assert "{{" in task["prompt"] or task["name"].startswith(
            "acceptability"
        )  # whose two sentences are the question
    if task.get("shots", 0):
        assert len(rows(path.parent / task["shots_from"])) >= task["shots"]


@pytest.mark.parametrize("path", TOMLS, ids=ids)
def test_items_are_many_different_and_in_the_language(path: Path) -> None:
    task, items = settings(path), rows(path.parent / settings(path)["data"])
    assert len(items) >= 200
    assert len({frozenset(item) for item in items}) == 1  # the same fields in all
    unique = {choice_text(item) if task["kind"] == "choice" else json.dumps(item, sort_keys=True) for item in items}
    assert len(unique) == len(items)
    if task["name"].startswith("translation"):
        asked_in = {"en": "zh", "zh": "en"}[task["language"]]
        assert all(is_chinese(item["text"]) == (asked_in == "zh") for item in items)
        assert all(is_chinese(item["answer"]) == (task["language"] == "zh") for item in items)
        return
    for item in items:
        texts = " ".join(value for value in item.values() if isinstance(value, str))
        # Reviews of gadgets are full of Latin names, and arithmetic of digits.
        assert is_chinese(texts + " ".join(map(str, item.get("choices", [])))) == (task["language"] == "zh"), item


def is_chinese(text: str) -> bool:
    chinese = len(re.findall("[\u4e00-\u9fff]", text))
    return chinese > len(re.findall("[A-Za-z]+", text))


@pytest.mark.parametrize("path", of_kind("choice"), ids=ids)
def test_one_choice_is_right_and_each_place_is_right_equally_often(path: Path) -> None:
    items = rows(path.parent / settings(path)["data"])
    for item in items:
        assert len(set(item["choices"])) == len(item["choices"]) >= 2
        assert item["answer"] in range(len(item["choices"]))
    places = Counter(item["answer"] for item in items)
    n = len(items[0]["choices"])
    assert all(len(item["choices"]) == n for item in items)
    assert all(abs(places[place] - len(items) / n) <= 1 for place in range(n))


@pytest.mark.parametrize("path", of_kind("choice"), ids=ids)
def test_the_right_choice_cannot_be_told_by_its_length(path: Path) -> None:
    """Always taking the longest, or always the shortest, must not be a good strategy."""
    items = rows(path.parent / settings(path)["data"])
    n = len(items[0]["choices"])
    for pick in (max, min):
        guesses = [item["choices"].index(pick(item["choices"], key=len)) for item in items]
        share = sum(guess == item["answer"] for guess, item in zip(guesses, items, strict=True)) / len(items)
        assert share < 1 / n + 0.25, pick


@pytest.mark.parametrize("path", of_kind("classify"), ids=ids)
def test_labels_are_balanced(path: Path) -> None:
    task = settings(path)
    counts = Counter(item["answer"] for item in rows(path.parent / task["data"]))
    assert set(counts) == set(task["labels"])
    assert max(counts.values()) <= 1.5 * min(counts.values())


@pytest.mark.parametrize("path", of_kind("generate"), ids=ids)
def test_references_are_texts_and_worked_examples_are_no_items(path: Path) -> None:
    task = settings(path)
    items = rows(path.parent / task["data"])
    for item in items:
        answers = item["answer"] if isinstance(item["answer"], list) else [item["answer"]]
        assert answers
        assert all(isinstance(answer, str) and answer.strip() == answer != "" for answer in answers)
    shots = rows(path.parent / task["shots_from"])
    assert not {json.dumps(shot) for shot in shots} & {json.dumps(item) for item in items}
    if "extract" in task:
        assert all(re.fullmatch(r"\d+", item["answer"]) for item in items)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_passage_holds_the_answer(language: str) -> None:
    for item in rows(TASKS / language / f"reading-{language}.jsonl"):
        assert item["answer"][0].casefold() in item["passage"].casefold(), item
        assert len(set(item["answer"])) == len(item["answer"])


def test_everyday_sentences_are_the_same_in_both_languages() -> None:
    english, chinese = (rows(TASKS / language / f"everyday-{language}.jsonl") for language in ("en", "zh"))
    pairs = {item["text"]: item["answer"] for item in rows(TASKS / "zh" / "translation-zh.jsonl")}
    assert len(english) == len(chinese)
    translated = [
        (pairs[en["text"]], zh["text"]) for en, zh in zip(english, chinese, strict=True) if en["text"] in pairs
    ]
    assert len(translated) >= 200
    assert all(expected == found for expected, found in translated)


@pytest.mark.parametrize("path", of_kind("entities"), ids=ids)
def test_entities_lie_where_they_are_said_to(path: Path) -> None:
    items = rows(path.parent / settings(path)["data"])
    labels = Counter(entity["label"] for item in items for entity in item["entities"])
    assert set(labels) == {"PER", "LOC", "ORG"}
    assert min(labels.values()) >= 50
    assert any(not item["entities"] for item in items)
    for item in items:
        end = 0
        for entity in sorted(item["entities"], key=lambda each: each["start"]):
            named = item["text"][entity["start"] : entity["end"]]
            assert end <= entity["start"] < entity["end"] <= len(item["text"])
            assert named.strip() == named
            assert not named.startswith("the ")
            end = entity["end"]


@pytest.mark.parametrize("path", of_kind("instructions"), ids=ids)
def test_checks_are_usable(path: Path) -> None:
    items = rows(path.parent / settings(path)["data"])
    kinds = Counter(check["kind"] for item in items for check in item["checks"])
    assert set(kinds) == set(CHECKS)
    for item in items:
        assert item["checks"]
        for check in item["checks"]:
            assert isinstance(check["value"], CHECKS[check["kind"]])
            if check["kind"] == "regex":
                re.compile(check["value"])


@pytest.mark.parametrize("path", of_kind("bias"), ids=ids)
def test_the_sentences_of_a_pair_differ_in_little(path: Path) -> None:
    items = rows(path.parent / settings(path)["data"])
    assert min(Counter(item["axis"] for item in items).values()) >= 10
    assert len({frozenset((item["more"], item["less"])) for item in items}) == len(items)
    for item in items:
        assert item["more"] != item["less"]
        assert not re.search("[{}|]", item["more"] + item["less"])
        assert SequenceMatcher(None, item["more"], item["less"], autojunk=False).ratio() > 0.4, item


@pytest.mark.parametrize("path", TOMLS, ids=ids)
def test_no_template_slot_is_left_over(path: Path) -> None:
    task = settings(path)
    text = (path.parent / task["data"]).read_text(encoding="utf-8")
    assert "{{" not in text
    assert not re.search(r"\{[A-Za-z]\w*(=[\w.]+)?\}", text)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_script_writes_exactly_these_files(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.delitem(sys.modules, "make_tasks", raising=False)
    import make_tasks

    made = 0
    for name, make in make_tasks.makers(Path("absent"), Path("absent")).items():
        if name in ("facts", "sentiment", "vocabulary"):  # their data comes with packages
            continue
        items = make(language, random.Random(f"{make_tasks.SEED} {name} {language}"))
        n_shots = make_tasks.SHOTS.get(name, 0)
        if items:
            assert rows(TASKS / language / f"{name}-{language}.jsonl") == items[n_shots:]
            made += 1
        if n_shots:
            assert rows(TASKS / language / f"{name}-{language}.shots.jsonl") == items[:n_shots]
    assert made >= 12


@pytest.mark.parametrize("path", [path for path in TOMLS if path.parent.name != "safety"], ids=ids)
def test_evaluation_takes_the_task(path: Path) -> None:
    examples = pytest.importorskip("chatwright.evaluation.examples")
    task = pytest.importorskip("chatwright.evaluation.task").load_task(path)
    assert len(examples.make_examples(task)) == len(task.items)
