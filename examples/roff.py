"""Manual pages in roff source → plain text: the man(7) macros, the common mdoc(7) ones, and the escapes that prose needs.

groff would render them too, but hyphenates, justifies with spaces and breaks Chinese lines, all of which a model would learn.
"""

from __future__ import annotations

import re
import shlex
import unicodedata

_SPECIAL = {
    "aq": "'", "dq": '"', "oq": "‘", "cq": "’", "lq": "“", "rq": "”", "em": "—", "en": "–", "hy": "-", "mi": "-", "bu": "•",
    "co": "©", "rg": "®", "tm": "™", "ha": "^", "ti": "~", "rs": "\\", "ga": "`", "at": "@", "sh": "#", "Do": "$", "or": "|",
    "ba": "|", "bv": "|", "br": "|", "lB": "[", "rB": "]", "lC": "{", "rC": "}", "la": "<", "ra": ">", "->": "→", "<-": "←",
    "<=": "≤", ">=": "≥", "!=": "≠", "+-": "±", "mu": "×", "mc": "µ", "de": "°", "if": "∞", "ss": "ß", "Eu": "€", "sc": "§",
    "Fo": "«", "Fc": "»", "12": "½", "14": "¼", "34": "¾", "..": "…", "ct": "¢", "dg": "†", "sl": "/", "pl": "+", "eq": "=",
}  # fmt: skip
_ESCAPE = re.compile(
    r"""\\(?: f(?:\[[^\]]*\]|\(..|.)              # fonts
        | [*nFgkMmVY](?:\[[^\]]*\]|\(..|.)       # strings, registers, colours
        | s(?:[+-]?\[[^\]]*\]|[+-]?\(..|[+-]?\d{1,2}|[+-]?'[^']*')
        | [ABDHLNRSXZbhlovwx]'[^']*'             # widths, motions, drawings
        | \((?P<two>..) | \[(?P<named>[^\]]*)\]
        | (?P<one>.) )""",
    re.VERBOSE,
)
_ONE = {
    "-": "-",
    "e": "\\",
    "\\": "\\",
    " ": " ",
    "~": " ",
    "0": " ",
    "'": "'",
    "`": "`",
    "t": " ",
    "E": "\\",
    ".": ".",
}
_ALTERNATING = {"BR", "BI", "IR", "IB", "RB", "RI"}
_JOINED = {"B", "I", "SM", "SB", "R", "UR", "MT", "UE", "ME"}
_PARAGRAPH = {"PP", "P", "LP", "sp", "HP", "Pp", "RS", "RE", "Bl", "El", "Bd", "Ed", "Lp"}
_VERBATIM = {"nf": True, "EX": True, "TS": True, "Bd": True, "fi": False, "EE": False, "TE": False, "Ed": False}
# mdoc macros that may stand among the arguments of another.
_CALLABLE = """
Ad An Ap Ar Aq Bo Bc Bq Brq Bx Cd Cm D1 Dl Do Dc Dq Dv Em Er Ev Fa Fd Fn Fo Fc Ft Fx Ic In Li Lk Mt Nd Nm No Ns
Nx Oo Oc Op Ox Pa Pf Po Pc Pq Ql Qo Qc Qq So Sc Sq Sx Sy Tn Ux Va Vt Xo Xc Xr
"""
_MDOC = frozenset(_CALLABLE.split())


def roff_to_text(source: str) -> str:
    """The text of a manual page, a paragraph a line. An alias of another page (`.so man1/other.1`) is the empty string."""
    page = _Page()
    lines = iter(re.sub(r"(?m)\\\n", "", source).splitlines())
    for line in lines:
        if re.match(r"[.']\s*so\s", line):
            return ""
        if re.match(r"[.']\s*(?:de1?|am|ig)\b", line):  # a macro's definition, or text to ignore
            for skipped in lines:
                if skipped.startswith(".."):
                    break
            continue
        page.feed(line)
    return page.text()


