"""Tasks: what a model is asked and what is counted, as a TOML file beside a JSONL file that a person writes in five minutes.

docs/en/evaluation.md describes every key. A task is checked whole before a model is loaded: each mistake is a sentence that
names the file, the line and what to write instead.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import tomllib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from chatwright.errors import Detail, EvaluationError
from chatwright.i18n import _

TaskKind = Literal[
    "perplexity", "choice", "generate", "classify", "entities", "instructions", "bias", "toxicity", "memorisation"
]
# What no score of ability comes of: it goes into the card's section on bias and memorisation.
SAFETY: frozenset[TaskKind] = frozenset({"bias", "toxicity", "memorisation"})
KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
LANGUAGES = ("en", "zh")
TEXT_METRICS = ("exact_match", "contains", "f1", "bleu", "chrf", "rouge_1", "rouge_2", "rouge_l")
NORMALISATIONS = ("lower", "punctuation", "articles")
# Characters of the pieces that a plain text file is cut into, so that there is something to draw an interval from.
PIECE_CHARACTERS = 4000
Fields = Mapping[str, Any]

_FIELD_TYPES: dict[str, type] = {
    "name": str, "title": str, "language": str, "kind": str, "source": str, "data": str, "prompt": str, "system": str,
    "chat": bool, "shots": int, "shots_from": str, "choices": str, "answer": str, "target": str, "delimiter": str,
    "labels": list, "metrics": list, "max_tokens": int, "stop": list, "normalise": list, "extract": str, "group": str,
}  # fmt: skip
_REQUIRED = ("name", "language", "kind", "data")
# What every item must have, unless the TOML says where else it lies.
_ITEM_FIELDS: Mapping[TaskKind, tuple[str, ...]] = {
    "perplexity": (), "choice": ("choices", "answer"), "generate": ("answer",), "classify": ("answer",),
    "entities": ("text", "entities"), "instructions": ("checks",), "bias": ("more", "less", "axis"), "toxicity": ("prompt",),
    "memorisation": (),
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A checked task with its items. `settings`: the TOML as it stands, which is what `fingerprint` covers beside the
    examples. `drawn_of`: how many items there are, where these are a sample.
    """

    name: str
    language: str
    kind: TaskKind
    path: Path
    items: Sequence[Fields]
    title: str = ""
    source: str = ""
    prompt: str = ""
    system: str = ""
    chat: bool = False
    shots: Sequence[Fields] = ()
    choices: str = "{{ choices }}"
    answer: str = "{{ answer }}"
    delimiter: str | None = None
    labels: Sequence[str] = ()
    metrics: Sequence[str] = ()
    max_tokens: int = 64
    stop: Sequence[str] = ()
    normalise: Sequence[str] = ()
    extract: str = ""
    group: str = "group"
    settings: Fields = field(default_factory=dict)
    drawn_of: int | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with everything that can change an answer, except the item itself."""
        asked = {name: value for name, value in self.settings.items() if name != "group"}
        return digest({"settings": asked, "shots": list(self.shots)})

    @property
    def groups(self) -> list[Hashable] | None:
        """Of each item what it belongs to, a document or a template, by which items are drawn together: the field that `group`
        names, where it is there and not empty; else the item stands alone. None where all do.
        """
        if not any(self._belongs_to(item) for item in self.items):
            return None
        return [self._belongs_to(item) or number for number, item in enumerate(self.items)]

    def _belongs_to(self, item: Fields) -> str:
        """Of any type: `3` and `"3"` are one group."""
        value = item.get(self.group)
        return "" if value is None or value == "" else f"{value}"

    def key(self, item: Fields) -> str:
        """Names an item by what is in it: results of unchanged items outlive a change of their neighbours."""
        return digest(item)

    def sampled(self, limit: int | None) -> Task:
        """The same task with `limit` items drawn at random, always the same ones, in their order."""
        if limit is None or limit >= len(self.items):
            return self
        kept = sorted(random.Random(0).sample(range(len(self.items)), limit))  # noqa: S311 — a sample, no secret
        return replace(self, items=[self.items[i] for i in kept], drawn_of=self.drawn_of or len(self.items))


def digest(data: Any) -> str:
    """A short fingerprint of JSON-like data."""
    text = json.dumps(data, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def load_task(path: Path) -> Task:
    """The task in a TOML file. Raises EvaluationError."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvaluationError("{path} cannot be read: {reason}", path=path, reason=error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EvaluationError("{path} is not TOML: {reason}", path=path, reason=error) from error
    _check_settings(path, raw)
    kind: TaskKind = raw["kind"]
    items = read_items(path.parent / raw["data"])
    shots = _shots(path, raw)
    task = Task(
        name=raw["name"],
        language=raw["language"],
        kind=kind,
        path=path,
        items=items,
        title=raw.get("title", raw["name"]),
        source=raw.get("source", ""),
        prompt=raw.get("prompt", ""),
        system=raw.get("system", ""),
        chat=raw.get("chat", False),
        shots=shots,
        choices=raw.get("choices", "{{ choices }}"),
        answer=raw.get("answer", raw.get("target", "{{ answer }}")),
        delimiter=raw.get("delimiter"),
        labels=tuple(raw.get("labels", ())),
        metrics=tuple(raw.get("metrics", ("exact_match",) if kind == "generate" else ())),
        max_tokens=raw.get("max_tokens", 64),
        stop=tuple(raw.get("stop", ("\n",) if kind in ("generate", "entities") and not raw.get("chat") else ())),
        normalise=tuple(raw.get("normalise", ())),
        extract=raw.get("extract", ""),
        group=raw.get("group", "group"),
        settings=raw,
    )
    _check_items(task, raw)
    return task


