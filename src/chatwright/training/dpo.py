"""The loss of direct preference optimisation (Rafailov et al. 2023, eq. 7), on sums of log probabilities of whole answers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def implicit_rewards(policy_N: Tensor, reference_N: Tensor, beta: float) -> Tensor:
    """How much more likely the model finds an answer than the reference does: beta * (log pi - log pi_ref), (N,)."""
    return beta * (policy_N - reference_N)


def dpo_losses(
    policy_chosen_N: Tensor,
    policy_rejected_N: Tensor,
    reference_chosen_N: Tensor,
    reference_rejected_N: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Loss and margin of each pair, (N,) each, in nats. All log probabilities are sums over the tokens of the answer, the end of
    its turn included, never means: a mean would make the loss a function of length.
    """
    margin_N = implicit_rewards(policy_chosen_N, reference_chosen_N, beta) - implicit_rewards(
        policy_rejected_N, reference_rejected_N, beta
    )
    return -F.logsigmoid(margin_N), margin_N
