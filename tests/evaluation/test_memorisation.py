"""The longest verbatim copy is found exactly, wherever it stands."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.evaluation.memorisation import CopiedRun, longest_copied_runs


def longest_copied_run(sample: str, corpus: Iterable[str]) -> CopiedRun:
    [run] = longest_copied_runs([sample], corpus)
    return run


def slow(sample: str, corpus: list[str], shortest: int) -> int:
    runs = (sample[i:j] for i in range(len(sample)) for j in range(i + shortest, len(sample) + 1))
    return max((len(run) for run in runs if any(run in text for text in corpus)), default=0)


@given(
    st.lists(st.text("ab漢🙂", max_size=30), min_size=1, max_size=4),
    st.lists(st.text("ab漢🙂", max_size=60), max_size=4),
    st.integers(1, 6),
)
@settings(max_examples=200, deadline=None)
def test_equals_looking_for_every_run(samples: list[str], corpus: list[str], shortest: int) -> None:
    found = longest_copied_runs(samples, corpus, shortest=shortest)
    assert [run.length for run in found] == [slow(sample, corpus, shortest) for sample in samples]
    for sample, run in zip(samples, found, strict=True):
        if run.document is not None:
            assert sample[run.start : run.start + run.length] in corpus[run.document]


def test_a_recited_sentence_is_found_between_new_words() -> None:
    sentence = "the quick brown fox jumps over the lazy dog 敏捷的棕色狐狸"
    corpus = ["nothing here", "x" * 500, f"once {sentence} twice"]
    run = longest_copied_run(f"He said: {sentence}, or so.", corpus)
    assert (run.length, run.document) == (len(sentence) + 1, 2)  # and the space before
    assert longest_copied_run("entirely new words, all of them", corpus).length == 0


def test_a_copy_across_the_pieces_of_a_long_document_is_found_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatwright.evaluation.memorisation.PIECE", 50)
    text = "".join(chr(0x4E00 + i) for i in range(400))
    assert longest_copied_run(text[30:180], [text]).length == 150


def test_the_corpus_is_read_once_and_never_held() -> None:
    texts = (f"document number {i} of many" for i in range(1000))
    assert longest_copied_run("this is document number 777 of many", texts).document == 777