def text_task(path: Path) -> Task:
    """Bits per byte of any text: the rows of a JSONL file with a field `text`, or a plain file in pieces. Raises
    EvaluationError.
    """
    if path.suffix == ".jsonl":
        items: Sequence[Fields] = read_items(path)
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise EvaluationError("{path} cannot be read: {reason}", path=path, reason=error.strerror) from error
        except UnicodeDecodeError as error:
            raise EvaluationError(
                "{path} is not UTF-8 text (byte {position}).", path=path, position=error.start
            ) from error
        items = [{"text": piece} for piece in _pieces(text)]
        if not items:
            raise EvaluationError("{path} is empty: there is nothing to evaluate.", path=path)
    chinese = sum(any("\u4e00" <= c <= "\u9fff" for c in str(item.get("text"))[:200]) for item in items) * 2 > len(
        items
    )
    settings = {"name": path.stem, "kind": "perplexity", "data": path.name, "language": "zh" if chinese else "en"}
    task = Task(
        path.stem, settings["language"], "perplexity", path, items, title=path.name, source=path.name, settings=settings
    )
    _check_items(task, settings)
    return task


def read_items(path: Path) -> list[Fields]:
    """The rows of a JSONL file, each an object. Raises EvaluationError, also where there is none."""
    rows: list[Fields] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.rstrip("\r\n"))
                except (ValueError, RecursionError) as error:
                    raise EvaluationError(
                        "{path}, line {line}, is not JSON: {reason}", path=path, line=number, reason=_reason(error)
                    ) from error
                if not isinstance(row, dict):
                    raise EvaluationError(
                        "{path}, line {line}: an item is a JSON object with fields, such as {example}.",
                        path=path,
                        line=number,
                        example='{"question": "…", "answer": "…"}',
                    )
                rows.append(row)
    except OSError as error:
        raise EvaluationError("{path} cannot be read: {reason}", path=path, reason=error.strerror) from error
    except UnicodeDecodeError as error:
        raise EvaluationError("{path} is not UTF-8 text (byte {position}).", path=path, position=error.start) from error
    if not rows:
        raise EvaluationError("{path} is empty: there is nothing to evaluate.", path=path)
    return rows


def _reason(error: Exception) -> str:
    """Of a line that is read alone: where in it, and not the parser's own "line 1"."""
    if isinstance(error, json.JSONDecodeError):
        return Detail("{what} at character {n}", what=error.msg, n=error.colno)
    return str(error)


def task_files(folder: Path) -> list[Path]:
    """The tasks in a folder, by name. Raises EvaluationError where there is none."""
    found = sorted(folder.glob("*.toml"))
    if not found:
        raise EvaluationError("The folder {path} holds no task file (*.toml).", path=folder)
    return found


