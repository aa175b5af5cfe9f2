"""Stop strings never show, however the text is cut into tokens, and nothing else is held back for ever."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from chatwright.engine.stopping import StopMatcher

TEXT = st.text(alphabet="ab你\n", max_size=40)
STOPS = st.lists(st.text(alphabet="ab你\n", min_size=1, max_size=5), max_size=4)


def pieces(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(TEXT, STOPS, st.lists(st.integers(0, 100), max_size=10))
def test_the_cut_is_where_the_first_stop_begins_or_completes(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher = StopMatcher(stops)
    n_safe, stopped, pushed = 0, False, ""
    for piece in pieces(text, cuts):
        pushed += piece
        before = n_safe
        n_safe, stopped = matcher.push(piece)
        assert before <= n_safe <= len(pushed), "text that was shown was taken back"
        if stopped:
            break
        held = pushed[n_safe:]
        assert not held or any(stop.startswith(held) for stop in stops), "text is held back for no reason"
    found = [pushed.find(stop) for stop in stops if stop in pushed]
    assert stopped == bool(found)
    if stopped:
        assert n_safe == min(found)
    else:
        assert not any(stop in pushed[:n_safe] for stop in stops)


def test_without_stops_everything_is_safe_at_once() -> None:
    assert StopMatcher([]).push("hello") == (5, False)
