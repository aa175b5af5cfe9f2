"""Reads calls out of an answer as it comes: which of its text is said, which calls a tool, and with what arguments.

The grammar has made the calls what they are, so reading them is a matter of finding their parts; each character is looked at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from chatwright.engine.stopping import StopMatcher
from chatwright.engine.tool_format import ToolFormat


@dataclass(frozen=True)
class Said:
    """Text of the answer that is no call."""

    text: str


@dataclass(frozen=True)
class Called:
    """Call number `index` begins (with a name) or goes on with `arguments`, a piece of JSON."""

    index: int
    arguments: str = ""
    name: str | None = None


class ToolReader:
    """Takes an answer in pieces. `n_complete`: calls that have come to their end."""

    def __init__(self, tool_format: ToolFormat) -> None:
        self._format = tool_format
        self._trigger = tool_format.opening.rstrip("\n")
        self._matcher = StopMatcher([self._trigger]) if self._trigger else None
        self._held = ""  # text that may begin a call, or blanks before any text
        self._n_passed = 0  # characters before it
        self._rest = ""  # what has come, but is not understood yet
        self._state = "text"
        self._depth = 0
        self._in_string = self._escaped = False
        self.n_calls = 0
        self.n_complete = 0

    def push(self, text: str) -> Iterator[Said | Called]:
        """What the next piece of the answer comes to."""
        self._rest += text
        while self._rest:
            before = self._state, len(self._rest)
            if self._state == "text":
                yield from self._read_text()
            elif self._state == "head":
                yield from self._read_head()
            elif self._state == "arguments":
                yield from self._read_arguments()
            else:
                self._read_tail()
            if before == (self._state, len(self._rest)):
                return  # more is needed

    def flush(self) -> Iterator[Said | Called]:
        """The end of the answer: text that was held back, as it could have begun a call."""
        if self._state == "text" and (self._n_passed or self._held.strip()):
            yield from self._say(len(self._held))

    def _read_text(self) -> Iterator[Said | Called]:
        piece, self._rest = self._rest, ""
        if self._matcher is None and not self._n_passed and not self._held and piece.startswith("{"):
            # Without a trigger a call begins with the answer, or there is none.
            self._state, self._rest = "head", piece
            return
        self._held += piece
        n_safe, found = self._matcher.push(piece) if self._matcher else (self._n_passed + len(self._held), False)
        n_safe -= self._n_passed
        if found:
            self._state, self._rest = "head", self._held[n_safe:]
        # Blanks alone are no text: models write them before a call.
        if self._n_passed or self._held[:n_safe].strip():
            yield from self._say(n_safe)

    def _say(self, n: int) -> Iterator[Said]:
        said, self._held = self._held[:n], self._held[n:]
        self._n_passed += n
        if said:
            yield Said(said)

    def _read_head(self) -> Iterator[Called]:
        end = f", {json.dumps(self._format.arguments_key)}: "
        head, found, rest = self._rest.partition(end)
        if found:
            name = head.removeprefix(self._format.opening).removeprefix('{"name": ')
            self._state, self._rest = "arguments", rest
            self._depth = 0
            yield Called(self.n_calls, name=json.loads(name))
            self.n_calls += 1

    def _read_arguments(self) -> Iterator[Called]:
        text = self._rest
        end = len(text)
        for place, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    end = place + 1
                    self._state = "tail"
                    break
        self._rest = text[end:]
        yield Called(self.n_calls - 1, arguments=text[:end])

    def _read_tail(self) -> None:
        tail = self._format.call_tail
        if self.n_complete < self.n_calls and self._rest.startswith(tail):
            self.n_complete += 1
        another = tail + self._format.between + self._trigger
        if self._rest.startswith(another if self._trigger else another + "{"):
            self._state, self._rest = "head", self._rest[len(another) - len(self._trigger) :]
