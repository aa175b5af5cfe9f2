"""What is measured of an engine: its perplexity is the model's, its rate that of streams which write at the same time."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path

import pytest
import torch

from chatwright.engine.load import load_engine
from chatwright.engine.tokenizers import load_model_tokenizer
from chatwright.errors import EngineError, UsageError
from chatwright.evaluation import speed
from chatwright.evaluation.figure import Figure, median_ratio
from chatwright.evaluation.speed import SpeedTest, bundled_text, decode_prompt, perplexity_windows
from chatwright.model.load import load_model
from chatwright.settings import Settings
from tests.server.tiny import make_model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("speed") / "tiny", context=64)


async def test_the_perplexity_is_the_models(folder: Path, tmp_path: Path) -> None:
    windows = perplexity_windows(load_model_tokenizer(folder), bundled_text()[:600], 64)
    assert len(windows) > 2
    model = load_model(folder)
    nats = []
    for window in windows:
        ids = torch.tensor([window])
        with torch.inference_mode():
            scores = model(ids)[0].double().log_softmax(-1)
        nats += [-float(scores[i, window[i + 1]]) for i in range(len(window) - 1)]
    engine = load_engine(folder, "tiny", Settings(home=tmp_path, threads=1, quantization="fp32"))
    try:
        measured = await SpeedTest(engine, windows[0]).perplexity(windows)
    finally:
        await engine.close()
    assert measured == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)


async def test_a_cached_prompt_comes_from_the_cache_and_a_new_one_does_not(folder: Path, tmp_path: Path) -> None:
    engine = load_engine(folder, "tiny", Settings(home=tmp_path, threads=1))
    test = SpeedTest(engine, list(range(100, 200)))
    try:
        await test.prompt(40)
        await test.prompt(40)
        assert engine.stats().reused_tokens == 0
        await test.first_token(40)
        assert engine.stats().reused_tokens == 32, "whole blocks of the 38 tokens that both prompts have"
    finally:
        await engine.close()


async def test_streams_decode_at_the_same_time_until_the_context_ends(folder: Path, tmp_path: Path) -> None:
    engine = load_engine(folder, "tiny", Settings(home=tmp_path, threads=1))
    try:
        for n_streams, n_tokens in ((1, 4), (5, 4), (5, 60)):
            assert await SpeedTest(engine, list(range(100, 200))).decode(n_streams, n_tokens) > 0
        await engine.probe()
        assert (engine.stats().running, engine.stats().waiting) == (0, 0)
    finally:
        await engine.close()


def test_only_tokens_count_that_came_while_all_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(seconds))
    together = speed._Together(2, n_tokens=2)
    for stream in (0, 0, 0, 1, 0, 1, 1):  # at 0, 1, … 6 s; both write from 3 s on
        assert not together.over
        together.arrived(stream)
    assert together.over, "the second stream has two more than when it began"
    assert together.tokens_per_s() == 1.0, "of both until 4 s, when the first had its last: one token"


def test_streams_one_after_the_other_are_counted_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(seconds))
    together = speed._Together(2, n_tokens=5)
    for stream in (0, 0, 1, 1, 1):  # the first was over before the second began
        together.arrived(stream)
    assert together.tokens_per_s() == 1.0


def test_a_single_token_has_no_rate() -> None:
    together = speed._Together(2, n_tokens=2)
    together.arrived(0)
    with pytest.raises(EngineError, match="at the same time"):
        together.tokens_per_s()


def test_prompts_before_decoding_are_whole_blocks_and_one_token() -> None:
    assert [decode_prompt(context, 32) for context in (8192, 162, 161, 64, 48, 20)] == [129, 129, 129, 17, 1, 1]


def test_windows_cover_a_text_once(folder: Path) -> None:
    tokenizer = load_model_tokenizer(folder)
    text = bundled_text()[:1000]
    windows = perplexity_windows(tokenizer, text, 64, n_tokens=200)
    assert [token for window in windows for token in window] == tokenizer.encode(text)[:200]
    assert {len(window) for window in windows[:-1]} == {64}
    with pytest.raises(UsageError, match="too short"):
        perplexity_windows(tokenizer, "a", 64)


def test_a_figure_is_a_median_with_its_range() -> None:
    line = Figure("decode", "ours", (3.0, 1.0, 2.123456), "tokens/s", 4).line(threads=2)
    assert line == {
        "figure": "decode",
        "system": "ours",
        "size": 4,
        "value": 2.1235,
        "unit": "tokens/s",
        "range": [1.0, 3.0],
        "n": 3,
        "threads": 2,
    }


def test_ratios_are_taken_within_rounds() -> None:
    assert median_ratio([10, 20, 30], [[5, 20, 10], [4, 5, 15]]) == 2.0, "10/5, 20/20, 30/15"
