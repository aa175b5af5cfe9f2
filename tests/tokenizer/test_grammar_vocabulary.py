"""Every kind of tokenizer can hold a model to a grammar, and what a grammar forces is cut into tokens as in training."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from chatwright.engine.grammar import GrammarCompiler
from chatwright.engine.protocol import Grammar
from chatwright.engine.vocabulary import Vocabulary
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.tokenizer.train import train_tokenizer
from tests.tokenizer.conftest import CORPUS, MAKERS, Reference

SCHEMA = {
    "type": "object",
    "properties": {"greeting": {"type": "string", "maxLength": 12}, "kind": {"enum": ["你好 world", "<tool_call> é"]}},
    "required": ["greeting", "kind"],
    "additionalProperties": False,
}


def walk(tokenizer: Tokenizer, grammar: Grammar, seed: int) -> list[int]:
    """Ids of an answer of a model that wants anything."""

    async def walk() -> list[int]:
        compiler = GrammarCompiler(lambda: tokenizer)
        try:
            (constraint,) = await compiler.constraints(grammar, 1)
        finally:
            compiler.close()
        chance = np.random.default_rng(seed)
        ids: list[int] = []
        while len(ids) < 300:
            # A model has more rows than its tokenizer has tokens.
            logits = constraint.mask(chance.normal(size=tokenizer.vocab_size + 13).astype(np.float32))
            assert np.isneginf(logits[tokenizer.vocab_size :]).all()
            token_id = int(logits.argmax())
            if token_id in tokenizer.eos_ids:
                return ids
            ids.append(token_id)
            if constraint.advance(token_id):
                return ids
        raise AssertionError("no end")

    return asyncio.run(walk())


def check(tokenizer: Tokenizer) -> None:
    for seed in range(3):
        ids = walk(tokenizer, Grammar("json_schema", json.dumps(SCHEMA)), seed)
        assert not set(ids) & tokenizer.hidden_ids
        value: Any = json.loads(tokenizer.decode(ids, continuing=True))
        assert list(value) == ["greeting", "kind"]
        assert value["kind"] in SCHEMA["properties"]["kind"]["enum"]  # type: ignore[index]
    vocabulary = Vocabulary(tokenizer)
    vocabulary.for_llguidance()
    forced = '{"name": "get_weather", "arguments": {"城市": "'
    assert tokenizer.decode(vocabulary(forced.encode()), continuing=True) == forced
    # Letter and accent apart, which a normaliser would join: the grammar asks for these bytes.
    apart = Grammar("lark", 'start: "e\u0301 \u1100\u1161"')
    assert tokenizer.decode(walk(tokenizer, apart, 0), continuing=True) == "e\u0301 \u1100\u1161"
    ids = walk(tokenizer, Grammar("lark", f"start: {json.dumps(forced, ensure_ascii=False)}"), 0)
    assert tokenizer.decode(ids, continuing=True) == forced


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_tokenizer(references: dict[str, Reference], kind: str) -> None:
    reference = references[kind]
    check(load_tokenizer(reference.folder))


def test_one_from_a_gguf_file_and_one_trained_here(references: dict[str, Reference], tmp_path: Any) -> None:
    check(load_tokenizer(tmp_path, references["smollm"].gguf_metadata()))
    check(train_tokenizer(CORPUS, 400).tokenizer)


def test_a_forced_call_begins_with_the_token_that_the_model_knows(references: dict[str, Reference]) -> None:
    """`<tool_call>` is one control token to Qwen's models, though in a prompt nobody can write it."""
    tokenizer = load_tokenizer(references["qwen2"].folder)
    ids = walk(tokenizer, Grammar("lark", 'start: "<tool_call>\\n{}\\n</tool_call>"'), 0)
    assert ids[0] == tokenizer.special_ids["<tool_call>"]
    assert ids[-1] == tokenizer.special_ids["</tool_call>"]
    assert tokenizer.special_ids["<tool_call>"] not in tokenizer.encode("<tool_call>")
