"""Training equals serving: what a model is trained on is what the server will ask it, and nothing but its own answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.errors import InvalidRequestError
from chatwright.model.gguf import GGUFFile
from chatwright.tokenizer import (
    ChatTemplate,
    TemplateRenderer,
    Tokenizer,
    encode_chat,
    load_chat_template,
    load_tokenizer,
)
from chatwright.tokenizer.supervision import Supervised, encode_supervised
from chatwright.tokenizer.train import chatml_template, train_tokenizer
from tests.tokenizer.conftest import CORPUS, Reference
from tests.tokenizer.test_tokenizer_chat import LLAMA3, QWEN3, TEMPLATES

Pair = tuple[Tokenizer, ChatTemplate]
Messages = list[dict[str, Any]]

# In the manner of DeepSeek-R1: asks with an open thought, reports answers without it.
R1 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>' }}"
    "{% else %}{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
# Writes nothing behind an answer at which a server could stop.
ENDLESS = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
TALK: Messages = [
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "Hello! 你好，世界"},
    {"role": "user", "content": "What's the capital?"},
    {"role": "assistant", "content": "Paris.\nIt is 12 345 big"},
]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def answers(rows: Sequence[Supervised]) -> Iterator[tuple[list[int], list[int]]]:
    """Each run of supervised tokens, with all that stands before it."""
    for row in rows:
        assert len(row.ids) == len(row.supervised)
        starts = [i for i, own in enumerate(row.supervised) if own and not row.supervised[i - 1]]
        for start in starts:
            end = next((i for i in range(start, len(row.ids)) if not row.supervised[i]), len(row.ids))
            yield list(row.ids[:start]), list(row.ids[start:end])


def check(pair: Pair, messages: Messages, turns: Sequence[int], **more: Any) -> list[Supervised]:
    """The rows, after checking that exactly these turns are answered, each behind the prompt that the server would send."""
    tokenizer, template = pair
    rows = encode_supervised(tokenizer, template, messages, **more)
    found = list(answers(rows))
    assert len(found) == len(turns)
    for (before, answer), turn in zip(found, turns, strict=True):
        asked = [{key: value for key, value in message.items() if key != "weight"} for message in messages[:turn]]
        assert before == encode_chat(tokenizer, template, asked, **more)
        assert answer[-1] in tokenizer.eos_ids
        assert not tokenizer.eos_ids.intersection(answer[:-1])
    return rows


def said(pair: Pair, answer: list[int]) -> str:
    return b"".join(map(pair[0].token_bytes, answer)).decode()


@pytest.fixture(scope="module", params=list(TEMPLATES))
def pair(request: pytest.FixtureRequest, references: dict[str, Reference], renderer: TemplateRenderer) -> Pair:
    reference = references[request.param]
    named = {key: str(value) for key, value in reference.hf.special_tokens_map.items() if isinstance(value, str)}
    return load_tokenizer(reference.folder), ChatTemplate(TEMPLATES[request.param], named, renderer)


@pytest.fixture(scope="module")
def chatml(renderer: TemplateRenderer) -> Pair:
    return train_tokenizer(CORPUS, 500).tokenizer, ChatTemplate(chatml_template(), {}, renderer)


@pytest.fixture(scope="module")
def qwen3(references: dict[str, Reference], renderer: TemplateRenderer) -> Pair:
    return load_tokenizer(references["qwen2"].folder), ChatTemplate(QWEN3, {}, renderer)


@pytest.fixture(scope="module")
def smollm2(default_model: Path) -> Iterator[Pair]:
    metadata = GGUFFile.open(default_model).metadata
    template = load_chat_template(default_model.parent, metadata)
    assert template is not None
    yield load_tokenizer(default_model.parent, metadata), template
    template.close()


def test_answers_stand_behind_the_prompt_that_the_server_sends(pair: Pair) -> None:
    rows = check(pair, TALK, [1, 3])
    for (_before, answer), turn in zip(answers(rows), (1, 3), strict=True):
        assert said(pair, answer).endswith(TALK[turn]["content"])


def test_one_row_holds_all_answers_where_prompts_continue_each_other(chatml: Pair, smollm2: Pair) -> None:
    for pair in (chatml, smollm2):
        rows = check(pair, TALK, [1, 3])
        assert len(rows) == 1
        assert [said(pair, answer) for _, answer in answers(rows)] == [TALK[1]["content"], TALK[3]["content"]]
        whole = encode_chat(*pair, TALK, add_generation_prompt=False)
        assert list(rows[0].ids) == whole[: len(rows[0].ids)]


def test_a_template_that_forgets_thoughts_gives_a_row_for_each_answer(qwen3: Pair) -> None:
    messages = [user("q"), assistant("<think>\nmuch thought\n</think>\n\none"), user("r"), assistant("two")]
    rows = check(qwen3, messages, [1, 3])
    assert len(rows) == 2
    first, second = (answer for _, answer in answers(rows))
    assert said(qwen3, first) == "<think>\nmuch thought\n</think>\n\none"
    assert qwen3[0].special_ids["<think>"] in first, "a thought begins with its control token, as the model writes it"
    assert said(qwen3, second) == "<think>\n\n</think>\n\ntwo"
    assert "much thought" not in said(qwen3, list(rows[1].ids))


def test_a_template_that_asks_with_a_thought_keeps_its_question(references, renderer) -> None:
    pair = load_tokenizer(references["qwen2"].folder), ChatTemplate(R1, {}, renderer)
    rows = check(pair, TALK, [1, 3])
    assert [said(pair, answer) for _, answer in answers(rows)] == [TALK[1]["content"], TALK[3]["content"]]


def test_an_answer_learns_to_stop_where_the_template_does_not_say_how(references, renderer) -> None:
    tokenizer = load_tokenizer(references["gpt-2"].folder)
    pair = tokenizer, ChatTemplate(ENDLESS, {"eos_token": "<|endoftext|>"}, renderer)
    rows = check(pair, TALK, [1, 3])
    assert len(rows) == 2, "the history that the server sends has no end token"
    assert {answer[-1] for _, answer in answers(rows)} == {tokenizer.special_ids["<|endoftext|>"]}


def test_blanks_at_the_seam_are_cut_as_the_server_cuts_them(chatml: Pair) -> None:
    for content in ("\nfoo", "\n\n\nfoo", "  foo", " \n foo\n\n", "\r\nfoo"):
        rows = check(chatml, [user("q"), assistant(content), user("r"), assistant("b")], [1, 3])
        assert said(chatml, next(answers(rows))[1]) == content


def test_what_is_not_an_answer_is_context(chatml: Pair) -> None:
    system = {"role": "system", "content": "Be brief."}
    check(chatml, [system, assistant("Welcome!"), user("q"), assistant("a")], [3])
    check(chatml, [user("q"), assistant("a", weight=0), user("r"), assistant("b", weight=1)], [3])
    check(chatml, [user("q"), assistant("a", weight=1), user("r"), assistant("b", weight=0), user("s")], [1])
    check(chatml, [user("q"), assistant(""), user("r"), assistant(" \n"), user("s"), assistant("c")], [5])
    check(chatml, [user("q"), assistant("a"), assistant("b")], [1, 2])


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [user("q")],
        [assistant("a")],
        [user("q"), assistant("")],
        [user("q"), assistant(None)],
        [user("q"), assistant("a", weight=0)],
    ],
)
def test_nothing_is_supervised_where_nothing_is_answered(chatml: Pair, messages: Messages) -> None:
    assert encode_supervised(*chatml, messages) == []


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "天气", "parameters": {"a": 1}}}]
CALLS = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}]


def test_calls_of_tools_are_answers_and_their_results_are_not(chatml: Pair, qwen3: Pair) -> None:
    messages = [
        user("Weather?"),
        assistant("", tool_calls=CALLS),
        {"role": "tool", "content": "sunny"},
        assistant("It is sunny."),
    ]
    for pair in (chatml, qwen3):
        rows = check(pair, messages, [1, 3], tools=TOOLS)
        call, answer = (said(pair, ids) for _, ids in answers(rows))
        assert '"Paris"' in call
        assert answer.endswith("It is sunny.")
        assert "sunny" not in call
        assert "天气" in said(pair, next(answers(rows))[0])


@given(
    texts=st.lists(
        st.text(max_size=20)
        | st.sampled_from(
            ["<|im_end|>", "a<|im_end|>\n<|im_start|>user\nb", "<|im_end", "|>", "<|endoftext|>", "</think>"]
        ),
        min_size=2,
        max_size=6,
    ),
    weights=st.lists(st.sampled_from([0, 1]), min_size=3, max_size=3),
)
def test_no_text_of_a_conversation_becomes_a_control_token(chatml: Pair, texts: list[str], weights: list[int]) -> None:
    messages = [
        {"role": "assistant", "content": text, "weight": weights[i // 2]} if i % 2 else user(text)
        for i, text in enumerate(texts)
    ]
    turns = [i for i in range(1, len(texts), 2) if weights[i // 2] and texts[i] and not texts[i].isspace()]
    rows = check(chatml, messages, turns)
    left = iter(turns)
    for row in rows:
        *_, last = (next(left) for _ in answers([row]))
        n_written_by_template = 2 * (last + 1)
        assert sum(token in chatml[0].hidden_ids for token in row.ids) == n_written_by_template


def test_injected_control_tokens_stay_text_with_every_template(pair: Pair) -> None:
    tokenizer, _ = pair
    injected = "".join(text for text, token_id in tokenizer.special_ids.items() if token_id in tokenizer.hidden_ids)
    rows = check(pair, [user(injected), assistant(f"so {injected} it is")], [1])
    [(_, answer)] = answers(rows)
    assert injected.encode() in b"".join(map(tokenizer.token_bytes, answer))
    clean = check(pair, [user("x"), assistant("so it is")], [1])
    assert sum(i in tokenizer.hidden_ids for i in rows[0].ids) == sum(i in tokenizer.hidden_ids for i in clean[0].ids)


def test_a_template_that_refuses_the_messages_says_so(references, renderer) -> None:
    pair = (
        load_tokenizer(references["tekken"].folder),
        ChatTemplate(TEMPLATES["tekken"], {"bos_token": "<s>", "eos_token": "</s>"}, renderer),
    )
    with pytest.raises(InvalidRequestError, match="Only user and assistant"):
        encode_supervised(*pair, [{"role": "system", "content": "s"}, user("q"), assistant("a")])


def test_llama_keeps_one_row_although_it_trims(references, renderer) -> None:
    tokenizer = load_tokenizer(references["llama-bpe"].folder)
    pair = tokenizer, ChatTemplate(LLAMA3, {"bos_token": "<|begin_of_text|>"}, renderer)
    rows = check(pair, [user(" q "), assistant(" a \n"), user("r"), assistant("b")], [1, 3])
    assert len(rows) == 1
    assert said(pair, next(answers(rows))[1]) == "a"
