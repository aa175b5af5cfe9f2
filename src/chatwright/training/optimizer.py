"""Muon for the matrices of hidden layers and AdamW for everything else, or AdamW for all.

Muon (Jordan 2024) gives every direction of an update the same size. It costs five products of m×m matrices a step whatever
the batch, about 5m/T of the step for T tokens: worth it from about 8k tokens a step on (see `recipe`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from chatwright.training.config import TrainingConfig
from chatwright.training.muon import Muon
from chatwright.training.schedule import rate_scale

# The output layers of our models: matrices, but not hidden ones.
_OUTPUT_LAYERS = frozenset({"head", "score", "classifier", "decoder"})


class Optimizers:
    """The optimizers of a run as one. `parameters` are all trained ones by name, each in exactly one group."""

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self.config = config
        self.parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        hidden, rest = split_parameters(model)
        self.matrices = [self.parameters[name] for name in hidden]
        others = [self.parameters[name] for name in rest]
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        adamw_groups = [{"params": others, "weight_decay": 0.0}] if others else []
        if config.optimizer == "muon" and self.matrices:
            dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
            self.optimizers["muon"] = Muon(self.matrices, lr=config.muon_lr, momentum=config.momentum, dtype=dtype)
        elif self.matrices:
            adamw_groups.insert(0, {"params": self.matrices, "weight_decay": 0.0})
        if adamw_groups:
            self.optimizers["adamw"] = torch.optim.AdamW(
                adamw_groups,
                lr=config.lr,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                weight_decay=0.0,
                fused=True,
            )

    def matrix_rate(self, step: int) -> float:
        """The learning rate of the hidden matrices at `step`."""
        base = self.config.muon_lr if "muon" in self.optimizers else self.config.lr
        return base * rate_scale(step, self.config)

    def step(self, step: int) -> None:
        """One update from the gradients that are there."""
        scale = rate_scale(step, self.config)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = scale * (self.config.muon_lr if name == "muon" else self.config.lr)
        shrink = self.matrix_rate(step) * self.config.weight_decay
        with torch.no_grad():
            if shrink:
                torch._foreach_mul_(self.matrices, 1 - shrink)
            for optimizer in self.optimizers.values():
                optimizer.step()

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def gradients(self) -> list[Tensor]:
        """The gradients that are there, in the order of the parameters."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def state(self) -> dict[str, Tensor]:
        """Everything that the optimizers remember: `adamw/<parameter>/exp_avg` and the like."""
        names = {id(p): name for name, p in self.parameters.items()}
        return {
            f"{kind}/{names[id(parameter)]}/{key}": value
            for kind, optimizer in self.optimizers.items()
            for parameter, values in optimizer.state.items()
            for key, value in values.items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """What `state` gave. Raises KeyError when a tensor belongs to no parameter."""
        for name, tensor in tensors.items():
            kind, rest = name.split("/", 1)
            parameter_name, key = rest.rsplit("/", 1)
            parameter = self.parameters[parameter_name]
            self.optimizers[kind].state[parameter][key] = tensor.to(parameter.device)


def split_parameters(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the trained parameters: matrices of hidden layers, and the rest (embeddings, output heads, norms, biases).

    Each trained parameter is in exactly one list; a tied one counts once, as the embedding.
    """
    outside = set(_embeddings_and_heads(model))
    hidden: list[str] = []
    rest: list[str] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (hidden if parameter.ndim == 2 and name not in outside else rest).append(name)
    return hidden, rest


def _embeddings_and_heads(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) or name.rsplit(".", 1)[-1] in _OUTPUT_LAYERS:
            for parameter, _ in module.named_parameters(recurse=False):
                yield f"{name}.{parameter}" if name else parameter
