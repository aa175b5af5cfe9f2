"""Conversations longer than the context: what of them is trained on, so that no row is ever empty and nothing is lost silently.

A conversation that is too long is cut between turns into pieces that fit, each with the system message before it, so that
every answer is still trained on, with as many of the turns before it as the piece holds. A single turn that does not fit alone
loses the end of its answer; one whose question fills the context by itself is left out. Each of these is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatwright.tokenizer.supervision import Supervised

Message = Mapping[str, Any]
Encode = Callable[[Sequence[Message]], Sequence[Supervised]]


@dataclass(frozen=True)
class Piece:
    """Messages, and the rows that they become: one, or one an answer where the template rewrites earlier turns. `whole`: no row
    lost its end, so that the messages can be encoded again to the same rows.
    """

    messages: tuple[Message, ...]
    rows: tuple[Supervised, ...]
    whole: bool = True


@dataclass(frozen=True)
class Fitted:
    """What of a conversation is trained on: one piece where it fitted, none where nothing in it is supervised. `n_cut`: answers
    that lost their end. `n_dropped`: answers of which nothing fitted.
    """

    pieces: tuple[Piece, ...]
    n_cut: int = 0
    n_dropped: int = 0


def fit(encode: Encode, messages: Sequence[Message], context_length: int) -> Fitted:
    """Rows of at most `context_length` inputs (one token more, as the last is only predicted), each with something to learn.

    `encode` is `tokenizer.supervision.encode_supervised` for one model.
    """
    rows = _supervised(encode(messages))
    if _all_fit(rows, context_length):
        return Fitted((Piece(tuple(messages), rows),) if rows else ())
    head, turns = split_turns(messages)
    pieces: list[Piece] = []
    n_cut = n_dropped = start = 0
    while start < len(turns):
        end, rows = _longest_piece(encode, head, turns, start, context_length)
        kept: list[Supervised] = []
        n_cut_before = n_cut
        for row in rows:
            if len(row.ids) <= context_length + 1:
                kept.append(row)
                continue
            cut = Supervised(row.ids[: context_length + 1], row.supervised[: context_length + 1])
            if any(cut.supervised[1:]):
                kept.append(cut)
                n_cut += 1
            else:
                n_dropped += 1
        if kept:
            piece = (*head, *(message for turn in turns[start:end] for message in turn))
            pieces.append(Piece(piece, tuple(kept), whole=len(kept) == len(rows) and n_cut == n_cut_before))
        start = end
    return Fitted(tuple(pieces), n_cut, n_dropped)


def split_turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system messages at the head, and turns: from what a user says to the last answer (or tool call) to it."""
    n_head = 0
    while n_head < len(messages) and messages[n_head].get("role") in ("system", "developer"):
        n_head += 1
    turns: list[list[Message]] = []
    for message in messages[n_head:]:
        asks = message.get("role") not in ("assistant", "tool", "function")
        answered = bool(turns) and any(earlier.get("role") == "assistant" for earlier in turns[-1])
        if not turns or (asks and answered):
            turns.append([])
        turns[-1].append(message)
    return list(messages[:n_head]), turns


def _longest_piece(
    encode: Encode, head: Sequence[Message], turns: Sequence[Sequence[Message]], start: int, context_length: int
) -> tuple[int, tuple[Supervised, ...]]:
    """The largest `end` whose turns start..end fit, found by doubling and halving; at least one turn, fitting or not."""

    def rows_of(n: int) -> tuple[Supervised, ...]:
        piece = [message for turn in turns[start : start + n] for message in turn]
        return _supervised(encode([*head, *piece]))

    most = len(turns) - start
    n_fits, best = 1, rows_of(1)
    if not _all_fit(best, context_length):
        return start + 1, best
    n_fails = most + 1
    while n_fails - n_fits > 1:
        n = min(2 * n_fits, (n_fits + n_fails) // 2)
        if _all_fit(rows := rows_of(n), context_length):
            n_fits, best = n, rows
        else:
            n_fails = n
    return start + n_fits, best


def _supervised(rows: Sequence[Supervised]) -> tuple[Supervised, ...]:
    # the first token of a row has nothing before it to be predicted from
    return tuple(row for row in rows if any(row.supervised[1:]))


def _all_fit(rows: Sequence[Supervised], context_length: int) -> bool:
    return all(len(row.ids) <= context_length + 1 for row in rows)
