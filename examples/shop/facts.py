"""The table of facts, and what follows from it in each language."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
FREE_DELIVERY_FROM = 60
YUAN_PER_DOLLAR = 7
_FILES = {"en": "english.toml", "zh": "chinese.toml"}


@dataclass(frozen=True)
class Wordings:
    """How one thing is asked for, and the answer; `{name}` and the facts are still to be filled in."""

    topic: str
    group: str  # what a help desk would file it under
    answer: str
    ask: tuple[str, ...]
    exam: tuple[str, ...]
    follow_up: tuple[str, ...] = ()  # how it is asked of a product already spoken of
    of_product: bool = False


@cache
def load(name: str) -> dict[str, Any]:
    """One of the tables beside this file."""
    return tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))


def wordings(language: Language) -> list[Wordings]:
    """Everything that customers ask in this language: about a product first, then about the shop."""
    table = load(_FILES[language])
    return [
        Wordings(
            topic=topic,
            group=each.get("group", topic),
            answer=each["answer"],
            ask=tuple(each["ask"]),
            exam=tuple(each["exam"]),
            follow_up=tuple(each.get("follow_up", ())),
            of_product=of_product,
        )
        for kind, of_product in (("attribute", True), ("policy", False))
        for topic, each in table[kind].items()
    ]


def products(language: Language) -> list[dict[str, str]]:
    """The products with every fact as it stands in a sentence of this language."""
    table = load("facts.toml")
    return [_in_words(product, table["colours"], language) for product in table["product"]]


def colours(language: Language) -> list[str]:
    """The names of all colours."""
    table: dict[str, str] = load("facts.toml")["colours"]
    return list(table if language == "en" else table.values())


def _in_words(product: dict[str, Any], names: dict[str, str], language: Language) -> dict[str, str]:
    grams, years, free = product["weight_g"], product["warranty_years"], product["price"] >= FREE_DELIVERY_FROM
    words = {key: product[key][language] for key in ("name", "material", "origin", "box", "care")}
    if language == "en":
        *first, last = product["colours"]
        return words | {
            "price": str(product["price"]),
            "delivery": "Delivery is free." if free else "Delivery adds $5.",
            "weight": f"{grams / 1000:g} kg" if grams >= 1000 else f"{grams} g",
            "warranty": f"{years} years",
            "colours": f"{', '.join(first)} and {last}" if first else f"{last} only",
        }
    return words | {
        "price": str(product["price"] * YUAN_PER_DOLLAR),
        "delivery": "免运费。" if free else "运费另加 35 元。",
        "weight": f"{grams / 1000:g} 千克" if grams >= 1000 else f"{grams} 克",
        "warranty": str(years),
        "colours": "、".join(names[colour] for colour in product["colours"]),
    }
