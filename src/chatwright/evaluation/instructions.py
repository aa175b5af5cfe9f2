"""Instructions whose fulfilment a program can check, after IFEval (Zhou et al. 2023): strict, on the answer as it was given."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chatwright.evaluation.text_metrics import text_tokens
from chatwright.i18n import _

Check = Mapping[str, Any]

_SENTENCE_END = re.compile(r"[。！？]+|[.!?]+(?=[\"'”’)]?(?:\s|$))")
_FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)


def _text(answer: str) -> str:
    return answer.strip()


def _lines(answer: str) -> list[str]:
    return [line for line in answer.splitlines() if line.strip()]


def _paragraphs(answer: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", answer.strip()) if part.strip()]


def _has(answer: str, wanted: Any) -> bool:
    return str(wanted).casefold() in answer.casefold()


def _is_json(answer: str, keys: Any) -> bool:
    fenced = _FENCE.match(answer.strip())
    try:
        found = json.loads(fenced[1] if fenced else answer)
    except ValueError:
        return False
    return not isinstance(keys, list) or (isinstance(found, dict) and all(key in found for key in keys))


def _language(answer: str, wanted: Any) -> bool:
    """English or Chinese by what most letters are: short answers are too little for a classifier of languages."""
    chinese = sum("\u3400" <= c <= "\u9fff" for c in answer)
    letters = sum(c.isalpha() for c in answer) - chinese
    return chinese * 4 > letters if wanted == "zh" else letters > 0 and chinese * 10 < letters


def _items(answer: str) -> int:
    """Lines of a list: with a bullet or a number."""
    return sum(bool(re.match(r"\s*(?:[-*•]|\d+[.)、])\s*\S", line)) for line in answer.splitlines())


_CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "max_words": lambda answer, n: len(text_tokens(answer)) <= n,
    "min_words": lambda answer, n: len(text_tokens(answer)) >= n,
    "n_words": lambda answer, n: len(text_tokens(answer)) == n,
    "max_chars": lambda answer, n: len(_text(answer)) <= n,
    "min_chars": lambda answer, n: len(_text(answer)) >= n,
    "n_lines": lambda answer, n: len(_lines(answer)) == n,
    "max_lines": lambda answer, n: len(_lines(answer)) <= n,
    "min_lines": lambda answer, n: len(_lines(answer)) >= n,
    "n_paragraphs": lambda answer, n: len(_paragraphs(answer)) == n,
    "n_sentences": lambda answer, n: len(_SENTENCE_END.findall(answer)) == n,
    "max_sentences": lambda answer, n: len(_SENTENCE_END.findall(answer)) <= n,
    "n_items": lambda answer, n: _items(answer) == n,
    "contains": _has,
    "not_contains": lambda answer, text: not _has(answer, text),
    "starts_with": lambda answer, text: _text(answer).casefold().startswith(str(text).casefold()),
    "ends_with": lambda answer, text: _text(answer).casefold().endswith(str(text).casefold()),
    "equals": lambda answer, text: _text(answer) == str(text),
    "regex": lambda answer, pattern: re.search(pattern, answer) is not None,
    "not_regex": lambda answer, pattern: re.search(pattern, answer) is None,
    "language": _language,
    "json": _is_json,
    "uppercase": lambda answer, _value: answer == answer.upper() and answer != answer.lower(),
    "lowercase": lambda answer, _value: answer == answer.lower() and answer != answer.upper(),
    "no_commas": lambda answer, _value: not re.search("[,，]", answer),
}
_NUMBERS = frozenset(name for name in _CHECKS if name.startswith(("max_", "min_", "n_")))
_NO_VALUE = frozenset({"json", "uppercase", "lowercase", "no_commas"})
CHECK_KINDS = tuple(_CHECKS)


def check_specification(check: Any) -> str | None:
    """Why a check cannot be used; None when it can."""
    kind = check.get("kind") if isinstance(check, Mapping) else check
    if not isinstance(check, Mapping) or not isinstance(kind, str) or kind not in _CHECKS:
        return _("the check {kind!r} is unknown; there are {known}", kind=kind, known=", ".join(CHECK_KINDS))
    value = _value(check)
    if value is None or value == []:
        return None if kind in _NO_VALUE else _("the check {kind} needs a value", kind=kind)
    if kind in _NUMBERS and (not isinstance(value, int) or isinstance(value, bool)):
        return _("the value of {kind} must be a whole number", kind=kind)
    if kind == "language" and value not in ("en", "zh"):
        return _("the value of language must be en or zh")
    listed = value if isinstance(value, list) else [value]
    if (kind.endswith("regex") or (kind == "json" and isinstance(value, list))) and not _all_texts(listed):
        return _("the value of {kind} must be a text or a list of texts", kind=kind)
    if kind.endswith("regex"):
        for pattern in listed:
            try:
                re.compile(pattern)
            except re.error as error:
                return _("the regular expression {value!r} is wrong: {reason}", value=pattern, reason=error)
    return None


def _all_texts(values: Sequence[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


def fulfilled(answer: str, check: Check) -> bool:
    """Whether an answer does what was asked. An empty answer fulfils nothing, whatever it does not contain."""
    value = _value(check)
    values = value if isinstance(value, list) and check["kind"] != "json" else [value]
    return bool(answer.strip()) and all(_CHECKS[check["kind"]](answer, each) for each in values)


def _value(check: Check) -> Any:
    """Under `value`, or under any one other name that reads well, such as `n` or `text`."""
    if "value" in check:
        return check["value"]
    return next((value for name, value in check.items() if name != "kind"), None)