class _Page:
    def __init__(self) -> None:
        self.paragraphs: list[str] = []
        self.verbatim = False
        self.heading = False  # the next line is one
        self.tag = False  # the next line names an item of a list
        self.name = ""  # what mdoc's .Nm means

    def feed(self, line: str) -> None:
        if re.match(r"[.'](?![.'])", line):
            self._request(line[1:].lstrip())
        elif not line.strip():
            self._break()
        else:
            self._say(_unescape(line))

    def text(self) -> str:
        paragraphs = (
            paragraph.strip("\n") if "\n" in paragraph else paragraph.strip() for paragraph in self.paragraphs
        )
        return "\n".join(paragraph for paragraph in paragraphs if paragraph.strip()) + "\n"

    def _request(self, line: str) -> None:
        macro, _, rest = line.partition(" ")
        if macro.startswith(("\\", '"')) or macro in {"if", "ie", "el", "ds", "nr"}:
            return
        if macro in _VERBATIM:
            self._break()
            self.verbatim = _VERBATIM[macro] and not (macro == "Bd" and "-filled" in rest)
            return
        words = [_unescape(word) for word in _arguments(rest)]
        if macro in {"SH", "SS", "Sh", "Ss"}:
            self._break()
            self.verbatim = False
            self.heading = not words
            self._say(" ".join(words))
            if words:
                self._break()
        elif macro in {"TH", "Dt"}:
            self._say(f"{words[0]}({words[1]})" if len(words) > 1 else " ".join(words))
            self._break()
        elif macro in {"TP", "TQ"}:
            self._break()
            self.tag = True
        elif macro in {"IP", "It"}:
            self._break()
            self._say(_mdoc(words, self.name) if macro == "It" else " ".join(words[:1]))
            if words and words[0] not in {"•", "*", "-", "o", "·", "—"}:
                self._break()
        elif macro in _PARAGRAPH or macro == "br":
            self._break()
        elif macro in _ALTERNATING:
            self._say("".join(words))
        elif macro in _JOINED:
            self._say(" ".join(words))
        elif macro == "Nm":
            self.name = words[0] if words else self.name
            self._say(_mdoc(words or [self.name], self.name))
        elif macro in _MDOC or macro == "Fl":
            self._say(_mdoc([macro, *words], self.name))

    def _say(self, text: str) -> None:
        if not text.strip():
            return
        if not self.paragraphs:
            self.paragraphs.append("")
        before = self.paragraphs[-1]
        if self.verbatim:
            self.paragraphs[-1] = f"{before}\n{text.rstrip()}" if before else text.rstrip()
        else:
            text = re.sub(r"\s+", " ", text).strip()
            self.paragraphs[-1] = before + (" " if before and not _wide(before[-1], text[0]) else "") + text
        if self.heading or self.tag:
            self.heading = self.tag = False
            self._break()

    def _break(self) -> None:
        if self.paragraphs and self.paragraphs[-1]:
            self.paragraphs.append("")


def _wide(left: str, right: str) -> bool:
    """Whether a line broken between the two is joined without a space: between Chinese characters."""
    return all(unicodedata.east_asian_width(char) in "WF" for char in (left, right))


def _arguments(rest: str) -> list[str]:
    rest = re.sub(r'\\".*', "", rest)
    try:
        lexer = shlex.shlex(rest, posix=True)
        lexer.whitespace, lexer.whitespace_split, lexer.commenters, lexer.quotes, lexer.escape = (
            " \t",
            True,
            "",
            '"',
            "",
        )
        return list(lexer)
    except ValueError:  # a quote that is never closed ends with the line
        return rest.replace('"', "").split()


def _mdoc(words: list[str], name: str) -> str:
    """mdoc lets macros be called among the arguments: `.Op Fl v Ar file` is `[-v file]`."""
    text, close, dash, glue = "", "", False, True
    if "Xr" in words[:-2]:  # a reference to another page: ssh(1)
        at = words.index("Xr")
        words = [*words[:at], f"{words[at + 1]}({words[at + 2]})", *words[at + 3 :]]
    for word in words:
        if word == "Fl":
            dash = True
        elif word == "Op":
            text, close, glue = text + ("" if glue else " ") + "[", close + "]", True
        elif word == "Nm":
            text, glue = text + ("" if glue else " ") + name, False
        elif word == "Ns":
            glue = True
        elif word not in _MDOC:
            tight = glue or (len(word) == 1 and word in ".,:;)]?!")
            text, dash, glue = text + ("" if tight else " ") + ("-" if dash else "") + word, False, word in {"(", "["}
    return text + close


def _unescape(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        named = match["two"] or match["named"]
        if named:
            unicode_name = re.fullmatch(r"u([0-9A-F]{4,6})", named)
            return chr(int(unicode_name[1], 16)) if unicode_name else _SPECIAL.get(named, "")
        return _ONE.get(match["one"] or "", "")

    return _ESCAPE.sub(replace, re.sub(r'\\["#].*', "", text))
