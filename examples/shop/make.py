"""Rows in the formats that `chatwright prepare` reads: conversations, preferences, labelled texts, labelled tokens."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from examples.shop.facts import Language, Wordings, colours, load, products, wordings

Row = dict[str, Any]
N_FOLLOW_UPS = 160  # conversations of two questions
N_ENTITIES = 600


def _turn(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _single(language: Language, of: str) -> Iterator[tuple[Wordings, dict[str, str], str]]:
    """(what is asked, the product, the question) for every wording and product; `of` is "ask" or "exam"."""
    for each in wordings(language):
        for product in products(language) if each.of_product else [{}]:
            for wording in getattr(each, of):
                yield each, product, wording.format(**product)


def conversations(language: Language, seed: int) -> list[Row]:
    """What to learn from, as OpenAI messages: each wording with each product, and some conversations of two questions."""
    rng = random.Random(f"conversations {language} {seed}")
    rows = [
        {"messages": _turn(question, each.answer.format(**product))}
        for each, product, question in _single(language, "ask")
    ]
    about_products = [each for each in wordings(language) if each.of_product]
    for _ in range(N_FOLLOW_UPS if language == "en" else N_FOLLOW_UPS // 4):
        product, (first, second) = rng.choice(products(language)), rng.sample(about_products, 2)
        opening = _turn(rng.choice(first.ask).format(**product), first.answer.format(**product))
        rows.append({"messages": opening + _turn(rng.choice(second.follow_up), second.answer.format(**product))})
    rng.shuffle(rows)
    return rows


def exam(language: Language, seed: int) -> list[Row]:
    """The same facts, asked for in wordings that `conversations` does not have."""
    rows = [
        {"messages": _turn(question, each.answer.format(**product))}
        for each, product, question in _single(language, "exam")
    ]
    random.Random(f"exam {language} {seed}").shuffle(rows)
    return rows


def preferences(language: Language, seed: int) -> list[Row]:
    """OpenAI's preference format: the true answer before the same sentence about another product."""
    rng = random.Random(f"preferences {language} {seed}")
    rows = []
    for each, product, question in _single(language, "ask"):
        if not each.of_product:
            continue
        right = each.answer.format(**product)
        wrong = each.answer.format(**rng.choice(products(language)) | {"name": product["name"]})
        if wrong != right:
            rows.append(
                {
                    "input": {"messages": [{"role": "user", "content": question}]},
                    "preferred_output": [{"role": "assistant", "content": right}],
                    "non_preferred_output": [{"role": "assistant", "content": wrong}],
                }
            )
    return rng.sample(rows, min(len(rows), 320))


def intents(language: Language, seed: int) -> list[Row]:
    """What a message is about: a text and its label. Products are drawn, so that a wording comes twice at most."""
    rng = random.Random(f"intents {language} {seed}")
    rows = []
    for each in wordings(language):
        for wording in (*each.ask, *each.exam):
            for product in rng.sample(products(language), 2) if each.of_product else [{}]:
                rows.append({"text": wording.format(**product), "label": each.group})
    rng.shuffle(rows)
    return rows


def entities(language: Language, seed: int) -> list[Row]:
    """Messages with the character offsets of products, colours, order numbers, cities and dates."""
    rng, table = random.Random(f"entities {language} {seed}"), load("entities.toml")[language]
    names = [product["name"] for product in products(language)]
    values: dict[str, Callable[[], str]] = {
        "PRODUCT": lambda: rng.choice(names),
        "COLOUR": lambda: rng.choice(colours(language)),
        "CITY": lambda: rng.choice(table["cities"]),
        "DATE": lambda: rng.choice(table["dates"]),
        "ORDER": lambda: f"{rng.choice(['TT-', '#', ''])}{rng.randrange(10_000, 1_000_000)}",
    }
    rows: dict[str, Row] = {}  # by text: every message once
    for _ in range(N_ENTITIES if language == "en" else N_ENTITIES // 2):
        text, spans = "", []
        for part in re.split(r"(\{[A-Z]+\})", rng.choice(table["messages"])):
            label = part.strip("{}")
            value = values[label]() if label in values else part
            if label in values:
                spans.append({"start": len(text), "end": len(text) + len(value), "label": label})
            text += value
        rows[text] = {"text": text, "spans": spans}
    return list(rows.values())
