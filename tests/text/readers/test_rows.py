"""Rows in every chat, preference and label format are recognised, named, and skipped with a reason where they teach nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatwright.text.reasons import shown
from tests.text.readers.helpers import dialogue, one, read_data, reasons, texts

Q, A = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}
QA = [("user", "Where?"), ("assistant", "There.")]


def rows(path: Path, *values: Any) -> Any:
    """The records and skipped of a jsonl file with these rows."""
    return read_data(path / "a.jsonl", "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


@pytest.mark.parametrize(
    ("row", "detected"),
    [
        ({"messages": [Q, A]}, "openai-messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Where?"}]}, A]}, "openai-messages"),
        ([Q, A], "openai-messages"),
        ({"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]}, "sharegpt"),
        ({"conversations": [Q, A]}, "openai-messages"),
        ({"conversation": [{"input": "Where?", "output": "There."}]}, "xtuner"),
        ({"conversations": ["Where?", "There."]}, "list of turns"),
        ({"dialog": ["Where?", "There."]}, "list of turns"),
        ({"instruction": "Where?", "input": "", "output": "There."}, "alpaca"),
        ({"instruction": "Where?", "output": "There."}, "alpaca"),
        ({"prompt": "Where?", "completion": "There."}, "prompt-completion"),
        ({"prompt": [Q], "completion": [A]}, "prompt-completion"),
        ({"question": "Where?", "answer": "There."}, "columns 'question' and 'answer'"),
        ({"Question": "Where?", "Answer": "There."}, "columns 'question' and 'answer'"),
        ({"问题": "Where?", "答案": "There."}, "columns '问题' and '答案'"),
        ({"prompt": "Where?", "completion": "There.", "label": True}, "kto"),
    ],
)
def test_conversations_of_every_format(tmp_path: Path, row: Any, detected: str) -> None:
    record = one(*rows(tmp_path, row))
    assert (record.kind, dialogue(record), record.detected) == ("conversations", QA, detected)


def test_system_prompts_history_and_input_find_their_place(tmp_path: Path) -> None:
    row = {
        "instruction": "Translate.",
        "input": "灯",
        "output": "lamp",
        "system": "Be brief.",
        "history": [["Hi", "Hello"]],
    }
    assert dialogue(one(*rows(tmp_path, row))) == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Translate.\n\n灯"),
        ("assistant", "lamp"),
    ]
    row = {"instruction": "Sort.", "input": ["b", "a"], "output": "a, b"}
    assert dialogue(one(*rows(tmp_path, row)))[0] == ("user", "Sort.\n\nb\na")
    row = {"system": "Be brief.", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}
    assert dialogue(one(*rows(tmp_path, row)))[0] == ("system", "Be brief.")


def test_weights_and_tools_are_kept(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    tool = {"type": "function", "function": {"name": "clock", "parameters": {}}}
    messages = [
        Q,
        A | {"weight": 0},
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
        {"role": "assistant", "content": "Noon.", "weight": 1},
    ]
    record = one(*rows(tmp_path, {"messages": messages, "tools": [tool]}))
    assert record.payload["tools"] == [tool]
    assert record.payload["messages"][1]["weight"] == 0
    assert record.payload["messages"][3] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert record.payload["messages"][4]["tool_call_id"] == "1"


def test_sharegpt_function_calls_become_tool_calls(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "Time?"},
        {"from": "function_call", "value": '{"name": "clock", "arguments": {"zone": "UTC"}}'},
        {"from": "observation", "value": "noon"},
        {"from": "gpt", "value": "Noon."},
    ]
    record = one(*rows(tmp_path, {"conversations": turns, "tools": '[{"name": "clock"}]'}))
    assert [role for role, _content in dialogue(record)] == ["user", "assistant", "tool", "assistant"]
    assert record.payload["messages"][1]["tool_calls"][0]["function"] == {"name": "clock", "arguments": {"zone": "UTC"}}
    assert record.payload["tools"] == [{"type": "function", "function": {"name": "clock"}}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "no assistant turn"),
        ({"messages": [Q]}, "no assistant turn"),
        ({"messages": [A]}, "no user turn"),
        ({"messages": [Q, A | {"weight": 0}]}, "no assistant turn"),
        ({"messages": [Q, A | {"content": " \n"}]}, "empty assistant turn"),
        ({"messages": [Q, A | {"content": None}]}, "empty assistant turn"),
        ({"messages": [Q, A, Q, A | {"content": ""}]}, "empty assistant turn"),
        ({"messages": [Q | {"role": "narrator"}, A]}, "unknown role"),
        ({"messages": [Q | {"content": 7}, A]}, "not text"),
        ({"messages": [Q | {"content": [{"type": "image_url", "image_url": {}}]}, A]}, "not text"),
        ({"messages": [Q | {"weight": 7}, A]}, "bad row"),
        ({"messages": ["Where?", "There."]}, "bad row"),
        ({"conversations": [{"from": "human", "value": "Where?"}]}, "no assistant turn"),
        ({"conversations": []}, "no assistant turn"),
        ({"prompt": "Where?", "completion": ""}, "empty assistant turn"),
        ({"prompt": "", "completion": "There."}, "no user turn"),
        ({"instruction": "Where?", "output": ""}, "empty assistant turn"),
        ({"instruction": "", "output": "There."}, "no user turn"),
        ({"instruction": "Where?", "output": 7}, "not text"),
        ({"instruction": "Sort.", "input": {"a": "b"}, "output": "a"}, "not text"),
        ({"instruction": "Sort.", "input": ["b", 7], "output": "a"}, "not text"),
        ({"instruction": "Square it.", "input": 5, "output": "25"}, "not text"),
        ({"instruction": "Where?", "output": "There.", "history": ["x"]}, "bad row"),
        ({"prompt": "Where?", "chosen": "There.", "rejected": "There. "}, "chosen equals rejected"),
        ({"prompt": "Where?", "chosen": "There.", "rejected": ""}, "empty assistant turn"),
        ({"chosen": "There.", "rejected": "Here."}, "no user turn"),
        ({"prompt": "Where?", "chosen": [Q], "rejected": [A]}, "no assistant turn"),
        ({"input": {}, "preferred_output": [A], "non_preferred_output": [A]}, "bad row"),
        ({"prompt": "Where?", "completion": "There.", "label": False}, "unwanted answer"),
        ({"text": ""}, "empty text"),
        ({"text": None}, "empty text"),
        ({"text": 5}, "not text"),
        ({"text": "x", "label": None}, "no label"),
        ({"text": "x", "label": ["a", "b"]}, "several labels"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "bad row"),
        ({"tokens": ["a"], "tags": [3]}, "bad tags"),
        ({"tokens": ["a"], "tags": ["Q-X"]}, "bad tags"),
        ({"tokens": [""], "tags": ["O"]}, "empty text"),
        ({"text": "abc", "spans": [[0, 9, "X"]]}, "bad spans"),
        ({"text": "abc", "spans": [[2, 1, "X"]]}, "bad spans"),
        ({"text": "abc", "spans": [[0, 2, "X"], [1, 3, "Y"]]}, "bad spans"),
        ({"text": "abc", "entities": [{"start": 0, "end": 1, "label": "X", "text": "c"}]}, "bad spans"),
        ({"url": "http://a", "n": 3}, "unknown shape"),
        ({}, "empty text"),
        (7, "bad row"),
        (None, "bad row"),
        ([], "no assistant turn"),
        ("", "empty text"),
    ],
)
def test_rows_that_teach_nothing_are_named_and_the_rest_goes_on(tmp_path: Path, row: Any, reason: str) -> None:
    records, skipped = rows(tmp_path, row, {"text": "good"})
    assert texts(records) == ["good"]
    assert [(entry.where, entry.reason) for entry in skipped] == [("line 1", reason)]


class TestPreferences:
    @pytest.mark.parametrize(
        ("row", "detected"),
        [
            (
                {"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [A | {"content": "Here."}]},
                "openai-preference",
            ),
            ({"prompt": "Where?", "chosen": "There.", "rejected": "Here."}, "trl-preference"),
            ({"question": "Where?", "chosen": "There.", "rejected": "Here."}, "trl-preference"),
            ({"prompt": [Q], "chosen": [A], "rejected": [A | {"content": "Here."}]}, "trl-preference"),
            ({"chosen": [Q, A], "rejected": [Q, A | {"content": "Here."}]}, "trl-preference"),
            ({"prompt": [Q], "chosen": [Q, A], "rejected": [Q, A | {"content": "Here."}]}, "trl-preference"),
            ({"prompt": "Where?", "chosen": [Q, A], "rejected": [Q, A | {"content": "Here."}]}, "trl-preference"),
            ({"instruction": "Where?", "input": "", "chosen": "There.", "rejected": "Here."}, "alpaca-preference"),
            (
                {
                    "conversations": [{"from": "human", "value": "Where?"}],
                    "chosen": {"from": "gpt", "value": "There."},
                    "rejected": {"from": "gpt", "value": "Here."},
                },
                "sharegpt-preference",
            ),
            (
                {"chosen": "\n\nHuman: Where?\n\nAssistant: There.", "rejected": "\n\nHuman: Where?\n\nAssistant: Here."},
                "trl-preference",
            ),
        ],
    )  # fmt: skip
    def test_every_form_gives_a_prompt_and_two_answers(self, tmp_path: Path, row: Any, detected: str) -> None:
        record = one(*rows(tmp_path, row))
        assert (record.kind, record.detected) == ("preferences", detected)
        assert record.payload == {"messages": [Q], "chosen": [A], "rejected": [A | {"content": "Here."}]}


class TestLabels:
    @pytest.mark.parametrize(
        ("row", "label"),
        [
            ({"text": "Good.", "label": "pos"}, "pos"),
            ({"text": "Good.", "label": 1}, "1"),
            ({"text": "Good.", "label": 1.0}, "1"),
            ({"text": "Good.", "labels": ["pos"]}, "pos"),
            ({"sentence": "Good.", "sentiment": "pos", "id": 3}, "pos"),
            ({"id": 1, "text": "Good.", "category": "pos"}, "pos"),
            ({"内容": "Good.", "标签": "pos"}, "pos"),
        ],
    )
    def test_labelled_texts(self, tmp_path: Path, row: Any, label: str) -> None:
        record = one(*rows(tmp_path, row))
        assert (record.kind, record.payload) == ("labelled", {"text": "Good.", "label": label})

    def test_a_category_beside_other_fields_does_not_make_a_document_an_example(self, tmp_path: Path) -> None:
        records, _skipped = rows(tmp_path, {"text": "Long.", "category": "news", "url": "http://a"})
        assert [record.kind for record in records] == ["documents"]

    @pytest.mark.parametrize(
        "tags",
        [
            ["B-PER", "I-PER", "O", "O", "B-LOC", "O"],
            ["I-PER", "I-PER", "O", "O", "I-LOC", "O"],
            ["B-PER", "E-PER", "O", "O", "S-LOC", "O"],
            ["B-PER", "L-PER", "O", "O", "U-LOC", "O"],
        ],
    )
    def test_tagged_tokens_in_any_scheme(self, tmp_path: Path, tags: list[str]) -> None:
        record = one(*rows(tmp_path, {"tokens": ["Ada", "Lovelace", "lived", "in", "London", "."], "ner_tags": tags}))
        text = record.payload["text"]
        assert text == "Ada Lovelace lived in London."
        assert [(text[span["start"] : span["end"]], span["label"]) for span in record.payload["spans"]] == [
            ("Ada Lovelace", "PER"),
            ("London", "LOC"),
        ]

    def test_neighbouring_entities_stay_two(self, tmp_path: Path) -> None:
        record = one(*rows(tmp_path, {"tokens": list("张三李四"), "tags": ["B-PER", "I-PER", "B-PER", "I-PER"]}))
        assert record.payload["text"] == "张三李四"
        assert [(span["start"], span["end"]) for span in record.payload["spans"]] == [(0, 2), (2, 4)]

    @pytest.mark.parametrize(
        "row",
        [
            {"text": "Ada in 伦敦", "spans": [{"start": 0, "end": 3, "label": "PER"}, {"start": 7, "end": 9, "label": "LOC"}]},
            {"text": "Ada in 伦敦", "entities": [[7, 9, "LOC"], [0, 3, "PER"]]},
            {"text": "Ada in 伦敦", "label": [[0, 3, "PER"], [7, 9, "LOC"]]},
            {"text": "Ada in 伦敦", "entities": [{"start_offset": 0, "end_offset": 3, "type": "PER"}, [7, 9, "LOC"]]},
        ],
    )  # fmt: skip
    def test_spans_in_any_form(self, tmp_path: Path, row: Any) -> None:
        record = one(*rows(tmp_path, row))
        expected = [{"start": 0, "end": 3, "label": "PER"}, {"start": 7, "end": 9, "label": "LOC"}]
        assert (record.kind, record.payload) == ("tagged", {"text": "Ada in 伦敦", "spans": expected})

    @pytest.mark.parametrize("name", ["a.conll", "train.txt", "dev"])
    def test_conll_files_are_recognised_under_any_name(self, tmp_path: Path, name: str) -> None:
        data = "-DOCSTART- -X- O O\n\nAda NNP B-NP B-PER\nsings VBZ B-VP O\n\n张 B-PER\n三 I-PER\n唱 O\n"
        records, skipped = read_data(tmp_path / name, data)
        assert skipped == []
        assert texts(records) == ["Ada sings", "张三唱"]
        assert [record.payload["spans"][0]["end"] for record in records] == [3, 2]
        assert [record.where for record in records] == ["line 3", "line 6"]

    def test_a_line_without_a_tag_costs_its_sentence_only(self, tmp_path: Path) -> None:
        records, skipped = read_data(tmp_path / "a.conll", "Ada B-PER\nsings\n\nBob B-PER\n")
        assert texts(records) == ["Bob"]
        assert [(entry.where, entry.reason) for entry in skipped] == [("line 1", "bad tags")]


class TestJson:
    def test_a_bad_line_is_named_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        data = '{"text": "one"}\n\n{"text": broken}\n{"text": "two"}\n{"text": "cut'
        records, skipped = read_data(tmp_path / "a.jsonl", data)
        assert texts(records) == ["one", "two"]
        assert [(entry.source, entry.where, entry.reason) for entry in skipped] == [
            ("a.jsonl", "line 3", "bad row"),
            ("a.jsonl", "line 5", "bad row"),
        ]

    @pytest.mark.parametrize(
        "data",
        [
            "[" * 100_000,
            '{"a":' * 100_000,
            '{"text": "a", "text": "b"}',
            '{"text": 1e99999}',
            '{"n": ' + "9" * 10_000 + "}",
        ],
    )
    def test_monsters_are_rows_like_any_other_bad_one(self, tmp_path: Path, data: str) -> None:
        for name in ("a.jsonl", "a.json"):
            records, skipped = read_data(tmp_path / name, data + "\n" + '{"text": "good"}\n')
            if name == "a.jsonl":
                assert texts(records) == ["good"]
            assert skipped

    @pytest.mark.parametrize("more", ["", ', "n": NaN'])
    def test_a_key_twice_is_said_in_the_language_of_the_user(self, tmp_path: Path, more: str) -> None:
        _records, (entry,) = read_data(tmp_path / "a.jsonl", '{"text": "a", "text": "b"' + more + "}\n")
        assert (entry.reason, entry.detail) == ("bad row", "the key 'text' twice in one object")
        assert shown(entry.detail, "zh") == "同一对象中键 'text' 出现了两次"

    def test_nan_and_lone_surrogates_do_not_cost_a_row(self, tmp_path: Path) -> None:
        records, skipped = read_data(tmp_path / "a.jsonl", '{"text": "a", "n": NaN}\n{"text": "b\\ud800"}\n')
        assert (texts(records), skipped) == (["a", "b\ufffd"], [])
        assert [record.n_undecodable for record in records] == [0, 1]

    @pytest.mark.parametrize("indent", [None, 2])
    @pytest.mark.parametrize("limit", [40, 1 << 20])
    def test_arrays_are_read_element_by_element(self, tmp_path: Path, indent: int | None, limit: int) -> None:
        values = [{"text": f'{number} "q\\" ] }} {{ [' + "字" * number} for number in range(50)]
        data = json.dumps([*values, 7, None, "bare"], indent=indent, ensure_ascii=False)
        records, skipped = read_data(tmp_path / "a.json", data, max_line_bytes=limit)
        if limit > 100:
            assert texts(records) == [value["text"] for value in values] + ["bare"]
            assert reasons(skipped) == ["bad row", "bad row"]
        else:
            assert len(records) + len(skipped) == 53
            assert "too long" in reasons(skipped)

    def test_an_array_of_many_blocks(self, tmp_path: Path) -> None:
        values = [{"text": f"{number}" + '\\"' * (number % 7) + "x" * (number * 37 % 5000)} for number in range(2000)]
        records, skipped = read_data(tmp_path / "a.json", json.dumps(values, indent=1))
        assert skipped == []
        assert texts(records) == [value["text"] for value in values]

    def test_an_element_longer_than_a_block_is_skipped_in_flat_memory(self, tmp_path: Path) -> None:
        for huge in ("x" * 5_000_000, '\\"' * 2_500_000, ["y" * 100] * 50_000):
            data = json.dumps([{"text": "a"}, {"text": huge}, {"text": "b"}])
            records, skipped = read_data(tmp_path / "a.json", data, max_line_bytes=100_000)
            assert (texts(records), reasons(skipped)) == (["a", "b"], ["too long"])

    @pytest.mark.parametrize(
        "data", ['[{"text": "a"}', '[{"text": "a"}, {"te', '[{"text": "a"}] trailing {', '[{"text": "a"}]]']
    )
    def test_a_cut_off_array_gives_what_it_has_and_says_so(self, tmp_path: Path, data: str) -> None:
        records, skipped = read_data(tmp_path / "a.json", data)
        assert (texts(records), reasons(skipped)) == (["a"], ["bad json"])

    def test_one_object_and_an_object_around_an_array(self, tmp_path: Path) -> None:
        assert texts(read_data(tmp_path / "a.json", '{"text": "a"}')[0]) == ["a"]
        assert texts(read_data(tmp_path / "a.json", '{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}')[0]) == [
            "a",
            "b",
        ]

    @pytest.mark.parametrize(
        "row",
        [
            {"messages": [Q, A]},
            {"id": 7, "sender": 12, "conversations": [Q, A]},
            [Q, A],
            {"instruction": "Where?", "input": "", "output": "There."},
            {"question": "Where?", "answer": "There."},
        ],
    )
    def test_an_object_whose_conversations_are_rows_holds_them_all(self, tmp_path: Path, row: Any) -> None:
        data = json.dumps({"version": 1, "conversations": [row, row, 7]})
        records, skipped = read_data(tmp_path / "a.json", data)
        assert [(record.where, dialogue(record)) for record in records] == [("row 1", QA), ("row 2", QA)]
        assert [(entry.where, entry.reason) for entry in skipped] == [("row 3", "bad row")]

    @pytest.mark.parametrize(
        "turns",
        [
            [Q, A],
            [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}],
            [{"speaker": "user", "text": "Where?"}, {"speaker": "bot", "text": "There."}],
            [{"input": "Where?", "output": "There."}],
            [["Where?", "There."]],
            ["Where?", "There."],
        ],
    )
    def test_an_object_whose_conversations_are_turns_is_one_row(self, tmp_path: Path, turns: Any) -> None:
        record = one(*read_data(tmp_path / "a.json", json.dumps({"version": 1, "conversations": turns})))
        assert (record.where, dialogue(record)) == ("", QA)

    def test_all_splits_inside_an_object_are_read(self, tmp_path: Path) -> None:
        data = '{"train": [{"text": "a"}, {"text": "b"}], "test": [{"text": "c"}, 7], "version": 1}'
        records, skipped = read_data(tmp_path / "a.json", data)
        assert [(record.where, record.payload["text"]) for record in records] == [
            ("train, row 1", "a"),
            ("train, row 2", "b"),
            ("test, row 1", "c"),
        ]
        assert [(entry.where, entry.reason) for entry in skipped] == [("test, row 2", "bad row")]

    def test_an_example_with_a_field_test_is_one_row(self, tmp_path: Path) -> None:
        records, _skipped = read_data(
            tmp_path / "a.json", '{"prompt": "Sum?", "completion": "a + b", "test": ["1 + 1"]}'
        )
        assert dialogue(records[0]) == [("user", "Sum?"), ("assistant", "a + b")]

    @pytest.mark.parametrize("name", ["train", "items"])
    def test_what_stands_beside_the_rows_inside_an_object_is_named(self, tmp_path: Path, name: str) -> None:
        data = json.dumps({"id": "x", name: [{"text": "a"}], "text": "Long.", "labels": ["pos"], "version": 1})
        records, skipped = read_data(tmp_path / "a.json", data)
        assert texts(records) == ["a"]
        assert [(entry.where, entry.reason, entry.detail) for entry in skipped] == [
            ("", "left out", "fields that are not read: text, labels")
        ]

    def test_json_lines_under_the_name_json(self, tmp_path: Path) -> None:
        assert texts(read_data(tmp_path / "a.json", '{"text": "a"}\n{"text": "b"}\n')[0]) == ["a", "b"]

    def test_poems_keep_their_title_and_lines(self, tmp_path: Path) -> None:
        (record,), _skipped = rows(
            tmp_path,
            {
                "author": "李白",
                "title": "静夜思",
                "paragraphs": ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。"],
            },
        )
        assert record.payload["text"] == "静夜思\n\n床前明月光，疑是地上霜。\n举头望明月，低头思故乡。"


class TestUnreadFields:
    """Fields with text that no row is read from are named, once for each file."""

    @pytest.mark.parametrize(
        ("row", "unread"),
        [
            (
                {"text": "Long.", "title": "T", "summary": "Short.", "id": "a7", "score": 0.5, "year": "1999"},
                "title, summary",
            ),
            ({"body": "Long.", "title": "T", "summary": "Short."}, "summary"),
            ({"prompt": "Why?", "completion": "So.", "system": "Be brief.", "note": "x"}, "note"),
            (
                {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "source": "x"},
                "source",
            ),
            ({"text": "Good.", "label": "pos", "comment": "really"}, "comment"),
            ({"prompt": "Why?", "chosen": "So.", "rejected": "No.", "tags": ["x"]}, "tags"),
            ({"Text": "Long.", "Author": {"name": "Ann"}}, "author"),
        ],
    )
    def test_are_named_once(self, tmp_path: Path, row: dict[str, Any], unread: str) -> None:
        records, skipped = rows(tmp_path, *[row] * 30)
        assert len(records) == 30
        assert [(entry.where, entry.reason, entry.detail) for entry in skipped] == [
            ("", "left out", f"fields that are not read: {unread}")
        ]

    @pytest.mark.parametrize(
        ("row", "unread"),
        [
            (
                {"messages": [Q, A | {"reasoning_content": "Hm.", "refusal": None, "audio": {"id": 1}}]},
                "reasoning_content",
            ),
            ({"messages": [Q | {"id": "x", "text": "Why?"}, A | {"refusal": "No."}]}, "text, messages.refusal"),
            ({"messages": [Q, A | {"name": "bot", "weight": 1}], "system": ""}, ""),
        ],
    )
    def test_of_messages(self, tmp_path: Path, row: dict[str, Any], unread: str) -> None:
        """Also where they come late: a refusal is rare."""
        records, skipped = rows(tmp_path, *[{"messages": [Q, A]}] * 30, row, row)
        assert len(records) == 32
        assert [(entry.where, entry.detail) for entry in skipped] == (
            [("", f"fields that are not read: messages.{unread}")] if unread else []
        )

    def test_of_messages_in_every_form(self, tmp_path: Path) -> None:
        note = {"note": "x"}
        _records, skipped = rows(
            tmp_path,
            [Q | {"bare": "x"}, A],
            {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"} | note]},
            {"conversation": [{"input": "Where?", "output": "There."} | note]},
            {"prompt": [Q], "chosen": A | note, "rejected": {"role": "assistant", "content": "Here."}},
            {
                "input": {"messages": [Q | note]},
                "preferred_output": [A],
                "non_preferred_output": [Q, A | {"content": "So."}],
            },
        )
        assert skipped[-1].detail == (
            "fields that are not read: bare, conversations.note, conversation.note, chosen.note, input.note"
        )

    def test_of_a_system_prompt_beside_another_one(self, tmp_path: Path) -> None:
        said = [{"role": "system", "content": "Be kind."}, Q, A]
        _records, (entry,) = rows(tmp_path, {"conversations": said, "system": "Be brief."})
        assert entry.detail == "fields that are not read: system"

    def test_are_found_behind_empty_ones(self, tmp_path: Path) -> None:
        _records, (entry,) = rows(
            tmp_path, {"text": "a", "note": None}, {"text": "b", "note": ""}, {"text": "c", "note": "x"}
        )
        assert entry.detail == "fields that are not read: note"

    def test_of_a_table_without_known_columns(self, tmp_path: Path) -> None:
        lines = [f"{n},{'A sentence of some length. ' * 4},Ann,{n / 7}" for n in range(5)]
        records, skipped = read_data(tmp_path / "a.csv", "\n".join(["no,what,who,rate", *lines]))
        assert len(records) == 5
        assert [entry.detail for entry in skipped] == ["fields that are not read: who"]
