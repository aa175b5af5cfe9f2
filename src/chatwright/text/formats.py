"""The names of the formats that were found, as the user reads them.

Like reasons they are English in manifest.json and sources.jsonl, which are the same for all users. They stand there as texts, so
that the template is found again from the text. Names that a format has everywhere (`openai-messages`, `alpaca`, …) stay.
"""

from __future__ import annotations

import re
import string

from chatwright.i18n import _

# What readers call a format. The first that fits a text counts; `n` and `number` stand for digits.
TEMPLATES = (
    "plain text",
    "strings",
    "list of turns",
    "tokens and tags",
    "html, main text",
    "html, all text",
    "pdf, 1 page",
    "pdf, {n} pages",
    "column {number}",
    "column {name}",
    "columns {first} and {second}",
)


def shown_format(name: str) -> str:
    """A format's name in the user's language; as it is where it has no other."""
    for template, pattern in _PATTERNS:
        if (match := pattern.fullmatch(name)) is not None:
            return _(template, **match.groupdict())
    return name


def _pattern(template: str) -> re.Pattern[str]:
    parts = []
    for text, field, _spec, _conversion in string.Formatter().parse(template):
        parts.append(re.escape(text))
        if field is not None:
            parts.append(f"(?P<{field}>{r'[0-9]+' if field in ('n', 'number') else '.+'})")
    return re.compile("".join(parts), re.DOTALL)


_PATTERNS = [(template, _pattern(template)) for template in TEMPLATES]
