"""First weights: the same for a seed wherever they are made, complete, and such that training starts from ln V."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.model.init import initialise
from chatwright.model.presets import config_for_size
from tests.model.tiny_models import random_ids

QWEN3 = config_for_size(300_000, 1024, 64, "qwen3")
GPT2 = config_for_size(300_000, 1024, 64, "gpt2")
SINUSOIDAL = config_for_size(300_000, 1024, 64, "gpt2", positions="sinusoidal")


@pytest.mark.parametrize("config", [QWEN3, GPT2, SINUSOIDAL], ids=["qwen3", "gpt2", "sinusoidal"])
def test_no_parameter_is_left_as_it_was(config: ModelConfig) -> None:
    """nanochat 94b73ad: parameters built on the meta device kept whatever the memory held."""
    models = []
    for garbage in (7.5, math.nan):
        with torch.device("meta"):
            model = GPT(config)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(garbage)
        initialise(model, seed=3)
        models.append(model.state_dict())
    for name, weight in models[0].items():
        assert torch.equal(weight, models[1][name]), name
        assert weight.isfinite().all()


def test_a_seed_decides_everything() -> None:
    one, same, other = GPT(QWEN3), GPT(QWEN3), GPT(QWEN3)
    torch.manual_seed(1)
    initialise(one, seed=5)
    torch.manual_seed(2)
    initialise(same, seed=5)
    initialise(other, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embed.weight, other.embed.weight)


def test_precision_only_rounds() -> None:
    exact, half = GPT(QWEN3), GPT(QWEN3).bfloat16()
    initialise(exact, seed=5)
    initialise(half, seed=5)
    for a, b in zip(exact.parameters(), half.parameters(), strict=True):
        assert torch.equal(a.bfloat16(), b)


@torch.no_grad()
def test_every_layer_of_qwen3_is_the_identity_at_first() -> None:
    model = GPT(QWEN3)
    initialise(model, seed=0)
    x = torch.randn(1, 5, QWEN3.d_model)
    rotation = model.rotary(torch.arange(5)[None], x.dtype)
    from chatwright.model.gpt import CausalAttention

    assert torch.equal(model.layers[0](x, rotation, CausalAttention()), x)


@torch.no_grad()
def test_the_branches_of_gpt2_are_scaled_by_their_number() -> None:
    model = GPT(GPT2)
    initialise(model, seed=0)
    std = 0.02 * math.sqrt(768 / GPT2.d_model)  # GPT-2's own at its own width
    for layer in model.layers:
        for matrix in (layer.attention.out, layer.feed_forward.down):
            assert matrix.weight.std() == pytest.approx(std / math.sqrt(2 * GPT2.n_layer), rel=0.05)
        assert layer.feed_forward.up.weight.std() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("config", [QWEN3, GPT2, SINUSOIDAL], ids=["qwen3", "gpt2", "sinusoidal"])
@torch.no_grad()
def test_the_first_loss_is_that_of_a_guess(config: ModelConfig) -> None:
    model = GPT(config)
    initialise(model, seed=0)
    ids = random_ids(4, 64)
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(config.vocab_size), rel=0.08)


@pytest.mark.parametrize("config", [QWEN3, GPT2, SINUSOIDAL], ids=["qwen3", "gpt2", "sinusoidal"])
def test_everything_learns_within_two_steps(config: ModelConfig) -> None:
    """Zeroed projections stop the gradient of what lies before them, but only in the first step."""
    model = GPT(config)
    initialise(model, seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = torch.randint(0, config.vocab_size, (4, 65))
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        still = torch.equal(parameter, before[name])
        # the key's bias shifts all scores of a query alike, which softmax does not see
        assert not still or name.endswith("attention.k.bias"), name


def test_a_loss_in_chunks_has_the_same_gradients() -> None:
    """`hidden` and `logits` are apart so that the logits of a whole batch never exist at once."""
    from torch.nn.functional import cross_entropy

    ids = random_ids(4, 33)
    models = [GPT(QWEN3) for _ in range(2)]
    for model in models:
        initialise(model, seed=0)
    cross_entropy(models[0](ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()
    x = models[1].hidden(ids[:, :-1]).flatten(0, 1)
    parts = zip(x.split(20), ids[:, 1:].flatten().split(20), strict=True)
    sum(cross_entropy(models[1].logits(part), targets, reduction="sum") for part, targets in parts).backward()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-3, rtol=1e-4)


def test_gradients_flow_through_an_attention_of_ones_own() -> None:
    def attend(layer_index: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
        repeats = q.shape[1] // k.shape[1]
        scores = q @ k.repeat_interleave(repeats, 1).mT / math.sqrt(q.shape[-1])
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        return scores.masked_fill(~seen, -math.inf).softmax(-1) @ v.repeat_interleave(repeats, 1)

    ids = random_ids(2, 20)
    models = [GPT(QWEN3) for _ in range(2)]
    for model, own in zip(models, (attend, None), strict=True):
        initialise(model, seed=0)
        torch.nn.init.normal_(model.layers[0].attention.out.weight, generator=torch.Generator().manual_seed(1))
        model.logits(model.hidden(ids, attend=own)).logsumexp(-1).sum().backward()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-3, rtol=1e-3)


def test_autocast_says_nothing_and_rounds_only() -> None:
    """torch warned that the q/k-norms, with a float32 weight over bfloat16, had no fused kernel."""
    model = GPT(QWEN3)
    initialise(model, seed=0)
    ids = random_ids(1, 30)
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.simplefilter("error")
        rounded = model(ids)
    torch.testing.assert_close(rounded.float(), model(ids), atol=0.1, rtol=0.05)


def test_dropout_is_for_training_only() -> None:
    plain, dropping = GPT(GPT2), GPT(GPT2, dropout=0.5)
    for model in (plain, dropping):
        initialise(model, seed=0)
    ids = random_ids(2, 20)
    with torch.no_grad():
        assert torch.equal(plain(ids), dropping.eval()(ids))
        dropping.train()
        torch.manual_seed(1)
        one = dropping(ids)
        torch.manual_seed(1)
        same = dropping(ids)
        other = dropping(ids)
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-3)


def test_dropout_reaches_the_attention_weights() -> None:
    """Nothing else drops here: the embedding and the branches are kept whole by replacing their modules."""
    model = GPT(GPT2, dropout=0.5).train()
    initialise(model, seed=0)
    for layer in model.layers:
        layer.dropout = torch.nn.Identity()
    assert model.attention_dropout == 0.5
    assert model.eval().attention_dropout == 0.0
    model.train()
    embed = model.dropout.forward
    model.dropout.forward = lambda x: x  # type: ignore[method-assign]
    ids = random_ids(1, 20)
    with torch.no_grad():
        assert not torch.equal(model(ids), model(ids))
        mask = torch.ones(1, 20, dtype=torch.bool)
        assert not torch.equal(model(ids, mask_BT=mask), model(ids, mask_BT=mask))
    model.dropout.forward = embed  # type: ignore[method-assign]
