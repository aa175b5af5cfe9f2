"""Low-rank adaptation (Hu et al. 2021): W stays, a product of two thin matrices beside it learns; in PEFT's files.

`y = W x + scale · B (A x)`, with A (r, in) random, B (out, r) zero at first, so that the adapted model begins as the base.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from chatwright.errors import UsageError
from chatwright.model.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MAX_ALPHA,
    MAX_DROPOUT,
    MAX_RANK,
    PREFIX,
    check_fits,
    open_adapter,
)
from chatwright.model.card import write_card
from chatwright.model.folder import new_folder, write_json
from chatwright.model.gpt import GPT
from chatwright.model.layout import Slot, by_tensor, hf_layout
from chatwright.model.tensors import read_tensors

# Every matrix of attention and feed-forward: better than attention alone at the same number of parameters (Dettmers et al. 2023).
TARGETS = ("q", "k", "v", "out", "gate", "up", "down")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """`r`: rank. `alpha`: the product is scaled by alpha / r. `dropout`: of the product's input. `targets`: see `TARGETS`."""

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: Sequence[str] = TARGETS

    def __post_init__(self) -> None:
        if not 1 <= self.r <= MAX_RANK or not 0 <= self.alpha <= MAX_ALPHA or not 0 <= self.dropout <= MAX_DROPOUT:
            raise UsageError(
                "LoRA needs a rank from 1 to 4096, an alpha from 0 and a dropout from 0 to 0.99, not {r}, {alpha}, {dropout}.",
                r=self.r,
                alpha=self.alpha,
                dropout=self.dropout,
            )
        if not self.targets or not set(self.targets) <= set(TARGETS):
            raise UsageError(
                "LoRA cannot adapt {targets}: choose among {choices}.",
                targets=", ".join(self.targets) or "-",
                choices=", ".join(TARGETS),
            )


