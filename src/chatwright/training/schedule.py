"""The learning rate over the steps: up, constant, down. A pure function of the step.

Linear warm-down from a constant rate (Hägele et al. 2024; nanochat and modded-nanogpt end theirs in 40–65 % of the steps) is as
good as a cosine, and a run can be prolonged from before it.
"""

from __future__ import annotations

from chatwright.training.config import TrainingConfig


def rate_scale(step: int, config: TrainingConfig) -> float:
    """The factor on the learning rates at `step` (0-based), in (0, 1]."""
    warmup = min(config.warmup_steps, config.n_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    warmdown = round(config.warmdown_share * config.n_steps)
    left = config.n_steps - step  # 1 at the last step
    if left > warmdown:
        return 1.0
    return config.final_lr_share + (1 - config.final_lr_share) * left / (warmdown + 1)
