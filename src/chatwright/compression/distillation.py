"""What a student learns from a teacher's logits: the whole distribution at each place (Hinton et al. 2015), beside the next token.

loss = share · T² · KL(teacher ‖ student at temperature T) + (1 − share) · cross-entropy, summed over tokens.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from chatwright.errors import UsageError
from chatwright.model.gpt import GPT
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.training.loss import most_logits
from chatwright.training.pretraining import Pretraining


class Distillation(Pretraining):
    """An `Objective`. Rows and held-out figures are those of pretraining."""

    def __init__(
        self, model: nn.Module, *rest: Any, teacher: GPT, temperature: float, share: float, **more: Any
    ) -> None:
        super().__init__(model, *rest, **more)
        self.teacher, self.temperature, self.share = teacher, temperature, share

    def loss(self, batch: Tensor) -> Tensor:
        """See Objective."""
        student = cast(GPT, self.model)
        with torch.no_grad():
            taught_ND = self.teacher.hidden(batch[:, :-1]).flatten(0, 1)
        learned_ND, targets_N = student.hidden(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        step = max(1, most_logits(batch.device) // student.config.vocab_size)
        parts = [
            checkpoint(
                self._chunk,
                learned_ND[i : i + step],
                taught_ND[i : i + step],
                targets_N[i : i + step],
                use_reentrant=False,
            )
            for i in range(0, len(targets_N), step)
        ]
        return torch.stack(cast(list[Tensor], parts)).sum()

    def _chunk(self, learned_nD: Tensor, taught_nD: Tensor, targets_n: Tensor) -> Tensor:
        learned_nV = cast(GPT, self.model).logits(learned_nD).float()
        # rows of padding that one of the two has behind the vocabulary
        taught_nV = self.teacher.logits(taught_nD).float()
        n = min(learned_nV.shape[1], taught_nV.shape[1])
        t = self.temperature
        taught = F.log_softmax(taught_nV[:, :n] / t, -1)
        divergence = F.kl_div(F.log_softmax(learned_nV[:, :n] / t, -1), taught, log_target=True, reduction="sum")
        return self.share * t * t * divergence + (1 - self.share) * F.cross_entropy(
            learned_nV, targets_n, reduction="sum"
        )


def check_same_vocabulary(teacher: Tokenizer, student: Tokenizer) -> None:
    """Raises UsageError naming the first difference: logits can only be compared where each id is the same token."""
    if teacher.vocab_size != student.vocab_size:
        raise UsageError(
            "Teacher and student have different vocabularies ({teacher} and {student} tokens), so their logits cannot be compared."
            " Learn from answers (--by answers), or train the student with the teacher's tokenizer.",
            teacher=teacher.vocab_size,
            student=student.vocab_size,
        )
    for token_id in range(teacher.vocab_size):
        if teacher.token_bytes(token_id) != student.token_bytes(token_id):
            raise UsageError(
                "Teacher and student have different vocabularies (token {token_id} is another), so their logits cannot be compared."
                " Learn from answers (--by answers), or train the student with the teacher's tokenizer.",
                token_id=token_id,
            )
