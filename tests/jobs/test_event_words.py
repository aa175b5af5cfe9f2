"""The page knows every sentence that the server says about a job, so that it can say it in the page's language."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORDS = ROOT / "web/src/jobs/eventWords.ts"
SOURCES = [*(ROOT / "src/chatwright/jobs").rglob("*.py"), *(ROOT / "src/chatwright/store/jobs").rglob("*.py")]


def patterns() -> list[re.Pattern[str]]:
    found = re.findall(r"^  \[/\^(.+)\$/s?, \"\w+\"\],$", WORDS.read_text(), re.MULTILINE)
    return [re.compile(pattern.replace("(?<", "(?P<"), re.DOTALL) for pattern in found]


def texts(node: ast.AST | None, function: ast.AST) -> list[str]:
    """What an expression may say; a number stands for what the source does not tell."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(way) for way in itertools.product(*(texts(part, function) for part in parts))]
        case ast.FormattedValue(value=value):
            return texts(value, function)
        case ast.IfExp(body=body, orelse=orelse):
            return [*texts(body, function), *texts(orelse, function)]
        case ast.Name(id=name):
            assigned = (each for each in ast.walk(function) if isinstance(each, ast.Assign))
            values = [
                each.value for each in assigned if isinstance(each.targets[0], ast.Name) and each.targets[0].id == name
            ]
            return [text for value in values for text in texts(value, function)] or ["1"]
        case _:
            return ["1"]


def sentences() -> Iterator[str]:
    for path in SOURCES:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in ast.walk(function):
                if not (
                    isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Name)
                    and call.func.id == "Event"
                    and call.args
                ):
                    continue
                if not any(keyword.arg == "type" for keyword in call.keywords):  # figures are the curve's
                    yield from texts(call.args[0], function)


def test_the_page_knows_every_sentence() -> None:
    known, said = patterns(), set(sentences())
    assert len(said) >= len(known) >= 20
    assert [each for each in sorted(said) if not any(pattern.fullmatch(each) for pattern in known)] == []
    assert [each.pattern for each in known if not any(each.fullmatch(sentence) for sentence in said)] == []
