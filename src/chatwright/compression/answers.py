"""What a teacher says to the questions of a dataset, kept batch by batch, so that an interruption costs one batch.

`RUN-answers.partial` is a JSONL file: what is asked by whom in its first line, a batch in each line behind. The same command reads
it and asks the rest: whole batches, since what is answered together shares its rounding. A line that was cut off is asked again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chatwright.errors import StorageError, UsageError
from chatwright.evaluation.generate import generate_answers
from chatwright.i18n import _
from chatwright.model.gpt import GPT
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import SPLITS, Split
from chatwright.tokenizer.chat import encode_chat
from chatwright.training.base_model import BaseModel
from chatwright.training.progress import Progress

ASKED_AT_ONCE = 32
Row = dict[str, Any]


class AnswersKept:
    """The batches that are answered. Raises UsageError for a file about something else, which stays as it is; StorageError."""

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path = path
        self._first = json.dumps(dict(asked), sort_keys=True)
        self._found: dict[tuple[str, int], list[Row]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = path.read_bytes() if path.exists() else b""
            whole = whole[: whole.rfind(b"\n") + 1]
            first, *batches = whole.decode().splitlines() or [self._first]
            if (found := self._longest_before(first, asked)) is not None:
                raise UsageError(
                    "{path} holds answers of a command with --max-tokens {found}. Repeat it so to go on, remove the file, or choose"
                    " another run.",
                    path=path,
                    found=found,
                )
            if first != self._first:
                raise UsageError(
                    "{path} holds answers of another teacher, or to other questions. Repeat that command, remove"
                    " the file, or choose another run.",
                    path=path,
                )
            for line in batches:
                batch = json.loads(line)
                self._found[batch["split"], batch["start"]] = batch["rows"]
            path.write_bytes(whole or f"{self._first}\n".encode())
        except (OSError, ValueError) as error:
            raise StorageError("{path} cannot be read or written: {reason}", path=path, reason=error) from error

    @staticmethod
    def _longest_before(first: str, asked: Mapping[str, Any]) -> int | None:
        """The length of the longest answer that was asked for, where nothing else was different."""
        found = json.loads(first)
        others = {**found, "max_tokens": asked["max_tokens"]} if isinstance(found, dict) else None
        return found["max_tokens"] if others == asked != found else None

    @property
    def n_batches(self) -> int:
        """Batches that need not be asked again."""
        return len(self._found)

    def find(self, split: Split, start: int) -> list[Row] | None:
        """The rows of the batch that begins there."""
        return self._found.get((split, start))

    def add(self, split: Split, start: int, rows: list[Row]) -> None:
        """Keeps a batch, on disk before the next is asked."""
        line = json.dumps({"split": split, "start": start, "rows": rows}, ensure_ascii=True)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise StorageError("{path} cannot be read or written: {reason}", path=self.path, reason=error) from error


def answered(
    model: GPT, teacher: BaseModel, dataset: Dataset, max_tokens: int, kept: Path, progress: Progress
) -> dict[Split, list[Row]]:
    """Conversations up to the last question, with the teacher's answer behind it; those it has nothing to say to are left out.

    `kept`: the file that remembers what was answered before; the caller removes it once the answers are a dataset. Raises as
    `AnswersKept`.
    """
    asked = {
        "teacher": teacher.fingerprint(),
        "text_side": teacher.text_fingerprint(),
        "dataset": dataset.fingerprint,
        "max_tokens": max_tokens,
        "at_once": ASKED_AT_ONCE,
    }
    batches = AnswersKept(kept, asked)
    if batches.n_batches:
        progress.say(_("Going on with the answers that are in {path}.", path=kept))
    return {split: list(_of_split(model, teacher, dataset, split, max_tokens, batches, progress)) for split in SPLITS}


def _of_split(
    model: GPT,
    teacher: BaseModel,
    dataset: Dataset,
    split: Split,
    max_tokens: int,
    batches: AnswersKept,
    progress: Progress,
) -> Iterator[Row]:
    side = teacher.chat()
    rows = list(dataset.rows(split, "conversations"))
    progress.stage(_("The teacher answers"), len(rows))
    asked: list[tuple[Row, list[Row], list[int]]] = []
    for row in rows:
        messages = [m for m in row["messages"] if isinstance(m.get("content"), str)]
        while messages and messages[-1].get("role") != "user":
            messages.pop()
        if messages:
            asked.append((row, messages, list(encode_chat(side.tokenizer, side.template, messages))))
    for start in range(0, len(asked), ASKED_AT_ONCE):
        some = asked[start : start + ASKED_AT_ONCE]
        found = batches.find(split, start)
        if found is None:
            answers = generate_answers(
                model,
                [ids for _row, _messages, ids in some],
                max_tokens=min(max_tokens, model.config.context_length // 2),
                stop_ids=side.tokenizer.eos_ids,
            )
            found = []
            for (row, messages, _ids), answer in zip(some, answers, strict=True):
                if text := side.tokenizer.decode(answer.ids, continuing=True).strip():
                    reply = {"role": "assistant", "content": text}
                    found.append(
                        {name: row[name] for name in ("id", "source", "language", "cluster")}
                        | {"messages": [*messages, reply]}
                    )
            batches.add(split, start, found)
        yield from found
        progress.advance(start + len(some))
