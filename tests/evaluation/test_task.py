"""A task file is checked whole before anything runs, and every mistake in it is a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chatwright.errors import EvaluationError, UsageError
from chatwright.evaluation.examples import make_examples
from chatwright.evaluation.library import find_tasks
from chatwright.evaluation.task import load_task, text_task
from tests.evaluation.example_tasks import capitals, names, orders, reviews, sums, texts, write_task

QUESTION: dict[str, Any] = {"kind": "choice", "prompt": "{{ q }}"}
ITEM = {"q": "1 + 1 =", "choices": ["2", "3"], "answer": "2"}


def wrong(path: Path) -> str:
    with pytest.raises(EvaluationError) as caught:
        make_examples(load_task(path))
    return str(caught.value)


def test_a_choice_is_the_prompt_and_its_continuations(tmp_path: Path) -> None:
    task = load_task(capitals(tmp_path))
    first = make_examples(task)[0]
    assert first.prompt.text == "The capital of France is"
    assert first.choices == (" Paris", " Tokyo", " Rome", " Madrid", " Cairo")
    assert (first.options[first.gold], task.title, task.kind) == ("Paris", "capitals", "choice")


def test_chinese_and_prompts_that_end_in_a_blank_have_no_delimiter(tmp_path: Path) -> None:
    assert make_examples(load_task(capitals(tmp_path, language="zh")))[0].choices[0] == "Paris"
    assert make_examples(load_task(capitals(tmp_path, prompt="{{ country }}:\n")))[0].choices[0] == "Paris"
    assert make_examples(load_task(capitals(tmp_path, delimiter="->")))[0].choices[0] == "->Paris"


def test_an_answer_may_be_a_place_or_lie_in_a_field_of_another_name(tmp_path: Path) -> None:
    item = {"q": "?", "options": ["a", "b"], "right": 1}
    path = write_task(tmp_path, "t", [item], **QUESTION, choices="{{ options }}", answer="{{ right }}")
    assert make_examples(load_task(path))[0].gold == 1


def test_shots_stand_before_the_question(tmp_path: Path) -> None:
    write_task(tmp_path, "shots", [{"question": "7 + 1", "answer": "8"}, {"question": "x", "answer": "y"}], kind="x")
    shown = make_examples(load_task(sums(tmp_path, shots=1, shots_from="shots.jsonl")))[0].prompt
    assert shown.text == "Q: 7 + 1\nA: 8\n\nQ: 1 + 1\nA:"
    chat = make_examples(load_task(sums(tmp_path, shots=1, shots_from="shots.jsonl", chat=True, system="Be brief.")))[0]
    assert [each["role"] for each in chat.prompt.messages] == ["system", "user", "assistant", "user"]


def test_references_may_be_several(tmp_path: Path) -> None:
    assert make_examples(load_task(sums(tmp_path)))[1].references == ("4", "It is 4")


def test_the_fingerprint_covers_the_settings_and_the_key_the_item(tmp_path: Path) -> None:
    one, other = load_task(sums(tmp_path / "a")), load_task(sums(tmp_path / "b", max_tokens=7))
    assert one.fingerprint != other.fingerprint
    assert [one.key(item) for item in one.items] == [other.key(item) for item in other.items]
    assert len({one.key(item) for item in one.items}) == 5


def test_a_sample_is_always_the_same_and_in_order(tmp_path: Path) -> None:
    task = load_task(sums(tmp_path))
    sample = task.sampled(3).items
    assert sample == task.sampled(3).items
    assert [item for item in task.items if item in sample] == sample
    assert len(sample) == 3
    assert task.sampled(99) is task


@pytest.mark.parametrize("field", ["name", "language", "kind", "data"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    said = wrong(write_task(tmp_path, "t", [ITEM], **{**QUESTION, field: None}))
    assert f"the field {field} is missing" in said
    assert "t.toml" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"promt": "x"}, "promt is no field of a task"),
        ({"kind": "multiple"}, "kind is 'multiple'; it must be one of perplexity, choice"),
        ({"language": "de"}, "language is 'de'"),
        ({"metrics": ["rouge"]}, "metrics is 'rouge'"),
        ({"chat": "yes"}, "chat has the wrong type: it must be true or false"),
        ({"labels": "a"}, "labels has the wrong type: it must be a list of texts"),
        ({"prompt": None}, "the field prompt is missing"),
        ({"shots": 2}, "shots_from does not say"),
        ({"data": "none.jsonl"}, "none.jsonl cannot be read"),
        ({"prompt": "{{ nothing }}"}, "does not fit item 1: 'nothing' is undefined"),
        ({"prompt": "{{ q"}, "does not fit item 1"),
        ({"prompt": "{{ q.__class__.mro() }}"}, "does not fit item 1"),
        ({"metrics": 5}, "metrics has the wrong type"),
        ({"stop": [5]}, "stop has the wrong type"),
        ({"extract": "("}, "extract is no regular expression"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
    ],
)
def test_a_wrong_setting_is_a_sentence(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    assert said in wrong(write_task(tmp_path, "t", [ITEM], **{**QUESTION, **settings}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": "4"}, "the answer of item 1, '4', is not among its choices: '2', '3'"),
        ({"answer": 2}, "the answer of item 1, 2, is not among its choices"),
        ({"choices": ["2"]}, "choices must be a list of at least two texts"),
        ({"choices": ["2", "2"]}, "a choice is there twice"),
        ({"q": ""}, "its prompt is empty"),
    ],
)
def test_a_wrong_item_is_a_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    assert said in wrong(write_task(tmp_path, "t", [ITEM | change], **QUESTION))


def test_a_missing_field_of_an_item_is_named(tmp_path: Path) -> None:
    said = wrong(write_task(tmp_path, "t", [ITEM, {"q": "?", "choices": ["a", "b"]}], **QUESTION))
    assert "item 2 has no field answer, which a task of kind choice needs" in said


def test_an_empty_data_set_is_a_sentence(tmp_path: Path) -> None:
    assert "is empty: there is nothing to evaluate" in wrong(write_task(tmp_path, "t", [], **QUESTION))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(EvaluationError, match="nothing to evaluate"):
        text_task(tmp_path / "empty.txt")


def test_lines_that_are_no_items_are_named(tmp_path: Path) -> None:
    path = write_task(tmp_path, "t", [ITEM], **QUESTION)
    (tmp_path / "t.jsonl").write_text('{"q": 1}\n\n{"q"\n')
    assert "line 3, is not JSON" in wrong(path)
    (tmp_path / "t.jsonl").write_text('{"q": \n')
    assert wrong(path).endswith("t.jsonl, line 1, is not JSON: Expecting value at character 7"), "one place, named once"
    (tmp_path / "t.jsonl").write_text('{"q": ' + "[" * 100_000 + "\n")
    assert "line 1, is not JSON" in wrong(path)
    (tmp_path / "t.jsonl").write_text("[1]\n")
    assert "line 1: an item is a JSON object" in wrong(path)
    path.write_text("name = ")
    assert "is not TOML" in wrong(path)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"kind": "rhymes"}, "the check 'rhymes' is unknown"),
        ({"kind": "max_words"}, "the check max_words needs a value"),
        ({"kind": "max_words", "value": "many"}, "must be a whole number"),
        ({"kind": "regex", "value": "("}, "the regular expression '(' is wrong"),
        ({"kind": "language", "value": "fr"}, "must be en or zh"),
    ],
)
def test_a_check_that_cannot_be_made_is_a_sentence(tmp_path: Path, check: dict[str, Any], said: str) -> None:
    items = [{"prompt": "Write.", "checks": [check]}]
    assert said in wrong(write_task(tmp_path, "t", items, kind="instructions"))


def test_an_entity_outside_the_text_is_a_sentence(tmp_path: Path) -> None:
    items = [{"text": "Bob", "entities": [{"start": 0, "end": 4, "label": "PER"}]}]
    assert "an entity lies outside the text" in wrong(write_task(tmp_path, "t", items, kind="entities"))


def test_every_kind_of_task_can_be_written(tmp_path: Path) -> None:
    for write in (capitals, sums, texts, reviews, orders, names):
        assert make_examples(load_task(write(tmp_path)))


def test_tasks_are_named_by_file_folder_or_text(tmp_path: Path) -> None:
    capitals(tmp_path / "one")
    (tmp_path / "book.txt").write_text("A line.\n" * 3000)
    found = find_tasks(f"{tmp_path / 'one'}, {sums(tmp_path / 'two')},{tmp_path / 'book.txt'}")
    assert [(task.name, task.kind) for task in found] == [
        ("capitals", "choice"),
        ("sums", "generate"),
        ("book", "perplexity"),
    ]
    assert "".join(str(item["text"]) for item in found[2].items) == "A line.\n" * 3000
    assert len(found[2].items) == 6


def test_a_folder_means_all_the_tasks_in_it(tmp_path: Path) -> None:
    sums(tmp_path / "mine")
    capitals(tmp_path / "mine")
    assert [task.name for task in find_tasks(str(tmp_path / "mine"))] == ["capitals", "sums"]


def test_a_task_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no task nonesuch"):
        find_tasks("nonesuch")
    with pytest.raises(UsageError, match="names nothing"):
        find_tasks(" , ")
    with pytest.raises(EvaluationError, match="holds no task file"):
        find_tasks(str(tmp_path))
    with pytest.raises(UsageError, match="Two tasks are called sums"):
        find_tasks(f"{sums(tmp_path / 'a')},{sums(tmp_path / 'b')}")


@pytest.mark.parametrize("entities", [5, None, "PER", {"start": 0}])
def test_entities_that_are_no_list_are_a_sentence(tmp_path: Path, entities: Any) -> None:
    path = write_task(tmp_path, "t", [{"text": "Bob", "entities": entities}], kind="entities")
    assert "item 1 cannot be used: its field entities must be a list" in wrong(path)


@pytest.mark.parametrize(
    ("write", "shot", "sentence"),
    [
        (names, {"text": "Bob"}, "shots.jsonl: item 1 has no field entities"),
        (
            names,
            {"text": "Bob", "entities": 5},
            "an example from shots.jsonl cannot be used: its field entities must be",
        ),
        (sums, {"question": "1"}, "shots.jsonl: item 1 has no field answer"),
        (capitals, {"country": "France", "answer": "Paris"}, "shots.jsonl: item 1 has no field choices"),
        (orders, {"prompt": "Say yes.", "checks": []}, "shots.jsonl: item 1 has no field answer"),
    ],
)
def test_examples_are_checked_as_items_are(tmp_path: Path, write: Any, shot: dict[str, Any], sentence: str) -> None:
    write_task(tmp_path, "shots", [shot], kind="x")
    assert sentence in wrong(write(tmp_path, shots=1, shots_from="shots.jsonl"))


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        ({"kind": ["x"]}, "the check ['x'] is unknown"),
        ({"kind": "regex", "value": ["a", 5]}, "the value of regex must be a text or a list of texts"),
        ({"kind": "regex", "value": {"a": 1}}, "the value of regex must be a text or a list of texts"),
        ({"kind": "not_regex", "value": ["a", "("]}, "the regular expression '(' is wrong"),
        ({"kind": "json", "value": [["a"]]}, "the value of json must be a text or a list of texts"),
        ({"kind": "contains", "value": []}, "the check contains needs a value"),
    ],
)
def test_a_check_of_the_wrong_type_is_a_sentence(tmp_path: Path, check: dict[str, Any], sentence: str) -> None:
    path = write_task(tmp_path, "t", [{"prompt": "Say yes.", "checks": [check]}], kind="instructions")
    assert sentence in wrong(path)
