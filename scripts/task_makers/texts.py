"""Tasks whose answer is text: passages with questions, reports with headlines, word problems, translation; and entities.

`group` is the number of the template that an item was made from: `evaluate` draws those of one together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from task_makers.templates import SOURCES, Filling, fill_line, read_lines, read_lists, read_rows, split_template

Item = dict[str, Any]
N_ITEMS = 240
LABELS = {
    "woman": "PER", "man": "PER", "person": "PER", "city": "LOC", "country": "LOC", "org": "ORG", "institute": "ORG", "club": "ORG",
}  # fmt: skip


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def reading(language: str, rng: random.Random) -> list[Item]:
    """Every passage is filled anew for each item, so that no two items share one; the questions take turns."""
    lists = read_lists(language)
    blocks = passages(f"reading.{language}.txt")
    items: dict[str, Item] = {}
    turn = 0
    while len(items) < N_ITEMS:
        for number, (passage, questions) in enumerate(blocks):
            question, answers, _hidden, _condition = split_template(questions[turn % len(questions)])
            filling = Filling(rng, lists)
            filling.bind(passage)
            text = capitalised(filling.fill(passage)[0])
            item = {
                "passage": text,
                "question": filling.fill(question)[0],
                "answer": [filling.fill(each)[0] for each in answers.split(" | ")],
                "group": number,
            }
            items.setdefault(text, item)
        turn += 1
    return drawn(rng, list(items.values()))


def passages(name: str) -> Iterator[tuple[str, list[str]]] | list[tuple[str, list[str]]]:
    blocks = []
    for block in (SOURCES / name).read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in block.strip().splitlines() if not line.startswith("#")]
        blocks.append((lines[0], [line.removeprefix("Q: ") for line in lines[1:]]))
    return blocks


def drawn(rng: random.Random, items: list[Item], n: int = N_ITEMS) -> list[Item]:
    return rng.sample(items, n)


def from_lines(name: str, language: str, rng: random.Random, n: int, text: str) -> list[Item]:
    """`n` different fillings, the lines of a template file taking turns."""
    lists = read_lists(language)
    lines = read_lines(name)
    items: dict[str, Item] = {}
    while len(items) < n:
        for number, line in enumerate(lines):
            question, answer = fill_line(line, rng, lists)
            items.setdefault(question, {text: capitalised(question), "answer": capitalised(answer), "group": number})
    return drawn(rng, list(items.values()), n)


def headlines(language: str, rng: random.Random) -> list[Item]:
    return from_lines(f"headlines.{language}.txt", language, rng, N_ITEMS, "article")


def arithmetic(language: str, rng: random.Random) -> list[Item]:
    return from_lines(f"arithmetic.{language}.txt", language, rng, N_ITEMS, "question")


def translation(into: str, rng: random.Random) -> list[Item]:
    """Sentence pairs, into English or into Chinese."""
    rows = read_rows("pairs.txt", 2)
    rng.shuffle(rows)
    return [{"text": zh, "answer": en} if into == "en" else {"text": en, "answer": zh} for en, zh in rows]


def everyday(language: str, _rng: random.Random) -> list[Item]:
    """One language's side of the sentence pairs, in the same order in both: the same content in English and in Chinese."""
    return [{"text": row[0] if language == "en" else row[1]} for row in read_rows("pairs.txt", 2)]


def entities(language: str, rng: random.Random) -> list[Item]:
    """Sentences with people, places and organisations, marked where they were filled in; some sentences have none."""
    lists = read_lists(language)
    lines = read_lines(f"entities.{language}.txt")
    items: dict[str, Item] = {}
    for _ in range(8):
        for number, line in enumerate(lines):
            filling = Filling(rng, lists)
            filling.bind(line)
            text, spans = filling.fill(line)
            marked = [span for span in spans if span.kind in LABELS]
            found = []
            for span in marked:
                start = span.start + (4 if text[span.start : span.end].startswith("the ") else 0)
                found.append({"start": start, "end": span.end, "label": LABELS[span.kind]})
            items.setdefault(text, {"text": capitalised(text), "entities": found, "group": number})
    return drawn(rng, list(items.values()))
