"""How models are told of tools, and how their calls are read: by what their templates render, in whatever pieces answers come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chatwright.tokenizer
from chatwright.engine.tool_format import Tool, ToolFormat, as_chat, tool_format_of
from chatwright.engine.tool_reader import Called, Said, ToolReader
from chatwright.tokenizer import ChatTemplate, TemplateRenderer
from tests.tokenizer.test_tokenizer_chat import CHATML, GEMMA, LLAMA3, MISTRAL, QWEN3

CHATML_WITH_TOOLS = files(chatwright.tokenizer).joinpath("chatml.jinja").read_text()
# In the manner of Llama 3.1: bare JSON with `parameters`, one call a message.
LLAMA31 = (
    "{{- bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + (m.role if m.role != 'tool' else 'ipython') }}"
    "{{ '<|end_header_id|>\n\n' }}"
    "{% if tools and loop.first %}{% for t in tools %}{{ t | tojson(indent=4) }}{{ '\n\n' }}{% endfor %}{% endif %}"
    "{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}"
    """{{ '{"name": "' + m.tool_calls[0].function.name + '", "parameters": ' }}"""
    "{{ (m.tool_calls[0].function.arguments | tojson) + '}' }}"
    "{% else %}{{ m.content | trim }}{% endif %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# In the manner of Mistral: a list behind a token, which is no format of ours.
MISTRAL_WITH_TOOLS = (
    "{{ bos_token }}{% if tools %}{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS] ' + m.content + '[/TOOL_RESULTS]' }}"
    "{% elif m.tool_calls %}{{ '[TOOL_CALLS] [' }}{% for c in m.tool_calls %}"
    """{{ '{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + '}' }}"""
    "{{ ', ' if not loop.last }}{% endfor %}{{ ']' + eos_token }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
HERMES = ToolFormat(native=True)
BARE = ToolFormat(native=True, opening="", closing="")

WEATHER = Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})
CALLS = [
    {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}},
    {"id": "b", "type": "function", "function": {"name": "now", "arguments": "{}"}},
]
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "Let me see.", "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "a", "name": "get_weather", "content": "12 °C"},
    {"role": "tool", "tool_call_id": "b", "name": "now", "content": "noon"},
]


@pytest.fixture(scope="module")
def renderer() -> Iterator[TemplateRenderer]:
    renderer = TemplateRenderer()
    yield renderer
    renderer.close()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (QWEN3, HERMES),
        (CHATML_WITH_TOOLS, BARE),
        (LLAMA31, ToolFormat(True, True, "", "", "\n", "parameters", several=False)),
        (MISTRAL_WITH_TOOLS, ToolFormat()),
        (CHATML, ToolFormat()),
        (LLAMA3, ToolFormat()),
        (GEMMA, ToolFormat()),
        (MISTRAL, ToolFormat(system_role=False)),
    ],
    ids=["qwen3", "ours", "llama3.1", "mistral-tools", "chatml", "llama3", "gemma", "mistral"],
)
def test_a_template_shows_its_format(renderer: TemplateRenderer, source: str, expected: ToolFormat) -> None:
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}, renderer)
    assert tool_format_of(template) == expected
    chat, tools = as_chat(TALK[:1], [WEATHER], expected, "Answer with JSON.")
    told = template.render(chat, tools=tools)
    assert all(word in told for word in ("Weather?", "get_weather", "The weather", "city", "Answer with JSON."))
    if expected.several:
        chat, tools = as_chat(TALK, [WEATHER], expected)
        told = template.render(chat, tools=tools)
        assert expected.calls_text(CALLS) in told
        assert told.index("Let me see.") < told.index('"Paris"') < told.index("12 °C") < told.index("noon")


def test_our_own_format_is_the_documented_one() -> None:
    chat, tools = as_chat(TALK, [Tool("now")], ToolFormat())
    assert tools is None
    assert chat == [
        {
            "role": "system",
            "content": "# Tools\n\nYou may call one or more of these functions:\n\n"
            '{"type": "function", "function": {"name": "now", "description": "", '
            '"parameters": {"type": "object", "properties": {}}}}\n\n'
            "To call a function, answer with its name and its arguments as JSON between these tags:\n"
            '<tool_call>\n{"name": "function name", "arguments": {"argument name": "value"}}\n</tool_call>\n\n'
            "Its result then comes between <tool_response> and </tool_response>.",
        },
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": 'Let me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        },
        {
            "role": "user",
            "content": "<tool_response>\n12 °C\n</tool_response>\n<tool_response>\nnoon\n</tool_response>",
        },
    ]


