"""What the command line says, in the user's language (English or Chinese).

The English sentence is its own key. Chinese translations lie in `locale/zh/*.json`, one file a package, each a map from the
English template to the Chinese one. `tests/test_locale.py` fails on a sentence that has no translation.
"""

from __future__ import annotations

import json
import locale
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

from chatwright.errors import ChatwrightError, Detail

Language = Literal["en", "zh"]


def detect_language(environ: Mapping[str, str] = os.environ) -> Language:
    """The user's language: CHATWRIGHT_LANGUAGE, else the POSIX locale variables, else the system's locale."""
    for variable in ("CHATWRIGHT_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANGUAGE", "LANG"):
        if value := environ.get(variable):
            return "zh" if value.lower().startswith("zh") else "en"
    system = locale.getlocale()[0] or ""
    return "zh" if system.lower().startswith(("zh", "chinese")) else "en"


@cache
def catalogue(language: Language) -> Mapping[str, str]:
    """English template → template in `language`; empty for English."""
    if language == "en":
        return {}
    merged: dict[str, str] = {}
    for entry in sorted(files("chatwright").joinpath("locale", language).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".json"):
            merged |= json.loads(entry.read_text(encoding="utf-8"))
    return merged


def translate(template: str, language: Language, **params: object) -> str:
    """The sentence in `language`; English where no translation exists."""
    template = catalogue(language).get(template, template)
    return template.format(**params) if params else template


def _(template: str, **params: object) -> str:
    """`translate` into the language of this process's environment."""
    return translate(template, detect_language(), **params)


def describe_error(error: ChatwrightError, language: Language | None = None) -> str:
    """The error's sentence in the user's language, the reasons in it too."""
    language = language or detect_language()
    template = catalogue(language).get(error.template, error.template)
    return template.format(**{name: _in_words(name, value, language) for name, value in error.params.items()})


def shown(detail: str, language: Language | None = None) -> str:
    """A detail in the user's language; English where it has no translation."""
    language = language or detect_language()
    if not isinstance(detail, Detail):
        return translate(detail, language) if detail else ""
    values = {name: shown(v, language) if isinstance(v, Detail) else v for name, v in detail.values.items()}
    return translate(detail.template, language, **values)


# Parameters that say why: a text of the system's, or an error that another one is about.
_REASONS = ("reason", "error", "detail")


def _in_words(name: str, value: object, language: Language) -> object:
    if isinstance(value, ChatwrightError):
        return describe_error(value, language)
    if isinstance(value, OSError) and value.strerror:
        reason = translate(value.strerror, language)
        return f"{reason}: {value.filename}" if value.filename else reason
    if isinstance(value, Detail) or (isinstance(value, str) and name in _REASONS):
        return shown(value, language)
    return value


def format_size(n_bytes: float) -> str:
    """`98.4 MB`: decimal units, as file managers and package indexes show them."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
