"""What the decoder promises to whoever drives it: an engine with a cache, a trainer in half precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from chatwright.model.config import ModelConfig, parameter_count, parameter_shapes
from chatwright.model.gpt import GPT, CausalAttention
from chatwright.model.hf import config_from_hf
from tests.model.tiny_models import CASES, random_ids, randomise


def tiny(case: str, **changes: object) -> GPT:
    model = GPT(config_from_hf(CASES[case].to_dict() | changes)).eval()
    randomise(model)
    return model


class Cache:
    """Keys of several sequences, whose tokens come in one flat batch: what an engine does, in its simplest form."""

    def __init__(self, n_sequences: int) -> None:
        self.keys: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.lengths = [0] * n_sequences  # of this call

    def __call__(self, layer_index: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        outputs = []
        parts = [tensor.split(self.lengths, dim=2) for tensor in (q, k, v)]
        for sequence, (q1, k1, v1) in enumerate(zip(*parts, strict=True)):
            if old := self.keys.get((layer_index, sequence)):
                k1, v1 = torch.cat((old[0], k1), 2), torch.cat((old[1], v1), 2)
            self.keys[layer_index, sequence] = k1, v1
            n, t = k1.shape[2], q1.shape[2]
            distance = torch.arange(n - t, n)[:, None] - torch.arange(n)
            seen = (distance >= 0) & (distance < (window or n))
            repeats = q.shape[1] // k.shape[1]
            scores = q1 @ k1.repeat_interleave(repeats, 1).mT / math.sqrt(q.shape[-1])
            outputs.append(scores.masked_fill(~seen, -math.inf).softmax(-1) @ v1.repeat_interleave(repeats, 1))
        return torch.cat(outputs, dim=2)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_flat_batch_with_a_cache_gives_the_logits_of_each_sequence_alone(case: str) -> None:
    model = tiny(case)
    first, second = random_ids(40, seed=2), random_ids(25, seed=3)
    cache = Cache(2)
    got: list[list[Tensor]] = [[], []]
    # the first sequence's prompt in two chunks, then both token by token
    for cuts in [((0, 17), (0, 0)), ((17, 30), (0, 20)), *[((30 + i, 31 + i), (20 + i, 21 + i)) for i in range(5)]]:
        ids = torch.cat([sequence[a:b] for sequence, (a, b) in zip((first, second), cuts, strict=True)])
        positions = torch.cat([torch.arange(a, b) for a, b in cuts])
        cache.lengths = [b - a for a, b in cuts]
        logits = model.logits(model.hidden(ids[None], positions[None], cache))[0]
        for part, rows in zip(got, logits.split(cache.lengths), strict=True):
            part.append(rows)
    torch.testing.assert_close(torch.cat(got[0]), model(first[None, :35])[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat(got[1]), model(second[None])[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", ["mistral, window of 20", "qwen3, window in the last layers", "gemma3"])
@torch.no_grad()
def test_a_window_hides_what_is_further_back(case: str) -> None:
    model = tiny(case, num_hidden_layers=1, sliding_window=8, max_window_layers=0, layer_types=None)
    ids = random_ids(1, 30)
    changed = ids.clone()
    changed[0, :20] = random_ids(20, seed=9)
    before, after = model(ids), model(changed)
    assert torch.equal(before[0, 27:], after[0, 27:])  # token 27 sees 20 to 27
    assert not torch.allclose(before[0, 26], after[0, 26], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_those_that_the_config_foretells(case: str) -> None:
    model = tiny(case)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == parameter_shapes(model.config)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(model.config)


def test_half_precision_does_not_round_the_rotary_frequencies() -> None:
    model = tiny("qwen3")
    exact = model.rotary.frequencies.clone()
    model.to(torch.bfloat16)
    assert torch.equal(model.rotary.frequencies, exact)
    assert next(model.parameters()).dtype == torch.bfloat16
    assert model(random_ids(1, 5)).dtype == torch.bfloat16


@torch.no_grad()
def test_sinusoidal_positions_follow_the_paper() -> None:
    config = ModelConfig(
        family="gpt2", vocab_size=96, n_layer=1, d_model=6, n_head=1, n_kv_head=1, head_dim=6, d_ff=8,
        context_length=64, norm="layernorm", norm_eps=1e-5, positions="sinusoidal", activation="relu", gated=False,
    )  # fmt: skip
    model = GPT(config)
    for parameter in model.parameters():
        parameter.zero_()
    model.norm = torch.nn.Identity()
    x = model.hidden(torch.zeros(1, 50, dtype=torch.long))
    for position in (0, 1, 49):
        angles = [position / 10_000 ** (i / 6) for i in (0, 2, 4)]
        expected = [f(angle) for angle in angles for f in (math.sin, math.cos)]
        torch.testing.assert_close(x[0, position] * math.sqrt(6), torch.tensor(expected), atol=1e-5, rtol=0)


@torch.no_grad()
def test_gated_gelu_is_the_gate_times_the_rest() -> None:
    layer = tiny("llama, tied", hidden_act="gelu_pytorch_tanh").layers[0].feed_forward
    x = torch.randn(1, 3, 64)
    gate = torch.nn.functional.gelu(x @ layer.gate.weight.T, approximate="tanh")
    torch.testing.assert_close(layer(x), gate * (x @ layer.up.weight.T) @ layer.down.weight.T)


def test_gradients_reach_every_parameter() -> None:
    for case in CASES:
        model = tiny(case)
        model(random_ids(1, 12)).logsumexp(-1).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(("n_head", "n_group", "length"), [(6, 3, 37), (4, 1, 64), (3, 3, 1)])
def test_short_rows_in_bfloat16_attend_as_in_float32(n_head: int, n_group: int, length: int) -> None:
    """Values and gradients, also where heads share keys; bfloat16 has 8 bits."""
    torch.manual_seed(0)
    shapes = [(2, n_head, length, 32), (2, n_group, length, 32), (2, n_group, length, 32)]
    ours = [torch.randn(shape, requires_grad=True) for shape in shapes]
    plain = [x.detach().clone().requires_grad_() for x in ours]
    with torch.autocast("cpu", torch.bfloat16):
        attended = CausalAttention()(0, *ours, None)
    assert attended.dtype == torch.bfloat16
    wanted = F.scaled_dot_product_attention(*plain, is_causal=True, enable_gqa=n_head != n_group)
    torch.testing.assert_close(attended.float(), wanted, rtol=0.03, atol=0.03)
    outer = torch.randn_like(wanted)
    attended.backward(outer.bfloat16())
    wanted.backward(outer)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0.05, atol=0.05)


def test_a_later_token_changes_nothing_before_it_in_bfloat16() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 8, 32), torch.randn(1, 2, 8, 32), torch.randn(1, 2, 8, 32)
    with torch.autocast("cpu", torch.bfloat16):
        before = CausalAttention()(0, q, k, v, None)
        k[:, :, 5:], v[:, :, 5:] = 9.0, 9.0
        after = CausalAttention()(0, q, k, v, None)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert not torch.equal(before[:, :, 5:], after[:, :, 5:])
