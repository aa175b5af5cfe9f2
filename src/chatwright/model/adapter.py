"""A LoRA adapter's files in PEFT's layout, opened and checked without torch: what is here, and does it fit a model?

Only plain LoRA is read: what PEFT would compute otherwise than `model.lora` is refused, not ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatwright.errors import InvalidModelError, ModelNotFoundError
from chatwright.model.checkpoint import StoredTensor, read_header, read_json_object
from chatwright.model.config import ModelConfig, shown
from chatwright.model.layout import hf_layout, tensor_shapes

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
MAX_RANK, MAX_ALPHA, MAX_DROPOUT = 4096, 1e6, 0.99

# Options that change nothing in what the two factors mean; any other must be absent, or have a value that turns it off.
_HARMLESS = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "target_modules",
    "task_type", "use_rslora",
}  # fmt: skip
# Ways of beginning that leave the base as it is. Others (PiSSA, OLoRA, LoftQ …) change it, and mean the changed one.
_HARMLESS_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
_FACTOR = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]{1,200})\.lora_(?P<factor>[AB])(\.default)?\.weight")


@dataclass(frozen=True)
class Factors:
    """The two factors of one layer of the base, W + scale · B·A: A is (rank, in), B is (out, rank)."""

    a: StoredTensor
    b: StoredTensor
    scale: float

    @property
    def rank(self) -> int:
        """The length of A."""
        return self.a.shape[0]


@dataclass(frozen=True)
class Adapter:
    """An adapter folder. `factors` is keyed by Transformers' names of the layers; `base_name` is as its author wrote it."""

    path: Path
    base_name: str
    r: int
    alpha: float
    dropout: float
    factors: Mapping[str, Factors]

    @property
    def weights(self) -> Path:
        """The file with the factors."""
        return self.path / ADAPTER_WEIGHTS


def is_adapter(path: Path) -> bool:
    """Whether a folder, or the folder `adapter` in it (of a run), holds an adapter."""
    return (path / ADAPTER_CONFIG).is_file() or (path / "adapter" / ADAPTER_CONFIG).is_file()


