"""From one dial to a whole run: what the user fixes stays, the rest follows, and each setting has its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.errors import ChatwrightError, InvalidDatasetError
from chatwright.training.measure import StepCost
from chatwright.training.recipe import MUON_FROM_TOKENS, fit_minutes, fit_tokens, resolve
from chatwright.training.request import Request
from chatwright.training.speed import Machine
from chatwright.training.stats import TextStats

TEXT = TextStats(("documents",), 28_000_000, 1_000_000, {"en": 20_000_000, "zh": 8_000_000})
MACHINE = Machine("cpu", 2, 16 << 30, 100e9, 400e9)
COST = StepCost(0.05, 0.01, 1e-5, 0.1, 50_000_000, 1 << 30, 1 << 28)


@given(
    size=st.none() | st.integers(50_000, 500_000_000),
    minutes=st.none() | st.floats(0.1, 10_000),
    steps=st.none() | st.integers(1, 100_000),
    n_bytes=st.integers(100, 10**10),
    arch=st.sampled_from(["qwen3", "gpt2", "rnn"]),
    bytes_per_token=st.none() | st.floats(1, 8),
)
def test_any_dial_gives_a_run_that_fits_together(
    size: int | None, minutes: float | None, steps: int | None, n_bytes: int, arch: str, bytes_per_token: float | None
) -> None:
    request = Request(size=size, minutes=minutes, steps=steps, arch=arch)  # type: ignore[arg-type]
    text = replace(TEXT, n_bytes=n_bytes, languages={"en": n_bytes})
    try:
        recipe = resolve(text, request, MACHINE)
        if bytes_per_token is not None:  # the tokenizer is there
            recipe = fit_tokens(recipe, max(2, round(n_bytes / bytes_per_token)), n_bytes, recipe.vocab_size)
        recipe = fit_minutes(recipe, COST)
    except ChatwrightError:
        return  # a sentence, such as that the vocabulary leaves no room
    training = recipe.training
    assert 1 <= training.micro_rows <= training.batch_rows
    assert recipe.model.context_length == recipe.context_length
    assert recipe.model.vocab_size == recipe.vocab_size
    assert training.n_steps == (steps or training.n_steps) >= 1
    assert training.eval_every <= training.n_steps
    assert training.warmup_steps < training.n_steps
    assert (training.optimizer == "muon") == (arch != "rnn" and recipe.tokens_per_step >= MUON_FROM_TOKENS)
    assert (training.patience > 0, recipe.dropout > 0) == (recipe.epochs > 2, recipe.epochs > 4)
    for name, chosen in (("patience", training.patience), ("dropout", recipe.dropout)):
        assert (name in recipe.reasons) == bool(chosen)
        if chosen:
            assert f"{recipe.epochs:.1f} times" in recipe.reasons[name], "the readings that are printed"
    if size and arch != "rnn":
        assert 0.4 < recipe.n_parameters / size < 2.1
    assert {"vocab_size", "context_length", "batch_rows", "optimizer", "precision"} <= recipe.reasons.keys()


@pytest.mark.parametrize("minutes", [1.0, 5.0, 60.0])
def test_minutes_are_spent_on_steps_evaluations_and_checkpoints(minutes: float) -> None:
    recipe = fit_minutes(resolve(TEXT, Request(minutes=minutes), MACHINE), COST)
    training = recipe.training
    seconds = training.n_steps * COST.step_seconds(training)
    n_evaluations = training.n_steps / training.eval_every
    seconds += 2 * n_evaluations * recipe.part_bytes / recipe.bytes_per_token * COST.eval_seconds
    seconds += 2 * min(recipe.final_bytes, TEXT.held_out_bytes) / recipe.bytes_per_token * COST.eval_seconds
    seconds += n_evaluations * COST.save_seconds
    assert seconds == pytest.approx(minutes * 60, rel=0.12)


def test_more_minutes_are_a_larger_model_and_larger_steps() -> None:
    recipes = [resolve(TEXT, Request(minutes=minutes), MACHINE) for minutes in (1, 10, 100)]
    assert [each.n_parameters for each in recipes] == sorted(each.n_parameters for each in recipes)
    assert recipes[0].n_parameters < recipes[-1].n_parameters
    assert recipes[0].tokens_per_step < recipes[-1].tokens_per_step


def test_precision_follows_the_machine() -> None:
    request = Request(size=1_000_000, steps=1)
    assert resolve(TEXT, request, MACHINE).training.precision == "bf16"
    slow = replace(MACHINE, fp32_flops=260e9, bf16_flops=145e9)
    assert resolve(TEXT, request, slow).training.precision == "fp32"
    assert resolve(TEXT, replace(request, precision="fp32"), MACHINE).training.precision == "fp32"


def test_rows_are_shortened_to_the_text_unless_their_length_was_asked_for() -> None:
    recipe = resolve(TEXT, Request(size=1_000_000, steps=5), MACHINE)
    assert recipe.context_length == 256
    short = fit_tokens(recipe, 100, 400, 500)
    assert short.context_length == short.model.context_length == 64
    assert short.training.batch_rows == 1
    asked = resolve(TEXT, Request(size=1_000_000, steps=5, context=256), MACHINE)
    with pytest.raises(InvalidDatasetError, match="--context 64"):
        fit_tokens(asked, 100, 400, 500)
    with pytest.raises(InvalidDatasetError, match="too few"):
        fit_tokens(recipe, 9, 30, 500)


def test_a_text_read_often_gets_dropout_and_an_early_end() -> None:
    little = replace(TEXT, n_bytes=200_000, languages={"en": 200_000})
    often = resolve(little, Request(size=1_000_000, steps=500), MACHINE)
    assert often.dropout > 0
    assert often.training.patience > 0
    once = resolve(TEXT, Request(size=1_000_000, steps=50), MACHINE)
    assert (once.dropout, once.training.patience) == (0.0, 0)


def test_a_recipe_reads_the_text_as_often_as_it_says() -> None:
    little = replace(TEXT, n_bytes=2_000_000, languages={"en": 2_000_000})
    estimated = resolve(little, Request(size=1_000_000), MACHINE)
    assert "4 readings" in estimated.reasons["n_steps"]
    tokenised = fit_tokens(estimated, round(0.7 * estimated.n_tokens), little.n_bytes, estimated.vocab_size)
    assert tokenised.epochs == pytest.approx(4, rel=0.02)
    assert tokenised.training.eval_every < tokenised.training.n_steps < estimated.training.n_steps


def test_lr_is_one_dial_for_both_optimizers() -> None:
    plain = resolve(TEXT, Request(size=1_000_000, steps=5, batch_tokens=16384), MACHINE).training
    doubled = resolve(TEXT, Request(size=1_000_000, steps=5, batch_tokens=16384, lr=2 * plain.lr), MACHINE).training
    assert plain.optimizer == "muon"
    assert doubled.muon_lr == pytest.approx(2 * plain.muon_lr)


def test_the_smallest_size_is_not_called_what_the_text_can_teach() -> None:
    def why(n_bytes: int, minutes: float) -> str:
        text = replace(TEXT, n_bytes=n_bytes, languages={"en": n_bytes})
        return resolve(text, Request(minutes=minutes), MACHINE).reasons["size"]

    assert "would fill a smaller one" in why(3_000, 5)
    assert why(28_000_000, 0.001) == "the smallest that is chosen by itself"
    assert "as much as the text can teach" in why(2_000_000, 60)
    assert "what this machine can train" in why(28_000_000, 5)
