"""The loss in chunks is the plain loss, forward and backward, and never sees the logits of all tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatwright.training.loss import IGNORE, chunked_cross_entropy


def problem(share_masked: float) -> tuple[Tensor, nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 50, 16, generator=generator, requires_grad=True)
    head = nn.Linear(16, 97)
    targets = torch.randint(0, 97, (3, 50), generator=generator)
    targets[torch.rand(3, 50, generator=generator) < share_masked] = IGNORE
    return hidden, head, targets


@pytest.mark.parametrize("share_masked", [0.0, 0.6])
@pytest.mark.parametrize("fused", [False, True])
def test_equals_the_plain_loss(share_masked: float, fused: bool) -> None:
    hidden, head, targets = problem(share_masked)
    plain = F.cross_entropy(head(hidden).flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORE)
    expected = torch.autograd.grad(2 * plain, [hidden, head.weight, head.bias])
    largest = 0

    def logits(x: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, len(x))
        out: Tensor = head(x)
        return out

    loss = chunked_cross_entropy(
        hidden, logits, targets, head=list(head.parameters()) if fused else (), max_logits=97 * 7
    )
    found = torch.autograd.grad(2 * loss, [hidden, head.weight, head.bias])
    torch.testing.assert_close(loss, plain)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert largest == 7


def test_nothing_supervised_is_zero_with_a_graph() -> None:
    """nanochat #590: the mean of no tokens was NaN from the first step."""
    hidden, head, targets = problem(1.0)
    loss = chunked_cross_entropy(hidden, head, torch.full_like(targets, IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_the_loss_is_float32_where_products_are_bfloat16() -> None:
    hidden, head, targets = problem(0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = chunked_cross_entropy(hidden, head, targets, head=list(head.parameters()), max_logits=97 * 7)
    plain = F.cross_entropy(head(hidden).flatten(0, 1), targets.flatten(), reduction="sum")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=5e-3, atol=0)
