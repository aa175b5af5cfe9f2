"""Answers keep to their grammar whatever the model wants, and a grammar from a stranger costs nobody else anything."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatwright.engine.grammar import Constraint, GrammarCompiler, GrammarFailedError
from chatwright.engine.load import load_text_model
from chatwright.engine.opened import open_model
from chatwright.engine.process.link import COMMAND, Launch
from chatwright.engine.process.memory import MemoryBudget, MemoryNeed
from chatwright.engine.process.supervised import ProcessEngine
from chatwright.engine.protocol import FinishEvent, GenerateRequest, Grammar, SamplingParams, TokenEvent
from chatwright.engine.text import TextDelta, TextFinish, TextModel, TextRequest
from chatwright.engine.tokenizers import load_model_tokenizer
from chatwright.errors import InvalidRequestError
from chatwright.settings import Settings
from chatwright.tokenizer.tokenizer import Tokenizer
from tests.server.tiny import make_model_folder

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def schema(value: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_model_tokenizer(folder)


@pytest.fixture
async def model(folder: Path) -> AsyncIterator[TextModel]:
    model = load_text_model(folder, "tiny", Settings(threads=1, device="cpu", max_batch=4))
    yield model
    await model.close()


@pytest.fixture
def compiler(tokenizer: Tokenizer) -> Any:
    compiler = GrammarCompiler(lambda: tokenizer)
    yield compiler
    compiler.close()


async def answers(model: TextModel, grammar: Grammar | None, *, n: int = 1, **sampling: Any) -> list[tuple[str, str]]:
    """(text, reason) of each choice."""
    ids = await model.encode("The")
    texts, reasons = [""] * n, [""] * n
    request = TextRequest(ids, SamplingParams(**{"max_tokens": 120, **sampling}), n=n, grammar=grammar)
    async for event in model.generate(request):
        if isinstance(event, TextDelta):
            texts[event.index] += event.text
        elif isinstance(event, TextFinish):
            reasons[event.index] = event.reason
    return list(zip(texts, reasons, strict=True))


async def test_every_choice_of_every_seed_fits_the_schema(model: TextModel) -> None:
    found = await answers(model, schema(PERSON), n=8, seed=1, temperature=1.5)
    assert len({text for text, _ in found}) > 1
    for text, reason in found:
        assert reason == "stop", text
        person = json.loads(text)
        assert list(person) == ["name", "age"]
        assert 0 <= person["age"] <= 150
        assert len(person["name"]) <= 12
    (greedy, _), *_ = await answers(model, schema(PERSON), temperature=0)
    json.loads(greedy)


async def test_a_regex_and_a_lark_grammar_hold_too(model: TextModel) -> None:
    for text, reason in await answers(model, Grammar("regex", "[a-c]{3}-[0-9]{2}"), n=4, seed=3):
        assert re.fullmatch("[a-c]{3}-[0-9]{2}", text), text
        assert reason == "stop"
    for text, _ in await answers(model, Grammar("lark", 'start: "yes" | "no"'), n=4, seed=3):
        assert text in ("yes", "no")


async def test_an_answer_may_go_on_where_the_grammar_lets_it_and_end_where_it_may(model: TextModel) -> None:
    """`a+` is never complete for sure: the model ends it, and only after the first a."""
    found = await answers(model, Grammar("regex", "(cat )+"), n=16, seed=5, temperature=2, max_tokens=40)
    assert all(re.fullmatch("(cat )+", text) for text, reason in found if reason == "stop")
    assert any(reason == "stop" for _, reason in found)
    assert all("cat cat cat".startswith(text[:11]) for text, _ in found)


async def test_max_tokens_cuts_an_answer(model: TextModel) -> None:
    ((text, reason),) = await answers(model, schema(PERSON), max_tokens=3)
    assert reason == "length"
    assert '{"name'.startswith(re.sub(r"\s", "", text)[:3])


async def test_complete_at_the_last_token_is_complete(model: TextModel) -> None:
    n_tokens = len(await model.encode("cat"))
    grammar = Grammar("lark", 'start: "cat"')
    assert await answers(model, grammar, max_tokens=n_tokens) == [("cat", "stop")]


async def test_tokens_depend_on_nobody_else(model: TextModel) -> None:
    """Alone, among others, as one of several choices, and after preemption: the seed decides."""
    alone = [await answers(model, schema(PERSON), n=1, seed=seed) for seed in range(4)]
    together = await asyncio.gather(*(answers(model, schema(PERSON), n=3, seed=seed) for seed in range(4)))
    assert [choices[0] for choices in together] == [choices[0] for choices in alone]


async def test_preemption_loses_nothing(folder: Path, model: TextModel) -> None:
    small = load_text_model(folder, "tiny", Settings(threads=1, device="cpu", max_batch=4, kv_cache_tokens=256))
    text = schema({"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 4, "maxItems": 4})
    try:
        crowded = await asyncio.gather(*(answers(small, text, n=2, seed=seed, max_tokens=100) for seed in range(3)))
        assert small.engine.stats().preemptions > 0
    finally:
        await small.close()
    calm = [await answers(model, text, n=2, seed=seed, max_tokens=100) for seed in range(3)]
    assert crowded == calm


async def test_logprobs_stay_those_of_the_model(model: TextModel) -> None:
    """The mask decides what comes, not what the model thought of it."""
    ids = await model.encode("The")
    sampling = SamplingParams(max_tokens=1, temperature=0, logprobs=5)

    async def first(grammar: Grammar | None) -> TokenEvent:
        async for event in model.engine.generate(GenerateRequest(str(grammar), ids, sampling, grammar=grammar)):
            if isinstance(event, TokenEvent):
                return event
        raise AssertionError("no token")

    free, held = await first(None), await first(schema(PERSON))
    assert free.scores is not None
    assert held.scores is not None
    assert held.scores.top == free.scores.top
    assert held.scores.logprob < held.scores.top[0][1]


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (schema({"type": "strin"}), "strin"),
        (schema({"not": {}, "type": "string"}), "not"),
        (schema({"type": "array", "uniqueItems": True}), "uniqueItems"),
        (schema({"type": "string", "pattern": "("}), "unclosed"),
        (schema({"type": "string", "pattern": "(?=a)b"}), "look"),
        (schema({"$ref": "#"}), "nothing matches"),
        (schema({"$ref": "#/$defs/missing"}), "missing"),
        (schema({"$ref": "http://127.0.0.1:1/schema"}), "127.0.0.1"),
        (schema({"type": "object", "properties": {"a": False}, "required": ["a"]}), "nsatisfiable"),
        (Grammar("json_schema", "[1]"), "object"),
        (Grammar("json_schema", '{"type":'), "EOF"),
        (Grammar("json_schema", '{"items":' * 1000 + "{}" + "}" * 1000), "recursion limit"),
        (schema({"enum": [f"value {i}" for i in range(100_000)]}), "larger than 256 KiB"),
        (Grammar("regex", "(" * 10_000 + ")" * 10_000), "invalid regex"),
        (Grammar("lark", "start: " + "(" * 50_000 + '"a"' + ")" * 50_000), "nested"),
        (Grammar("lark", "start: missing"), "missing"),
    ],
)
async def test_a_grammar_that_is_none_is_refused_with_the_reason(
    compiler: GrammarCompiler, grammar: Grammar, reason: str
) -> None:
    for _ in range(2):  # the second time from memory
        with pytest.raises(InvalidRequestError, match=reason) as caught:
            await compiler.constraints(grammar, 1)
        assert caught.value.code == "invalid_grammar"


HOSTILE = {
    "(a+)+b": {"type": "string", "pattern": "^(a+)+b$"},
    "(a|b)*a(a|b){300}": {"type": "string", "pattern": "^((a|b)*a(a|b){300})$"},
    "a{1000}{1000}": {"type": "string", "pattern": "^((a{1000}){1000})$"},
    "late a{1000}{1000}": {"type": "string", "pattern": "^[^a]{20,40}((a{1000}){1000})$"},
    "large remainders": {"type": "object", "properties": {f"p{i}": {"multipleOf": 1000 + i} for i in range(1000)}},
    "a large remainder": {"type": "integer", "multipleOf": 1_000_003},
    "optional properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(4000)}},
    "intersections": {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(20)]},
    "a web of references": {
        "$defs": {
            f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}, {"items": {"$ref": "#/$defs/a0"}}]} for i in range(40)
        }
        | {"a40": {"type": "null"}},
        "$ref": "#/$defs/a0",
    },
    "many items": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    "a long text": {"type": "string", "minLength": 10**9},
    "a large number": {"type": "integer", "minimum": -1e300, "maximum": 1e300},
    "an enum": {"enum": [f"value number {i}" for i in range(9000)]},
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_schema_works_or_is_refused_and_delays_nobody(model: TextModel, name: str) -> None:
    """Meanwhile another answer comes as it always does; the grammar's own answer may fail, in its own time."""
    await answers(model, schema(PERSON))  # whatever is built once is built
    steps: list[float] = []

    async def bystander() -> None:
        ids = await model.encode("The")
        sampling = SamplingParams(max_tokens=400, temperature=0, stop_ids=frozenset())
        last = time.perf_counter()
        async for _ in model.engine.generate(GenerateRequest("bystander", ids, sampling)):
            steps.append(time.perf_counter() - last)
            last = time.perf_counter()

    async def attack() -> None:
        with suppress(InvalidRequestError):
            await answers(model, schema(HOSTILE[name]), n=2, seed=0, max_tokens=60)

    started = time.perf_counter()
    await asyncio.gather(bystander(), attack())
    assert time.perf_counter() - started < 30
    assert len(steps) >= 100
    # A step of the tiny model takes a millisecond or two. Others share the machine with the tests, so single steps prove
    # nothing; 99 of 100 do.
    assert sorted(steps)[int(len(steps) * 0.99)] < 0.25, name


