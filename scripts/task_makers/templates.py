"""Fill templates from word lists: `{p=person}` draws and binds, `{p}` repeats, `{n=3..20}` draws a number, `{{= n * 2}}` computes,
`{g#1}` is the second part of `book/books`.

A template is one line, `text => target where x=2..9 if condition`; all after the text is optional. Two variables of one
template never take the same value, so that a question about one of them has one answer.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "task_sources"
SLOT = re.compile(r"\{\{=(?P<expression>[^{}]+)\}\}|\{(?P<name>\w+)(?:=(?P<kind>[\w.]+))?(?:#(?P<part>\d))?\}")
NUMBERS = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")  # from, to, step


def read_lines(name: str) -> list[str]:
    """The lines of a source file, without comments and empty lines."""
    lines = (SOURCES / name).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def read_rows(name: str, columns: int) -> list[list[str]]:
    """The rows of a ` | `-separated source file."""
    rows = [[cell.strip() for cell in line.split(" | ")] for line in read_lines(name)]
    wrong = [row for row in rows if len(row) != columns]
    if wrong:
        raise ValueError(f"{name}: {columns} columns expected, not {wrong[0]}")
    return rows


def read_lists(language: str) -> dict[str, list[str]]:
    """The word lists of a language: `name: one; two; three` a line."""
    lists: dict[str, list[str]] = {}
    for line in read_lines(f"lists.{language}.txt"):
        name, _, words = line.partition(":")
        lists[name] = [word.strip() for word in words.split(";")]
        if len(set(lists[name])) != len(lists[name]):
            raise ValueError(f"lists.{language}.txt: a word twice in {name}")
    return lists


@dataclass(frozen=True)
class Span:
    """Where a drawn word lies in the filled text, and from which list it was drawn."""

    start: int
    end: int
    kind: str


class Filling:
    """The values of one filled template; fills further texts (question, answer, bad sentence) with the same values."""

    def __init__(self, rng: random.Random, lists: dict[str, list[str]]) -> None:
        self.rng = rng
        self.lists = lists
        self.values: dict[str, str | int] = {}
        self.kinds: dict[str, str] = {}

    def draw(self, name: str, kind: str) -> None:
        if name in self.values:
            raise ValueError(f"{name} is bound twice")
        taken = set(self.values.values())
        numbers = NUMBERS.fullmatch(kind)
        choices: list[str] | list[int]
        if numbers:
            low, high, step = int(numbers[1]), int(numbers[2]), int(numbers[3] or 1)
            choices = [n for n in range(low, high + 1, step) if n not in taken]
        else:
            choices = [word for word in self.lists[kind] if word not in taken]
        self.values[name] = self.rng.choice(choices)
        self.kinds[name] = kind

    def compute(self, expression: str) -> int | bool:
        """Arithmetic over the drawn numbers; the templates are ours, so `eval` sees no foreign text."""
        value = eval(expression, {"__builtins__": {}}, dict(self.values))
        if isinstance(value, float):
            if value != round(value):
                raise ValueError(f"{expression} is {value} with {self.values}")
            value = round(value)
        return value

    def bind(self, template: str) -> None:
        """Draw every variable of a template: a computed slot may stand before the numbers that it needs."""
        for slot in SLOT.finditer(template):
            if slot["kind"]:
                self.draw(slot["name"], slot["kind"])

    def fill(self, template: str) -> tuple[str, list[Span]]:
        """The template with the bound values, and where they lie."""
        pieces: list[str] = []
        spans: list[Span] = []
        length = end = 0
        for slot in SLOT.finditer(template):
            literal = template[end : slot.start()]
            end = slot.end()
            if slot["expression"]:
                word = str(self.compute(slot["expression"]))
                kind = ""
            else:
                word = str(self.values[slot["name"]])
                if slot["part"]:
                    word = word.split("/")[int(slot["part"])]
                kind = self.kinds[slot["name"]]
            pieces += [literal, word]
            length += len(literal)
            spans.append(Span(length, length + len(word), kind))
            length += len(word)
        return "".join(pieces) + template[end:], spans


def split_template(line: str) -> tuple[str, str, str, str]:
    """(text, target, hidden, condition) of `text => target where x=1..3 if condition`."""
    text, _, rest = line.partition(" => ")
    rest, _, condition = rest.partition(" if ")
    target, _, hidden = rest.partition(" where ")
    return text.strip(), target.strip(), hidden.strip(), condition.strip()


def fill_line(line: str, rng: random.Random, lists: dict[str, list[str]]) -> tuple[str, str]:
    """One filling of a template line for which the condition holds: (text, target)."""
    text, target, hidden, condition = split_template(line)
    for _ in range(2000):
        filling = Filling(rng, lists)
        filling.bind(text)
        for variable in hidden.split():
            name, _, kind = variable.partition("=")
            filling.draw(name, kind)
        if not condition or filling.compute(condition):
            return filling.fill(text)[0], filling.fill(target)[0]
    raise ValueError(f"never true: {line}")
