"""LoRA adapters on PyTorch's runner: added to the rows of their own sequences, so that several are mixed within one step.

The kernels have the same as an operation (kernels/include/chatwright_kernels.h, cw_lora).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from chatwright.errors import InvalidModelError
from chatwright.model.adapter import check_fits, open_adapter
from chatwright.model.config import ModelConfig
from chatwright.model.layout import Slot, hf_layout
from chatwright.model.tensors import read_tensors


@dataclass(frozen=True)
class LowRank:
    """One layer's addition: y += scale · (x Aᵀ) Bᵀ. a: (rank, in), b: (out, rank), float32."""

    a: Tensor
    b: Tensor
    scale: float


def read_adapter(path: Path, config: ModelConfig) -> dict[str, LowRank]:
    """The adapter in a folder in PEFT's layout: name of the decoder's linear layer → its addition.

    Raises ModelNotFoundError, InvalidModelError for one that is broken, of another shape, or holds what is no number.
    """
    adapter = open_adapter(path)
    check_fits(adapter, config)
    by_tensor: dict[str, list[tuple[str, Slot]]] = {}
    for parameter, slot in hf_layout(config).items():
        by_tensor.setdefault(slot.tensor, []).append((parameter, slot))
    found = {}
    for module, factors in adapter.factors.items():
        # Copies, also where nothing is converted: what is mapped from a file dies with the file, and the engine with it.
        a, b = (tensor.to(torch.float32, copy=True).contiguous() for tensor in read_tensors([factors.a, factors.b]))
        if a.shape != factors.a.shape or b.shape != factors.b.shape:
            raise InvalidModelError("The adapter in {folder} was changed while it was read.", folder=adapter.path)
        if not (a.isfinite().all() and b.isfinite().all()):
            raise InvalidModelError(
                "The adapter in {folder} holds a weight of {layer} that is not a number.",
                folder=adapter.path,
                layer=module,
            )
        for parameter, slot in by_tensor[f"{module}.weight"]:
            rows = b[slot.rows[0] : slot.rows[1]] if slot.rows else b
            found[parameter.removesuffix(".weight")] = LowRank(a, rows.contiguous(), factors.scale)
    return found


class AdapterHooks:
    """Adapters of a model by name; `spans` says which rows of the step under way belong to which."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.spans: list[tuple[slice, str]] = []
        self._adapters: dict[str, Mapping[str, LowRank]] = {}
        self._hooked: set[str] = set()

    def add(self, name: str, adapter: Mapping[str, LowRank]) -> None:
        """Put an adapter beside the model; what the model computes for others does not change."""
        device = next(self.model.parameters()).device
        self._adapters[name] = {
            layer: LowRank(part.a.to(device), part.b.to(device), part.scale) for layer, part in adapter.items()
        }
        for layer in adapter.keys() - self._hooked:
            self._hooked.add(layer)
            self.model.get_submodule(layer).register_forward_hook(self._hook(layer))

    def remove(self, name: str) -> None:
        """Take an adapter away."""
        del self._adapters[name]

    def _hook(self, layer: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        def add(module: nn.Module, inputs: tuple[Tensor], y_1TF: Tensor) -> Tensor:
            [x_1TD] = inputs
            for rows, name in self.spans:
                if part := self._adapters[name].get(layer):
                    thin = x_1TD[:, rows].float() @ part.a.T
                    y_1TF[:, rows] += ((thin @ part.b.T) * part.scale).to(y_1TF.dtype)
            return y_1TF

        return add