def open_adapter(path: Path) -> Adapter:
    """The adapter in a folder, or in the folder `adapter` of a run.

    Raises ModelNotFoundError when nothing is there, InvalidModelError when it is broken, unsafe or more than plain LoRA.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelNotFoundError("There is no adapter at {path}.", path=path)
    folder = path / "adapter" if (path / "adapter" / ADAPTER_CONFIG).is_file() else path
    if not (folder / ADAPTER_CONFIG).is_file():
        raise InvalidModelError("{folder} holds no adapter: {file} is missing.", folder=folder, file=ADAPTER_CONFIG)
    raw = read_json_object(folder / ADAPTER_CONFIG)
    _check_options(folder / ADAPTER_CONFIG, raw)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        if (folder / "adapter_model.bin").exists():
            raise InvalidModelError(
                "{folder} holds the adapter only as a pickle (adapter_model.bin), which can run any code when it is opened and"
                " is never loaded. Save it again with safetensors.",
                folder=folder,
            )
        raise InvalidModelError("{folder} holds no adapter: {file} is missing.", folder=folder, file=ADAPTER_WEIGHTS)
    base_name = raw.get("base_model_name_or_path")
    return Adapter(
        folder,
        base_name if isinstance(base_name, str) else "",
        r=_rank(raw.get("r", 8)),
        alpha=_number("lora_alpha", raw.get("lora_alpha", 8), MAX_ALPHA),
        dropout=_number("lora_dropout", raw.get("lora_dropout", 0.0), MAX_DROPOUT),
        factors=_factors(folder / ADAPTER_WEIGHTS, raw),
    )


def check_fits(adapter: Adapter, config: ModelConfig) -> None:
    """Raises InvalidModelError when the adapter was not made for a model of this configuration."""
    shapes = tensor_shapes(config, layout := hf_layout(config))
    transposed = {slot.tensor for slot in layout.values() if slot.transposed}
    for module, factors in adapter.factors.items():
        weight = f"{module}.weight"
        shape = shapes.get(weight)
        d_out, d_in = factors.b.shape[0], factors.a.shape[1]
        if shape is None or len(shape) != 2 or "embed" in module or module in ("lm_head", "transformer.wte"):
            raise InvalidModelError(
                "The adapter in {folder} changes the layer {layer}, which this model does not have or which cannot be adapted"
                " here. It was made for {base}.",
                folder=adapter.path,
                layer=shown(module),
                base=shown(adapter.base_name or "another model"),
            )
        if (d_out, d_in) != (shape[::-1] if weight in transposed else shape):
            raise InvalidModelError(
                "The adapter in {folder} does not fit this model: its layer {layer} maps {d_in} channels to {d_out}, the"
                " model's has the shape {shape}. It was made for {base}.",
                folder=adapter.path,
                layer=shown(module),
                d_in=d_in,
                d_out=d_out,
                shape=list(shape),
                base=shown(adapter.base_name or "another model"),
            )


def _check_options(path: Path, raw: Mapping[str, Any]) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise InvalidModelError(
            "{path} describes an adapter of the kind {kind}; only LORA is supported.", path=path, kind=shown(kind)
        )
    for option, value in raw.items():
        harmless = option in _HARMLESS or value in (None, False, {}, [])
        if option == "init_lora_weights":
            harmless = isinstance(value, str | bool | None) and value in _HARMLESS_BEGINNINGS
        if option == "bias":
            harmless = value in ("none", None)
        if not harmless:
            raise InvalidModelError(
                "{path} sets {option} to {value}, which is not supported: only plain LoRA is.",
                path=path,
                option=shown(option),
                value=shown(value),
            )


def _factors(path: Path, raw: Mapping[str, Any]) -> dict[str, Factors]:
    halves: dict[str, dict[str, StoredTensor]] = {}
    for tensor in read_header(path):
        match = _FACTOR.fullmatch(tensor.name)
        if match is None or len(tensor.shape) != 2:
            raise InvalidModelError(
                "{path} has the tensor {tensor}, which is not a LoRA factor of a linear layer.",
                path=path,
                tensor=shown(tensor.name),
            )
        halves.setdefault(match["module"], {})[match["factor"]] = tensor
    if not halves:
        raise InvalidModelError("{path} is empty: the adapter changes nothing.", path=path)
    ranks, alphas = _pattern(raw, "rank_pattern"), _pattern(raw, "alpha_pattern")
    factors = {}
    for module, found in halves.items():
        r = _rank(_of_module(ranks, module, raw.get("r", 8)))
        if found.keys() != {"A", "B"} or found["A"].shape[0] != r or found["B"].shape[1] != r:
            raise InvalidModelError(
                "{path}: the factors of the layer {layer} do not have the rank {r} that {config} gives it.",
                path=path,
                layer=shown(module),
                r=r,
                config=ADAPTER_CONFIG,
            )
        alpha = _number("lora_alpha", _of_module(alphas, module, raw.get("lora_alpha", 8)), MAX_ALPHA)
        scale = alpha / (math.sqrt(r) if raw.get("use_rslora") is True else r)
        factors[module] = Factors(found["A"], found["B"], scale)
    return factors


def _pattern(raw: Mapping[str, Any], option: str) -> Mapping[str, Any]:
    """`rank_pattern` and `alpha_pattern`, whose keys are regular expressions to PEFT; read are those that are plain names."""
    pattern = raw.get(option) or {}
    if not isinstance(pattern, Mapping) or not all(re.fullmatch(r"\^?[A-Za-z0-9_.]+", key) for key in pattern):
        raise InvalidModelError(
            "The adapter's {file} sets {option} to {value}; only names of layers are read there, no patterns.",
            file=ADAPTER_CONFIG,
            option=option,
            value=shown(pattern),
        )
    return pattern


def _of_module(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    """The first entry for a layer or the end of its name; beginning with ^, for its whole name only (`peft.get_pattern_key`)."""
    for key, value in pattern.items():
        if key.startswith("^"):
            if module == key[1:]:
                return value
        elif module == key or module.endswith(f".{key}"):
            return value
    return default


def _rank(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_RANK:
        raise InvalidModelError(
            "The adapter's {file} sets {option} to {value}; it must be a number from {smallest} to {largest}.",
            file=ADAPTER_CONFIG,
            option="r",
            value=shown(value),
            smallest=1,
            largest=MAX_RANK,
        )
    return value


def _number(option: str, value: object, largest: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= largest:
        raise InvalidModelError(
            "The adapter's {file} sets {option} to {value}; it must be a number from {smallest} to {largest}.",
            file=ADAPTER_CONFIG,
            option=option,
            value=shown(value),
            smallest=0,
            largest=f"{largest:g}",
        )
    return value
