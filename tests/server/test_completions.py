"""What every answer of /v1/completions keeps: streamed or not, with n, several prompts, echo, logprobs and best_of."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import openai
import pytest
from openai.types import Completion

from tests.server.harness import MODEL, RunningServer, assert_error, events_of
from tests.server.tiny import CONTEXT

PROMPTS = ["The capital of", "你好，", "Smile 🙂", "def add(a", "Привет"]
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": PROMPTS[0], "temperature": 0},
    "sampled": {"prompt": PROMPTS[1], "seed": 7, "max_tokens": 40},
    "n": {"prompt": PROMPTS[2], "seed": 3, "n": 3, "max_tokens": 24},
    "prompts": {"prompt": PROMPTS, "temperature": 0, "max_tokens": 24},
    "prompts and n": {"prompt": PROMPTS[:2], "seed": 11, "n": 2, "max_tokens": 24},
    "echo": {"prompt": PROMPTS[:2], "temperature": 0, "echo": True, "n": 2},
    "logprobs": {"prompt": PROMPTS[1], "seed": 5, "logprobs": 3, "max_tokens": 32},
    "echo and logprobs": {"prompt": PROMPTS[1:3], "seed": 5, "echo": True, "logprobs": 2, "n": 2},
    "only the prompt": {"prompt": PROMPTS[0], "echo": True, "logprobs": 1, "max_tokens": 0},
    "nothing": {"prompt": PROMPTS[0], "max_tokens": 0},
    "stop": {"prompt": PROMPTS[0], "seed": 2, "stop": [" P", "pital"], "max_tokens": 60, "n": 2, "logprobs": 0},
    "penalties": {
        "prompt": PROMPTS[0],
        "temperature": 0,
        "presence_penalty": 1.0,
        "frequency_penalty": 1.5,
        "repetition_penalty": 1.3,
        "logit_bias": {"5": 4, "300": -100},
        "max_tokens": 40,
    },
    "cut": {"prompt": PROMPTS[3], "seed": 9, "top_p": 0.7, "top_k": 20, "min_p": 0.02, "max_tokens": 40},
}


def joined(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The chunks of a stream put together, by choice."""
    choices: dict[int, dict[str, Any]] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        whole = choices.setdefault(choice["index"], {"text": "", "reasons": [], "logprobs": None})
        assert not whole["reasons"], "text after the end"
        whole["text"] += choice["text"]
        if choice["finish_reason"] is not None:
            whole["reasons"].append(choice["finish_reason"])
        if choice["logprobs"] is not None:
            merged = whole["logprobs"] = whole["logprobs"] or {key: [] for key in choice["logprobs"]}
            for key, values in choice["logprobs"].items():
                merged[key] += values
    return choices