async def test_a_used_up_lexer_spoils_no_other_answer(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """Copies share a lexer, whose states are counted: one answer may use them all, the next gets fresh ones."""
    grammar = schema({"type": "string", "maxLength": 100_000})

    def follow(constraint: Constraint, text: str) -> int:
        logits = np.zeros(tokenizer.vocab_size, dtype=np.float32)
        ids = tokenizer.encode(text)
        for n, token_id in enumerate(ids):
            try:
                assert np.isfinite(constraint.mask(logits)[token_id])
                constraint.advance(token_id)
            except GrammarFailedError:
                return n
        return len(ids)

    long = '"' + "The cat sat on the mat, and the dog did not. " * 400
    (first,) = await compiler.constraints(grammar, 1)
    reached = follow(first, long)
    (second,) = await compiler.constraints(grammar, 1)
    assert follow(second, long) == reached, "as far as the first, though the first has used the states up"
    (third,) = await compiler.constraints(grammar, 1)
    assert follow(third, '"' + "Another text altogether: 12, 13, 14. " * 20) > 100


async def test_one_slow_step_is_forgiven_and_a_second_is_not(
    compiler: GrammarCompiler, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine makes a harmless step slow once; what is slow again would hold up everybody."""
    monkeypatch.setattr("chatwright.engine.grammar.SLOW_STEP_S", -1.0)
    (constraint,) = await compiler.constraints(Grammar("regex", "a+"), 1)
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    assert np.isfinite(constraint.mask(logits)).any()
    with pytest.raises(GrammarFailedError, match="too long to follow"):
        constraint.mask(logits)


async def test_the_cache_is_bounded(compiler: GrammarCompiler) -> None:
    for i in range(80):
        await compiler.constraints(Grammar("regex", f"a{{{i + 1}}}"), 1)
    assert len(compiler._cache) == 32


async def test_an_engine_that_died_or_closed_leaves_no_process(folder: Path) -> None:
    model = load_text_model(folder, "tiny", Settings(threads=1, device="cpu"))
    await answers(model, schema(PERSON))
    process = model.engine._grammars._worker.process  # type: ignore[attr-defined]
    assert process.poll() is None
    await model.close()
    assert process.poll() is not None


async def test_grammars_cross_to_the_process_of_an_engine_and_die_with_it(folder: Path) -> None:
    settings = Settings(threads=1, device="cpu")
    opened = open_model(folder, "tiny", settings)
    engine = ProcessEngine(
        Launch(folder, "tiny", settings, command=COMMAND),
        max_context=512,
        need=MemoryNeed.of(opened.info, settings),
        budget=MemoryBudget(10**12, firm=False),
    )
    model = opened.with_engine(engine)
    try:
        for text, reason in await answers(model, schema(PERSON), n=2):
            assert reason == "stop"
            json.loads(text)
        with pytest.raises(InvalidRequestError, match="uniqueItems") as caught:
            await answers(model, schema({"uniqueItems": True}))
        assert caught.value.code == "invalid_grammar"
        (child,) = (p for p in psutil.Process().children() if "chatwright.engine.process.child" in p.cmdline())
        (worker,) = (p for p in child.children() if any("grammar_worker" in word for word in p.cmdline()))
        child.kill()
        worker.wait(30)
    finally:
        await model.close()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYWORDS = st.sampled_from(
    """type properties required items prefixItems minItems maxItems enum const anyOf allOf oneOf pattern format minLength maxLength
    minimum maximum multipleOf additionalProperties not $ref $defs x-guidance""".split()  # noqa: SIM905
)
SCHEMAS = st.recursive(
    JSON_VALUES | st.sampled_from(["string", "object", "array", "integer", "#", "#/$defs/a", "^a+$", "date"]),
    lambda inner: st.dictionaries(KEYWORDS, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)


def test_whatever_is_sent_as_a_schema_compiles_or_is_refused(tokenizer: Tokenizer) -> None:
    compiler = GrammarCompiler(lambda: tokenizer)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(KEYWORDS, SCHEMAS, max_size=5))
    def compiles_or_is_refused(value: Any) -> None:
        try:
            (constraint,) = asyncio.run(compiler.constraints(schema(value), 1))
            constraint.mask(np.zeros(tokenizer.vocab_size, dtype=np.float32))
        except InvalidRequestError:
            pass

    try:
        compiles_or_is_refused()
        process = compiler._worker.process
        assert process is not None
        assert process.poll() is None, "no schema has ended the child"
    finally:
        compiler.close()


async def test_finish_events_say_that_a_grammar_came_to_its_limits(model: TextModel) -> None:
    """Only that choice ends; the reason is the request's own."""
    late = schema({"type": "string", "pattern": "^[^ ]{60,61}((a{1000}){1000})$"})
    ids = await model.encode("The")
    events = []
    try:
        async for event in model.engine.generate(
            GenerateRequest("late", ids, SamplingParams(max_tokens=300, seed=1), grammar=late)
        ):
            events.append(event)
    except InvalidRequestError:
        pytest.fail("the trial has found it; choose a later one")
    finish = events[-1]
    assert isinstance(finish, FinishEvent)
    assert finish.reason == "grammar"
    assert finish.error
    assert (await answers(model, schema(PERSON)))[0][1] == "stop"
