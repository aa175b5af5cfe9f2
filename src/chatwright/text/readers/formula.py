"""Word's formulas (Office Math, ECMA-376 part 1, 22.1) in one line of characters: (a+b)/2, x^2, ∑_(i=1)^n, √(b)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"


def in_a_line(element: Any, texts: frozenset[str], without: frozenset[str]) -> str:
    """The formula in `element`. `texts`: tags that hold text beside a formula's own; `without`: tags to leave out."""

    def line(element: Any) -> str:
        tag = element.tag
        if not isinstance(tag, str) or tag in without:
            return ""
        if tag == f"{MATH}t" or tag in texts:
            return element.text or ""
        write = _FORMS.get(tag.removeprefix(MATH)) if tag.startswith(MATH) else None
        if write is None:
            return "".join(map(line, element))
        # Each part is written once, when it is asked for: twice a level would be 2^n times for forms inside forms.
        return write(element, lambda name: [line(each) for each in element.findall(f"{MATH}{name}")])

    return line(element)


Parts = Callable[[str], list[str]]


def _group(texts: list[str]) -> str:
    text = "".join(texts)
    return text if len(text) <= 1 or text.isalnum() else f"({text})"


def _scripts(parts: Parts) -> str:
    below, above = parts("sub") or parts("lim"), parts("sup")
    return (f"_{_group(below)}" if any(below) else "") + (f"^{_group(above)}" if any(above) else "")


def _property(element: Any, name: str, default: str) -> str:
    """The character that a form has as a property; "" where it is given and empty."""
    found = next(element.iterfind(f"{MATH}{element.tag.removeprefix(MATH)}Pr/{MATH}{name}"), None)
    return default if found is None else found.get(f"{MATH}val", default)


def _base(_element: Any, parts: Parts) -> str:
    return "".join(parts("e")) + _scripts(parts)


def _sum(element: Any, parts: Parts) -> str:
    return f"{_property(element, 'chr', '∫')}{_scripts(parts)} {''.join(parts('e'))}"


def _root(_element: Any, parts: Parts) -> str:
    degree = "".join(parts("deg"))
    return f"√{f'[{degree}]' if degree else ''}({''.join(parts('e'))})"


def _delimited(element: Any, parts: Parts) -> str:
    inner = _property(element, "sepChr", "|").join(parts("e"))
    return _property(element, "begChr", "(") + inner + _property(element, "endChr", ")")


_FORMS: dict[str, Callable[[Any, Parts], str]] = {
    "f": lambda _element, parts: f"{_group(parts('num'))}/{_group(parts('den'))}",
    "sSup": _base,
    "sSub": _base,
    "sSubSup": _base,
    "limLow": _base,
    "limUpp": lambda _element, parts: f"{''.join(parts('e'))}^{_group(parts('lim'))}",
    "sPre": lambda _element, parts: _scripts(parts) + "".join(parts("e")),
    "nary": _sum,
    "rad": _root,
    "func": lambda _element, parts: f"{''.join(parts('fName'))} {''.join(parts('e'))}",
    "acc": lambda element, parts: "".join(parts("e")) + _property(element, "chr", "\u0302"),
    "d": _delimited,
    "m": lambda _element, parts: "; ".join(parts("mr")),
    "mr": lambda _element, parts: ", ".join(parts("e")),
    "eqArr": lambda _element, parts: "; ".join(parts("e")),
}