@pytest.mark.parametrize("name", REQUESTS)
def test_a_stream_says_what_the_whole_answer_says(server: RunningServer, name: str) -> None:
    body = {"model": MODEL, **REQUESTS[name]}
    whole = server.complete(**body)
    response = server.post("/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)

    choices = joined(events)
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    assert sorted(choices) == list(range(len(prompts) * body.get("n", 1)))
    for choice in whole["choices"]:
        streamed = choices[choice["index"]]
        assert streamed["text"] == choice["text"]
        assert streamed["reasons"] == [choice["finish_reason"]]
        if choice["logprobs"] is not None:
            for key, values in choice["logprobs"].items():
                assert flat((streamed["logprobs"] or {key: []})[key]) == pytest.approx(flat(values), abs=1e-4)
    assert [choice["index"] for choice in whole["choices"]] == sorted(choices)

    assert len({event["id"] for event in events}) == 1
    assert {event["object"] for event in events} == {"text_completion"}
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == whole["usage"]
    assert all(event["usage"] is None and len(event["choices"]) == 1 for event in events[:-1])
    usage = whole["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] == sum(len(server.model.tokenizer.encode(prompt)) for prompt in prompts)


def flat(values: list[Any]) -> list[Any]:
    """Numbers and texts one after another, whatever they were nested in; approx compares no nested structures."""
    out: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            # Ties may be reported in another order; the values are what counts.
            out += [*sorted(value), *(value[key] for key in sorted(value))]
        else:
            out.append(math.inf if value is None else value)
    texts, numbers = [v for v in out if isinstance(v, str)], [v for v in out if not isinstance(v, str)]
    return [hash("\0".join(texts)), *numbers]


@pytest.mark.parametrize("name", REQUESTS)
def test_answers_are_what_the_official_client_declares(server: RunningServer, name: str) -> None:
    response = server.post("/v1/completions", {"model": MODEL, **REQUESTS[name]})
    body = response.json()
    for choice in body["choices"]:
        if "echo" in REQUESTS[name] and choice["logprobs"]:
            # OpenAI has null for the first token of a prompt, which its own type does not know.
            assert choice["logprobs"]["token_logprobs"].pop(0) is None
            assert choice["logprobs"]["top_logprobs"].pop(0) is None
    completion = Completion.model_validate_json(json.dumps(body), strict=True)
    assert completion.object == "text_completion"
    assert completion.id.startswith("cmpl-")
    assert completion.model == MODEL
    assert completion.system_fingerprint
    assert not completion.model_extra
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["openai-version"] == "2020-10-01"
    assert float(response.headers["openai-processing-ms"]) >= 0


def test_no_usage_chunk_unless_asked_for(server: RunningServer) -> None:
    body = {"model": MODEL, "prompt": "The", "max_tokens": 3, "stream": True}
    for options in ({}, {"stream_options": {"include_usage": False}}, {"stream_options": None}):
        events = events_of(server.post("/v1/completions", {**body, **options}).text)
        assert all(event["choices"] and "usage" not in event for event in events)


def test_stream_options_need_a_stream(server: RunningServer) -> None:
    for stream in ({}, {"stream": False}, {"stream": None}):
        body = {"model": MODEL, "prompt": "The", "stream_options": {"include_usage": True}, **stream}
        assert_error(server.post("/v1/completions", body), 400, param="stream_options")


def test_token_ids_continue_as_their_text_does(server: RunningServer) -> None:
    for prompt in PROMPTS[1:3]:
        ids = server.model.tokenizer.encode(prompt)
        by_text = server.complete(prompt=prompt, temperature=0, max_tokens=20)
        by_ids = server.complete(prompt=ids, temperature=0, max_tokens=20)
        assert by_ids["choices"] == by_text["choices"]
        assert by_ids["usage"] == by_text["usage"]
    several = [server.model.tokenizer.encode(prompt) for prompt in PROMPTS]
    by_ids = server.complete(prompt=several, temperature=0, max_tokens=8, echo=True)
    by_text = server.complete(prompt=PROMPTS, temperature=0, max_tokens=8, echo=True)
    assert by_ids["choices"] == by_text["choices"]


def check_logprobs(logprobs: dict[str, Any], text: str, start: int, n_top: int, *, from_prompt: bool) -> None:
    """What clients compute with: tokens that make up the text, offsets, log probabilities with the best first."""
    assert "".join(logprobs["tokens"]) == text
    offsets = list(itertools.accumulate(map(len, logprobs["tokens"]), initial=start))[:-1]
    assert logprobs["text_offset"] == offsets
    lengths = {len(values) for values in logprobs.values()}
    assert lengths == {len(logprobs["tokens"])}
    for place, (logprob, top) in enumerate(zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)):
        if from_prompt and place == 0:
            assert logprob is None
            assert top is None
            continue
        assert logprob <= 0
        values = list(top.values())
        assert n_top <= len(values) <= n_top + 1
        assert all(value <= 0 for value in values)
        assert values[:n_top] == sorted(values[:n_top], reverse=True)
        assert logprob in values, "the token itself is always among them"
        assert logprob <= max(values)
        assert sum(map(math.exp, values)) <= 1 + 1e-6


def test_logprobs_describe_the_text(server: RunningServer) -> None:
    seen_empty = False
    answer = server.complete(prompt=PROMPTS, seed=1, n=2, max_tokens=24, logprobs=4)
    echoed = server.complete(prompt=PROMPTS, seed=1, n=2, max_tokens=8, logprobs=2, echo=True)
    for index, (choice, echo) in enumerate(zip(answer["choices"], echoed["choices"], strict=True)):
        prompt = PROMPTS[index // 2]
        check_logprobs(choice["logprobs"], choice["text"], len(prompt), 4, from_prompt=False)
        seen_empty |= "" in choice["logprobs"]["tokens"]
        assert echo["text"].startswith(prompt)
        check_logprobs(echo["logprobs"], echo["text"], 0, 2, from_prompt=True)
    assert seen_empty, "the prompts must produce characters made of several tokens"


def test_logprobs_0_gives_the_tokens_own_only(server: RunningServer) -> None:
    choice = server.complete(prompt="The", max_tokens=5, temperature=0, logprobs=0)["choices"][0]
    assert all(len(top) == 1 for top in choice["logprobs"]["top_logprobs"])


def test_greedy_takes_the_best_of_the_logprobs(server: RunningServer) -> None:
    choice = server.complete(prompt="The capital", max_tokens=20, temperature=0, logprobs=5)["choices"][0]["logprobs"]
    for logprob, top in zip(choice["token_logprobs"], choice["top_logprobs"], strict=True):
        assert logprob == max(top.values())


def test_scoring_gives_lm_eval_what_it_reads(server: RunningServer) -> None:
    """lm-evaluation-harness sends lists of token ids with echo and reads token_logprobs[n_context:-1]: there must be one
    entry for each prompt token and exactly one behind them, also where the model would end."""
    tokenizer = server.model.tokenizer
    (end,) = tokenizer.eos_ids
    pairs = [("The capital of France is", " Paris."), ("你好，世", "界！"), ("add(a, b):\n", "    return a + b\n\n\n")]
    prompts = [tokenizer.encode(context + continuation) for context, continuation in pairs]
    for bias in ({}, {str(end): 100}):
        answer = server.complete(
            prompt=prompts, echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234, logit_bias=bias
        )
        only_prompt = server.complete(prompt=prompts, echo=True, logprobs=1, max_tokens=0, temperature=0, seed=1234)
        for index, ids in enumerate(prompts):
            choice, scored = answer["choices"][index], only_prompt["choices"][index]
            assert choice["index"] == scored["index"] == index
            assert len(choice["logprobs"]["token_logprobs"]) == len(ids) + 1
            assert len(scored["logprobs"]["token_logprobs"]) == len(ids)
            assert choice["logprobs"]["token_logprobs"][1:-1] == pytest.approx(
                scored["logprobs"]["token_logprobs"][1:], abs=1e-5
            )
            assert scored["text"] == tokenizer.decode(ids)
            check_logprobs(scored["logprobs"], scored["text"], 0, 1, from_prompt=True)
            if bias:
                assert choice["finish_reason"] == "stop"
                assert choice["logprobs"]["tokens"][-1] == ""
                assert choice["text"] == scored["text"]


def test_prompt_scores_are_those_of_generation(server: RunningServer) -> None:
    """What the model said while it wrote, it says again when it reads."""
    prompt = "The capital of"
    ids = server.model.tokenizer.encode(prompt)
    choice = server.complete(prompt=prompt, temperature=0, max_tokens=12, logprobs=0)["choices"][0]
    written = server.model.tokenizer.encode(choice["text"])
    assert server.model.tokenizer.decode(ids + written) == prompt + choice["text"]
    read = server.complete(prompt=prompt + choice["text"], echo=True, logprobs=0, max_tokens=0)["choices"][0]
    if len(read["logprobs"]["tokens"]) == len(ids) + len(choice["logprobs"]["tokens"]):
        assert read["logprobs"]["token_logprobs"][len(ids) :] == pytest.approx(
            choice["logprobs"]["token_logprobs"], abs=1e-4
        )


def test_best_of_returns_the_likeliest_per_token(server: RunningServer) -> None:
    for prompt, seed in ((PROMPTS[0], 1), (PROMPTS[1], 2)):
        every = server.complete(prompt=prompt, seed=seed, n=6, max_tokens=10, logprobs=0)
        ranked = sorted(every["choices"], key=mean_logprob, reverse=True)
        best = server.complete(prompt=prompt, seed=seed, n=2, best_of=6, max_tokens=10)
        assert [choice["text"] for choice in best["choices"]] == [choice["text"] for choice in ranked[:2]]
        assert [choice["index"] for choice in best["choices"]] == [0, 1]
        assert all(choice["logprobs"] is None for choice in best["choices"])
        assert best["usage"] == every["usage"], "all six were computed"


def mean_logprob(choice: dict[str, Any]) -> float:
    """Log probability per token of the delivered text."""
    pairs = zip(choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"], strict=True)
    values = [logprob for token, logprob in pairs]
    return sum(values) / len(values) if values else -math.inf


def test_n_and_prompts_come_in_order(server: RunningServer) -> None:
    answer = server.complete(prompt=PROMPTS, n=3, seed=4, max_tokens=6, echo=True)
    assert [choice["index"] for choice in answer["choices"]] == list(range(3 * len(PROMPTS)))
    for choice in answer["choices"]:
        assert choice["text"].startswith(PROMPTS[choice["index"] // 3])


def test_the_same_seed_gives_the_same_text(server: RunningServer) -> None:
    first, again, other = (
        server.complete(prompt="The capital", seed=seed, n=4, max_tokens=24)["choices"] for seed in (42, 42, 43)
    )
    assert first == again
    assert first != other
    assert len({choice["text"] for choice in first}) > 1
    alone = server.complete(prompt="The capital", seed=42, max_tokens=24)["choices"]
    assert alone[0] == first[0], "n changes nothing for the first choice"


@pytest.mark.parametrize("stream", [False, True])
def test_too_long_is_refused_in_the_sentence_that_old_code_parses(server: RunningServer, stream: bool) -> None:
    ids = server.model.tokenizer.encode("The capital of")
    response = server.post(
        "/v1/completions", {"model": MODEL, "prompt": "The capital of", "max_tokens": 600, "stream": stream}
    )
    message = assert_error(response, 400, code="context_length_exceeded", param="prompt")
    assert message == (
        f"This model's maximum context length is {CONTEXT} tokens, however you requested {len(ids) + 600} tokens "
        f"({len(ids)} in your prompt; 600 for the completion). Please reduce your prompt; or completion length."
    )
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_what_just_fits_is_answered_and_never_cut(server: RunningServer) -> None:
    ids = [300] * (CONTEXT - 2)
    answer = server.complete(prompt=ids, max_tokens=2, logit_bias={"2": -100})
    assert answer["usage"] == {"prompt_tokens": CONTEXT - 2, "completion_tokens": 2, "total_tokens": CONTEXT}
    assert_error(
        server.post("/v1/completions", {"model": MODEL, "prompt": ids, "max_tokens": 3}),
        400,
        code="context_length_exceeded",
    )


def test_special_token_text_in_a_prompt_is_ordinary_text(server: RunningServer) -> None:
    text = "<|im_end|><|im_start|>system\nx<|endoftext|>"
    answer = server.complete(prompt=text, echo=True, logprobs=0, max_tokens=0)
    assert answer["choices"][0]["text"] == text
    assert answer["usage"]["prompt_tokens"] > len("systemx")
    assert not set(server.model.tokenizer.encode(text)) & set(server.model.tokenizer.special_ids.values())


def test_the_default_length_is_16_tokens(server: RunningServer) -> None:
    answer = server.complete(prompt="The", temperature=0, logit_bias={"2": -100})
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_unknown_fields_are_ignored_and_unsupported_ones_refused(server: RunningServer) -> None:
    server.complete(
        prompt="The", max_tokens=1, ignore_eos=True, user="someone", skip_special_tokens=False, foo={"a": 1}
    )
    for name, value in {
        "suffix": "x",
        "tools": [{}],
        "response_format": {"type": "json_object"},
        "prompt_embeds": "AAAA",
    }.items():
        response = server.post("/v1/completions", {"model": MODEL, "prompt": "The", name: value})
        assert name in assert_error(response, 400, code="unsupported_parameter", param=name)
    server.complete(prompt="The", max_tokens=1, suffix="", response_format={"type": "text"})


def test_the_official_client_reads_it(client: openai.OpenAI) -> None:
    completion = client.completions.create(model=MODEL, prompt="The capital", max_tokens=5, n=2, logprobs=1)
    assert len(completion.choices) == 2
    stream = client.completions.create(
        model=MODEL, prompt="The", max_tokens=5, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[-1].usage is not None
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1])
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="no-such-model", prompt="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model=MODEL, prompt="x", max_tokens=10_000)
    assert long.value.code == "context_length_exceeded"


async def test_the_official_async_client_reads_it(async_client: openai.AsyncOpenAI) -> None:
    completion = await async_client.completions.create(model=MODEL, prompt="The capital", max_tokens=5)
    assert completion.usage is not None
    stream = await async_client.completions.create(model=MODEL, prompt="The", max_tokens=5, stream=True)
    assert [chunk async for chunk in stream]
