"""The DPO loss equals a plain reference, pair by pair, over many seeds, gradients included."""

from __future__ import annotations

import math

import pytest
import torch

from chatwright.training.dpo import dpo_losses


def reference(pc: float, pr: float, rc: float, rr: float, beta: float) -> float:
    """Equation 7 of Rafailov et al. as written: -log sigmoid(beta log(pi_w/ref_w) - beta log(pi_l/ref_l))."""
    return -math.log(1 / (1 + math.exp(-(beta * (pc - rc) - beta * (pr - rr)))))


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5])
def test_losses_equal_the_reference_over_fifty_seeds(beta: float) -> None:
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        values = -60 * torch.rand(4, 8, dtype=torch.float64, generator=generator)
        losses, margins = dpo_losses(*values, beta)
        expected = [reference(*(float(v) for v in column), beta) for column in values.T]
        assert losses.tolist() == pytest.approx(expected, rel=1e-9)
        assert margins.tolist() == pytest.approx([beta * (pc - rc - pr + rr) for pc, pr, rc, rr in values.T.tolist()])


def test_the_start_costs_ln_2_and_pushes_chosen_up_and_rejected_down_equally() -> None:
    chosen, rejected = torch.tensor([-30.0], requires_grad=True), torch.tensor([-20.0], requires_grad=True)
    losses, margins = dpo_losses(chosen, rejected, chosen.detach(), rejected.detach(), 0.1)
    assert losses.item() == pytest.approx(math.log(2))
    assert margins.item() == 0
    losses.sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(-0.05)
    assert rejected.grad.item() == pytest.approx(0.05)


def test_far_margins_stay_finite() -> None:
    zeros = torch.zeros(2)
    losses, _ = dpo_losses(torch.tensor([1e6, -1e6]), zeros, zeros, zeros, 1.0)
    assert losses.tolist() == pytest.approx([0.0, 1e6])