def _check_settings(path: Path, raw: Fields) -> None:
    for name in _REQUIRED:
        if name not in raw:
            raise EvaluationError(
                "{path}: the field {field} is missing. A task needs name, language, kind and data.",
                path=path,
                field=name,
            )
    for name, value in raw.items():
        if name not in _FIELD_TYPES:
            raise EvaluationError(
                "{path}: {field} is no field of a task; the fields are {known}.",
                path=path,
                field=name,
                known=", ".join(_FIELD_TYPES),
            )
        wanted = _FIELD_TYPES[name]
        mixed = isinstance(value, list) and not all(isinstance(each, str) for each in value)
        if not isinstance(value, wanted) or mixed or (wanted is int and isinstance(value, bool)):
            raise EvaluationError(
                "{path}: the field {field} has the wrong type: it must be {type}.",
                path=path,
                field=name,
                type=_type_name(wanted),
            )
    _one_of(path, "kind", [raw["kind"]], KINDS)
    _one_of(path, "language", [raw["language"]], LANGUAGES)
    _one_of(path, "metrics", raw.get("metrics", ()), TEXT_METRICS)
    _one_of(path, "normalise", raw.get("normalise", ()), NORMALISATIONS)
    # An empty one is meant where whole sentences are compared: kind choice.
    if (raw["kind"] == "choice" and "prompt" not in raw) or (raw["kind"] == "generate" and not raw.get("prompt")):
        raise EvaluationError("{path}: the field prompt is missing: it says how an item becomes a question.", path=path)
    try:
        re.compile(raw.get("extract", ""))
    except re.error as error:
        raise EvaluationError("{path}: extract is no regular expression: {reason}", path=path, reason=error) from error
    if not 1 <= raw.get("max_tokens", 1) <= 1 << 20:
        raise EvaluationError("{path}: max_tokens must be at least 1.", path=path)


def _type_name(kind: type) -> str:
    return {str: _("a text"), bool: _("true or false"), int: _("a whole number"), list: _("a list of texts")}[kind]


def _one_of(path: Path, name: str, values: Sequence[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise EvaluationError(
                "{path}: {field} is {value!r}; it must be one of {known}.",
                path=path,
                field=name,
                value=value,
                known=", ".join(known),
            )


def _shots(path: Path, raw: Fields) -> Sequence[Fields]:
    n = raw.get("shots", 0)
    if not n:
        return ()
    if "shots_from" not in raw:
        raise EvaluationError(
            "{path}: shots is {n}, but shots_from does not say in which JSONL file the examples lie.", path=path, n=n
        )
    rows = read_items(path.parent / raw["shots_from"])
    if not 0 < n <= len(rows):
        raise EvaluationError(
            "{path}: shots is {n}, but {file} has {n_rows} examples.",
            path=path,
            n=n,
            file=raw["shots_from"],
            n_rows=len(rows),
        )
    return rows[:n]


def _check_items(task: Task, raw: Fields) -> None:
    wanted = _wanted_fields(task, raw, _ITEM_FIELDS[task.kind])
    _check_fields(task.path.parent / str(raw["data"]), task.items, wanted, task.kind)
    if task.shots:
        # What is shown of an instruction is an answer, not how one is checked.
        fields = ("answer",) if task.kind == "instructions" else _ITEM_FIELDS[task.kind]
        shown = _wanted_fields(task, raw, fields)
        _check_fields(task.path.parent / str(raw["shots_from"]), task.shots, shown, task.kind)


def _wanted_fields(task: Task, raw: Fields, fields: Sequence[str]) -> list[str]:
    wanted = [name for name in fields if not (name in ("choices", "answer") and name in raw)]
    if "target" in raw and "answer" in wanted:
        wanted.remove("answer")
    if task.labels and "choices" in wanted:
        wanted.remove("choices")
    if task.kind == "classify" and not task.labels and "choices" not in raw:
        wanted.append("choices")  # else there is nothing to choose from
    if task.kind == "perplexity" and not task.prompt:
        wanted.append("text")
    if task.kind == "instructions" and not task.prompt:
        wanted.append("prompt")
    return wanted


def _check_fields(data: Path, items: Sequence[Fields], wanted: Sequence[str], kind: TaskKind) -> None:
    for number, item in enumerate(items, 1):
        for name in wanted:
            if name not in item:
                raise EvaluationError(
                    "{path}: item {number} has no field {field}, which a task of kind {kind} needs.",
                    path=data,
                    number=number,
                    field=name,
                    kind=kind,
                )


def _pieces(text: str) -> list[str]:
    """Lines together up to the size of a piece; a longer line is a piece of its own."""
    pieces: list[str] = [""]
    for line in text.splitlines(keepends=True):
        if pieces[-1] and len(pieces[-1]) + len(line) > PIECE_CHARACTERS:
            pieces.append("")
        pieces[-1] += line
    return [piece for piece in pieces if piece.strip()]