def test_the_instruction_joins_what_the_user_told_the_system() -> None:
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    chat, _ = as_chat(talk, [], ToolFormat(), "Answer with JSON.")
    assert chat == [{"role": "system", "content": "Be brief.\n\nAnswer with JSON."}, talk[1]]
    chat, _ = as_chat(talk[1:], [], ToolFormat(system_role=False), "Answer with JSON.")
    assert chat == [{"role": "user", "content": "Answer with JSON.\n\nHi"}]


def read(tool_format: ToolFormat, pieces: list[str]) -> tuple[str, list[tuple[str | None, str]], int]:
    """(text, [(name, arguments)], complete calls)"""
    reader = ToolReader(tool_format)
    parts = [part for piece in pieces for part in reader.push(piece)] + list(reader.flush())
    calls: list[tuple[str | None, str]] = []
    for part in parts:
        if isinstance(part, Called):
            if part.name is not None:
                assert part.arguments == ""
                assert part.index == len(calls)
                calls.append((part.name, ""))
            else:
                calls[part.index] = (calls[part.index][0], calls[part.index][1] + part.arguments)
    return "".join(part.text for part in parts if isinstance(part, Said)), calls, reader.n_complete


ARGUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none()
        | st.integers()
        | st.text(max_size=6)
        | st.sampled_from(['"}', "\\", "</tool_call>", "<tool_call>\n{"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


@given(
    st.sampled_from([HERMES, BARE]),
    st.sampled_from(["", "Well.\n", "a < b <tool ", "  \n"]),
    st.lists(st.tuples(st.sampled_from(["f", "get_weather"]), ARGUMENTS), max_size=3),
    st.lists(st.integers(1, 9), min_size=1),
    st.booleans(),
)
def test_calls_are_read_whatever_pieces_they_come_in(
    tool_format: ToolFormat, text: str, calls: list[tuple[str, Any]], steps: list[int], spaced: bool
) -> None:
    if not tool_format.opening and calls:
        text = ""  # there is nothing before a bare call
    written = [
        (name, json.dumps(arguments, ensure_ascii=False, indent=1 if spaced else None)) for name, arguments in calls
    ]
    answer = text + tool_format.calls_text([{"function": {"name": n, "arguments": a}} for n, a in written])
    pieces, rest, n = [], answer, 0
    while rest:
        step = steps[n % len(steps)]
        pieces.append(rest[:step])
        rest, n = rest[step:], n + 1
    said, found, n_complete = read(tool_format, pieces)
    assert said == (text if text.strip() else "")
    assert found == written
    assert n_complete == len(calls)


def test_a_call_that_was_cut_is_there_as_far_as_it_came() -> None:
    answer = HERMES.calls_text(CALLS)
    for end in range(len(answer)):
        _, calls, n_complete = read(HERMES, [answer[:end]])
        assert n_complete <= len(calls) <= 2
        for name, arguments in calls:
            assert name in ("get_weather", "now")
            assert '{"city": "Paris"}'.startswith(arguments) or arguments == "{}"
    assert read(HERMES, ["a <tool_c"]) == ("a <tool_c", [], 0)


def test_reading_takes_time_in_proportion_to_the_answer() -> None:
    """A megabyte in pieces of four characters: what is read twice takes minutes."""
    reader = ToolReader(HERMES)
    text = "<tool_cal " * 100_000
    said = "".join(
        part.text for i in range(0, len(text), 4) for part in reader.push(text[i : i + 4]) if isinstance(part, Said)
    )
    assert said == text
    list(reader.push('<tool_call>\n{"name": "f", "arguments": {"a": "'))
    for _ in range(250_000):
        list(reader.push("abc{"))
    assert [part.arguments for part in reader.push('"}}')][-1:] == ['"}']  # type: ignore[union-attr]
