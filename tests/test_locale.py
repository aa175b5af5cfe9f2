"""Every sentence that a user may see exists in Chinese, with the same parameters, and is given the parameters it names."""

from __future__ import annotations

import ast
import json
import pickle
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

import chatwright
from chatwright import errors
from chatwright.cli.app import app, help_texts
from chatwright.i18n import catalogue, describe_error, translate
from chatwright.text.formats import TEMPLATES
from chatwright.text.readers.members import WHAT_TO_DO
from chatwright.text.readers.names import UNSUPPORTED
from chatwright.text.reasons import REASONS, Detail, from_json, shown, to_json

SOURCE = Path(chatwright.__file__).parent
ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.ChatwrightError) and kind is not errors.ChatwrightError
}


@dataclass(frozen=True)
class Sentence:
    where: str
    template: str | None  # None: not one string literal
    given: frozenset[str] | None  # None: not known statically


def sentences() -> Iterator[Sentence]:
    """Every template in the source: `SomeError("…", …)` and `_("…", …)`."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name not in ERRORS and not (name == "_" and isinstance(node.func, ast.Name)):
                continue
            first = node.args[0]
            template = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
            spread = any(keyword.arg is None for keyword in node.keywords)
            given = None if spread else frozenset(keyword.arg or "" for keyword in node.keywords)
            if name == "_" and template is None:
                continue  # translates a value that is a sentence elsewhere
            yield Sentence(f"{file.relative_to(SOURCE)}:{node.lineno}", template, given)


def reasons_and_details() -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """(where, reason, detail) of each `Refused(…)`, `Skipped(…)` and `Dropped(…)` of the preparation, and each `Detail(…)`."""
    places = {"Refused": (0, 1), "Skipped": (2, 3), "Dropped": (3, 4), "Detail": (9, 0)}
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in places:
                reason, detail = (node.args[at] if at < len(node.args) else None for at in places[node.func.id])
                yield f"{file.relative_to(SOURCE)}:{node.lineno}", reason, detail


def literals(node: ast.expr | None) -> list[str]:
    """The texts that an expression may be: a literal, or one of two."""
    if isinstance(node, ast.IfExp):
        return literals(node.body) + literals(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def fields(template: str) -> set[str]:
    return {name for _text, name, _spec, _conversion in string.Formatter().parse(template) if name is not None}


def test_there_are_sentences_to_check() -> None:
    assert len(list(sentences())) > 100


def test_templates_are_single_literals() -> None:
    assert [sentence.where for sentence in sentences() if sentence.template is None] == []


def test_templates_are_given_the_parameters_they_name() -> None:
    wrong = {
        sentence.where: fields(sentence.template) - sentence.given
        for sentence in sentences()
        if sentence.template is not None
        and sentence.given is not None
        and (sentence.given or "Error" in sentence.where)
        and not fields(sentence.template) <= sentence.given
    }
    assert wrong == {}


def test_every_sentence_exists_in_chinese() -> None:
    chinese = catalogue("zh")
    missing = {s.template: s.where for s in sentences() if s.template is not None and s.template not in chinese}
    assert missing == {}


def test_every_reason_is_one_of_the_known_ones() -> None:
    used = {text: where for where, reason, _detail in reasons_and_details() for text in literals(reason)}
    assert len(used) > 20
    assert {text: where for text, where in used.items() if text not in REASONS} == {}


def test_every_reason_and_note_exists_in_chinese() -> None:
    assert REASONS - set(catalogue("zh")) == set()


def test_every_name_of_a_format_exists_in_chinese() -> None:
    assert set(TEMPLATES) - set(catalogue("zh")) == set()


def test_every_detail_exists_in_chinese() -> None:
    chinese = catalogue("zh")
    used = {text: where for where, _reason, detail in reasons_and_details() for text in literals(detail) if text}
    assert len(used) > 50
    used |= dict.fromkeys([*UNSUPPORTED.values(), *WHAT_TO_DO.values()], "a table of names.py or members.py")
    assert {text: where for text, where in used.items() if text not in chinese} == {}


def test_details_can_be_translated() -> None:
    assert [where for where, _reason, detail in reasons_and_details() if isinstance(detail, ast.JoinedStr)] == []


def test_a_detail_is_english_and_is_shown_in_the_language_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    detail = Detail("the field {name} is {type}", name="text", type=Detail("a number"))
    assert detail == "the field text is a number"
    for copy in (detail, pickle.loads(pickle.dumps(detail)), from_json(json.loads(json.dumps(to_json(detail))))):
        monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "en")
        assert shown(copy) == copy == detail
        monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
        assert shown(copy) == "字段 text 是数字"


def test_a_reason_within_a_sentence_is_said_in_the_same_language() -> None:
    inner = errors.InvalidRequestError("There is no file {path}.", path="x")
    full = OSError(28, "No space left on device", "a/b")
    for reason, chinese in (
        (Detail("it claims {n} {what}", n=9, what=Detail("tensors")), "其中声称有 9 个张量"),
        ("No space left on device", "磁盘空间已满"),
        (full, "磁盘空间已满: a/b"),
        (inner, "文件 x 不存在。"),
        ("what nobody translated", "what nobody translated"),
    ):
        error = errors.InvalidModelError("{path} cannot be read: {reason}", path="empty", reason=reason)
        assert str(error) == f"empty cannot be read: {reason}"
        assert describe_error(error, "zh").endswith(chinese)
        assert "empty" in describe_error(error, "zh"), "a name is no sentence, whatever it is"


def test_every_help_text_exists_in_chinese() -> None:
    texts = {getattr(owner, attribute) for owner, attribute in help_texts(typer.main.get_command(app))}
    assert len(texts) > 20
    assert texts - set(catalogue("zh")) == set()


def test_translations_have_the_parameters_of_their_originals() -> None:
    wrong = {english: chinese for english, chinese in catalogue("zh").items() if fields(english) != fields(chinese)}
    assert wrong == {}


def test_translations_are_chinese() -> None:
    untranslated = {
        english: chinese
        for english, chinese in catalogue("zh").items()
        if not any("\u3001" <= char <= "\u9fff" for char in chinese)  # a list's comma, 、, is one too
    }
    assert untranslated == {}


def test_an_untranslated_sentence_falls_back_to_english() -> None:
    assert translate("No such sentence: {x}.", "zh", x=1) == "No such sentence: 1."
