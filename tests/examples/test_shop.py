"""The made data is worth learning from: true, repeatable, and with an exam that training does not give away."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from examples.shop.__main__ import FILES, main
from examples.shop.facts import LANGUAGES, Language, products
from examples.shop.make import conversations, entities, exam, intents, preferences

NEAR = 0.6  # share of common word trigrams (en) or character trigrams (zh) from which two questions count as the same


def shingles(text: str, language: Language) -> set[str]:
    parts = re.findall(r"\w+", text.lower()) if language == "en" else list(text)
    return {" ".join(parts[i : i + 3]) for i in range(max(1, len(parts) - 2))}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_exam_question_is_nearly_a_training_question(language: Language) -> None:
    trained = [shingles(row["messages"][0]["content"], language) for row in conversations(language, 0)]
    for row in exam(language, 0):
        question = row["messages"][0]["content"]
        asked = shingles(question, language)
        assert max(len(asked & other) / len(asked | other) for other in trained) < NEAR, question


def test_the_english_exam_is_large_enough_to_tell_two_models_apart() -> None:
    assert len(exam("en", 0)) >= 200


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_answer_of_the_exam_can_be_learned_from_the_conversations(language: Language) -> None:
    taught = {message["content"] for row in conversations(language, 0) for message in row["messages"]}
    assert {row["messages"][1]["content"] for row in exam(language, 0)} <= taught


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_question_has_one_answer(language: Language) -> None:
    answers: dict[str, str] = {}
    for row in (*conversations(language, 0), *exam(language, 0)):
        question, answer = (message["content"] for message in row["messages"][:2])
        assert answers.setdefault(question, answer) == answer
        assert "{" not in question + answer


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_lie_on_what_they_name(language: Language) -> None:
    names = {product["name"] for product in products(language)}
    for row in entities(language, 0):
        for span in row["spans"]:
            found = row["text"][span["start"] : span["end"]]
            assert (found in names) == (span["label"] == "PRODUCT"), row
            assert found == found.strip() != ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_preferences_and_intents_are_fit_to_train_on(language: Language) -> None:
    assert all(row["preferred_output"] != row["non_preferred_output"] for row in preferences(language, 0))
    labels = [row["label"] for row in intents(language, 0)]
    assert min(labels.count(label) for label in set(labels)) >= 5


def test_the_seed_is_all_that_decides(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        main([str(tmp_path / name), "--seed", seed])
    texts = {
        name: {
            (language, file): (tmp_path / name / language / file).read_text()
            for language in LANGUAGES
            for file in FILES
        }
        for name in "abc"
    }
    assert texts["a"] == texts["b"]
    assert all(texts["a"][key] != texts["c"][key] for key in texts["a"])


def test_rows_can_be_limited(tmp_path: Path) -> None:
    main([str(tmp_path / "few"), "--rows", "40"])
    lines = (tmp_path / "few" / "en" / "conversations.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 40
