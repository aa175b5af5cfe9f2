"""Conversations of any length become rows that fit and teach something; what does not fit is cut or left out, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.tokenizer.supervision import Supervised
from chatwright.training.chat_rows import CUT, NO_ROOM, NOTHING_TO_LEARN, SPLIT, Notes, reworded
from chatwright.training.fitting import Message, fit, split_turns
from tests.server.tiny import make_model_folder
from tests.training.tuning import chat, load_chat, make_examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("rows") / "tiny")


def encode_letters(messages: Sequence[Message]) -> list[Supervised]:
    """A token a letter, and one that ends each message; answers are supervised."""
    ids: list[int] = []
    supervised: list[bool] = []
    for message in messages:
        letters = [0, *map(ord, message["content"]), 1]
        ids += letters
        supervised += [message["role"] == "assistant" and place > 0 for place in range(len(letters))]
    return [Supervised(tuple(ids), tuple(supervised))] if any(supervised) else []


messages_strategy = st.lists(
    st.tuples(st.sampled_from(["user", "assistant", "tool"]), st.text("ab", max_size=12)), max_size=12
).map(lambda pairs: [{"role": role, "content": content} for role, content in pairs])


@given(messages_strategy, st.booleans(), st.integers(2, 40))
def test_rows_fit_and_every_row_has_something_to_learn(
    messages: list[dict[str, Any]], system: bool, context: int
) -> None:
    if system:
        messages = [{"role": "system", "content": "s"}, *messages]
    fitted = fit(encode_letters, messages, context)
    for piece in fitted.pieces:
        for row in piece.rows:
            assert 2 <= len(row.ids) <= context + 1
            assert any(row.supervised[1:])
            assert not system or row.ids[1] == ord("s")
    answers = sum(message["role"] == "assistant" for message in messages)
    learned = sum(row.ids.count(0) for piece in fitted.pieces for row in piece.rows)
    assert learned or fitted.n_dropped or not answers


def test_a_long_conversation_keeps_every_answer_that_fits_with_the_system_message_before_it() -> None:
    messages = chat(*(f"{letter}{number}" for number in range(20) for letter in "qa"), system="s")
    fitted = fit(encode_letters, messages, 30)
    texts = ["".join(chr(i) for i in row.ids if i > 1) for piece in fitted.pieces for row in piece.rows]
    assert len(texts) > 1
    assert all(text.startswith("s") for text in texts)
    assert "".join(text[1:] for text in texts) == "".join(f"q{n}a{n}" for n in range(20))
    assert fitted.n_cut == fitted.n_dropped == 0


def test_a_single_turn_that_is_too_long_loses_the_end_of_its_answer() -> None:
    fitted = fit(encode_letters, chat("q", "a" * 100), 20)
    [piece] = fitted.pieces
    [row] = piece.rows
    assert len(row.ids) == 21
    assert not piece.whole
    assert fitted.n_cut == 1


def test_a_question_that_fills_the_context_is_left_out_and_the_others_stay() -> None:
    fitted = fit(encode_letters, chat("q" * 100, "a", "q2", "a2"), 20)
    assert [chr(row.ids[1]) for piece in fitted.pieces for row in piece.rows] == ["q"]
    assert fitted.n_dropped == 1


def test_turns_begin_with_what_a_user_says_and_keep_tools_together() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": []},
        {"role": "tool", "content": "t"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "q2"},
        {"role": "user", "content": "q3"},
        {"role": "assistant", "content": "a2"},
    ]
    head, turns = split_turns(messages)
    assert head == messages[:1]
    assert turns == [messages[1:5], messages[5:]]


def test_what_cannot_be_used_is_counted_with_names(folder: Path) -> None:
    notes = Notes()
    conversations = [
        chat("Hello", "Hi there"),
        chat("Nobody answers me"),
        chat("Hello", "   "),
        chat("Hello " * 300, "Hi"),
        chat("Hello", "word " * 300),
        chat(*(["Hello", "The capital of France is Paris."] * 20)),
    ]
    examples = make_examples(folder, conversations, 100, notes)
    assert notes.counts == {NOTHING_TO_LEARN: 2, NO_ROOM: 1, CUT: 1, SPLIT: 1}
    assert notes.to_dict()[NOTHING_TO_LEARN]["first"] == ["chats.jsonl (c1)", "chats.jsonl (c2)"]
    assert all(len(example) <= 100 and example.learned.any() for example in examples)
    assert {example.id for example in examples} == {"c0", "c4", "c5"}


def test_what_is_learned_is_the_answer_and_its_end(folder: Path) -> None:
    tokenizer, _template, _encode = load_chat(folder)
    [example] = make_examples(
        folder, [chat("What is it?", "The cat sat. 猫坐在垫子上", "And?", "你好", system="Be brief.")]
    )
    learned = example.targets[example.learned].tolist()
    end = tokenizer.special_ids["<|im_end|>"]
    assert learned.count(end) == 2
    assert learned[-1] == end
    assert tokenizer.decode(learned) == "The cat sat. 猫坐在垫子上你好"
    assert example.n_bytes == len("The cat sat. 猫坐在垫子上你好".encode())


def test_augmentations_change_what_users_say_and_nothing_else() -> None:
    messages = [
        *chat("The cat sat on the mat and the dog did not", "The capital of France is Paris", system="Be very brief"),
        {"role": "user", "content": [{"type": "text", "text": "parts stay"}]},
    ]
    seen = set()
    for epoch in range(30):
        changed = reworded(messages, ["word-dropout", "typos"], 0, epoch, "c0")
        assert [changed[place] for place in (0, 2, 3)] == [messages[place] for place in (0, 2, 3)]
        seen.add(changed[1]["content"])
    assert len(seen) > 5