class LoraLinear(nn.Linear):
    """A linear layer with its adaptation. `weight` and `bias` keep their names, so that a file's layout still finds them.

    The factors are float32 whatever the base is: an update far below the base's precision must not be lost.
    """

    def __init__(self, base: nn.Linear, r: int, scale: float, dropout: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.lora_a = nn.Parameter(torch.zeros(r, base.in_features, device=base.weight.device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, r, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        thin = F.linear(self.dropout(x.to(self.lora_a.dtype)), self.lora_a)
        return (y + F.linear(thin, self.lora_b) * self.scale).to(y.dtype)

    def merged(self) -> nn.Linear:
        """The same map as one matrix."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        weight = self.weight.float() + self.scale * (self.lora_b.float() @ self.lora_a.float())
        linear.weight = nn.Parameter(weight.to(self.weight.dtype).detach(), requires_grad=self.weight.requires_grad)
        linear.bias = self.bias
        return linear


def add_lora(model: nn.Module, config: LoraConfig, seed: int) -> None:
    """Freezes the model and gives its targeted layers trainable factors, in place; what it computes does not change yet.

    A is drawn as PEFT and Microsoft's original draw it, on the CPU: the same on every device.
    """
    assert not lora_layers(model), "already adapted"
    model.requires_grad_(False)
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, linear in list(model.named_modules()):
        if isinstance(linear, nn.Linear) and _is_target(name, config.targets):
            layer = LoraLinear(linear, config.r, config.alpha / config.r, config.dropout)
            bound = 1 / math.sqrt(linear.in_features)  # kaiming_uniform_(a=sqrt(5))
            drawn = torch.rand(layer.lora_a.shape, generator=generator) * (2 * bound) - bound
            layer.lora_a.data.copy_(drawn)
            _replace(model, name, layer)
    if not lora_layers(model):
        raise UsageError("This model has none of the layers {targets} for LoRA.", targets=", ".join(config.targets))


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def merge_lora(model: nn.Module) -> None:
    """Adds the products to the matrices and takes the factors away, in place: the model is a plain one again."""
    for name, layer in lora_layers(model).items():
        _replace(model, name, layer.merged())


def save_adapter(
    model: GPT,
    config: LoraConfig,
    folder: Path,
    base_name: str,
    *,
    card: str = "",
    write_more: Callable[[Path], None] | None = None,
) -> None:
    """Writes the factors as a new folder that PEFT loads: adapter_config.json and adapter_model.safetensors.

    `base_name` is the name or path of the base. GPT-2's q, k and v are one matrix for Transformers: their factors become those
    of a product three times the rank, with three blocks, which is the same map. `write_more` puts other files beside them.
    Raises UsageError when the folder is not empty, StorageError.
    """
    layers = lora_layers(model)
    weights: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    kinds: dict[str, list[str]] = {}  # short name of a kind of layer → all layers of it, adapted or not
    for tensor, held in by_tensor(hf_layout(model.config)).items():
        module, ending = tensor.rsplit(".", 1)
        if ending != "weight":
            continue
        kinds.setdefault(".".join(module.split(".")[-2 if model.config.family == "gpt2" else -1 :]), []).append(module)
        parts = [layers.get(parameter.removesuffix(".weight")) for parameter, _ in held]
        if not any(parts):
            continue
        a, b, scale = _joined(parts, [slot for _, slot in held])
        weights[f"{PREFIX}{module}.lora_A.weight"], weights[f"{PREFIX}{module}.lora_B.weight"] = a, b
        if len(a) != config.r:
            ranks[module] = len(a)
        if scale * len(a) != config.alpha:
            alphas[module] = scale * len(a)
    assert weights, "the model has no LoRA layers"
    adapted = {key.removeprefix(PREFIX).rsplit(".", 2)[0] for key in weights}
    targets = [
        target
        for kind, modules in kinds.items()
        for target in ([kind] if adapted.issuperset(modules) else sorted(adapted.intersection(modules)))
    ]
    with new_folder(folder) as whole:
        save_file(weights, whole / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        write_json(whole / ADAPTER_CONFIG, _peft_config(model, config, base_name, targets, ranks, alphas))
        if write_more is not None:
            write_more(whole)
        if card:
            write_card(whole, card)


def load_adapter(model: GPT, folder: Path, *, trainable: bool = False) -> LoraConfig:
    """Adapts the model as the folder says, in PEFT's layout, ours or PEFT's own; nothing is merged (see `merge_lora`).

    Raises ModelNotFoundError, and InvalidModelError for an adapter of another base or one that is more than plain LoRA.
    """
    assert not lora_layers(model), "already adapted"
    adapter = open_adapter(folder)
    check_fits(adapter, model.config)
    model.requires_grad_(False)
    held = by_tensor(hf_layout(model.config))
    for module, factors in adapter.factors.items():
        a, b = read_tensors([factors.a, factors.b])
        for parameter, slot in held[f"{module}.weight"]:
            name = parameter.removesuffix(".weight")
            part_a, part_b = _part(a.float(), b.float(), slot)
            if slot.rows and not part_a.any() and not part_b.any():
                continue  # a block that `save_adapter` wrote for a layer without factors
            linear = model.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            layer = LoraLinear(linear, len(part_a), factors.scale, adapter.dropout)
            layer.lora_a.data.copy_(part_a)
            layer.lora_b.data.copy_(part_b)
            layer.lora_a.requires_grad_(trainable)
            layer.lora_b.requires_grad_(trainable)
            _replace(model, name, layer)
    found = {name.rsplit(".", 1)[-1] for name in lora_layers(model)}
    targets = tuple(target for target in TARGETS if target in found)
    return LoraConfig(r=adapter.r, alpha=adapter.alpha, dropout=adapter.dropout, targets=targets or TARGETS)


def _is_target(name: str, targets: Sequence[str]) -> bool:
    *_, parent, last = ("", "", *name.split("."))
    return parent in ("attention", "feed_forward") and last in targets


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, last, module.train(owner.training))


def _joined(parts: Sequence[LoraLinear | None], slots: Sequence[Slot]) -> tuple[Tensor, Tensor, float]:
    """A and B of one tensor of the file and their scale; of a fused tensor's parts, blocks on the diagonal of B."""
    present = [part for part in parts if part is not None]
    scale, (r, d_in) = present[0].scale, present[0].lora_a.shape
    if len(parts) == 1:
        return _stored(present[0].lora_a), _stored(present[0].lora_b), scale
    rows = [slot.rows or (0, 0) for slot in slots]
    a, b = torch.zeros(r * len(parts), d_in), torch.zeros(rows[-1][1], r * len(parts))
    for i, (part, (start, stop)) in enumerate(zip(parts, rows, strict=True)):
        if part is not None:
            a[i * r : (i + 1) * r] = _stored(part.lora_a)
            b[start:stop, i * r : (i + 1) * r] = _stored(part.lora_b) * (part.scale / scale)
    return a, b, scale


def _part(a: Tensor, b: Tensor, slot: Slot) -> tuple[Tensor, Tensor]:
    """The factors of one parameter: all of them, or its rows of B; where B has blocks on the diagonal only, its block."""
    if slot.rows is None:
        return a, b
    start, stop = slot.rows
    n_parts, index = len(b) // (stop - start), start // (stop - start)
    r = len(a) // n_parts
    if r * n_parts == len(a):
        blocks = b.reshape(n_parts, -1, n_parts, r).transpose(1, 2)
        others = ~torch.eye(n_parts, dtype=torch.bool)
        if not blocks[others].any():
            return a[index * r : (index + 1) * r], b[start:stop, index * r : (index + 1) * r]
    return a, b[start:stop]


def _stored(factor: Tensor) -> Tensor:
    return factor.detach().float().cpu().contiguous()


def _peft_config(
    model: GPT,
    config: LoraConfig,
    base_name: str,
    targets: Sequence[str],
    ranks: dict[str, int],
    alphas: dict[str, float],
) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": config.r,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(targets),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "fan_in_fan_out": model.config.family == "gpt2",  # Transformers keeps GPT-2's matrices as (in, out)
        "bias": "none",
        "use_rslora": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
