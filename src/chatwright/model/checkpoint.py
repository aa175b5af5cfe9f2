"""Opens a model's files and checks all that can be checked without reading a weight: what is here, may it load?

Used alike by `describe`, which stops there, and by `load`, which then reads the weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from chatwright.errors import InvalidModelError, ModelNotFoundError
from chatwright.model.config import ModelConfig, shown
from chatwright.model.gguf import GGUFFile, check_decodable
from chatwright.model.gguf_config import ROPE_FACTORS, config_from_gguf
from chatwright.model.hf import SUPPORTED, config_from_hf
from chatwright.model.layout import Layout, Shape, gguf_layout, hf_layout, tensor_shapes
from chatwright.model.rnn_config import RNN_MODEL_TYPE

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_JSON_BYTES = 1 << 26
FLOATS = ("F64", "F32", "F16", "BF16")

Format = Literal["safetensors", "gguf"]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file, by its header."""

    file: Path
    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True)
class SafetensorsCheckpoint:
    """An HF folder whose files fit its configuration. `tensors` is keyed by the names of `layout`."""

    path: Path
    config: ModelConfig
    layout: Layout
    tensors: Mapping[str, StoredTensor]
    raw_config: Mapping[str, Any]
    duplicate_head: StoredTensor | None  # a head that is written out although the configuration says that it is tied


@dataclass(frozen=True)
class GGUFCheckpoint:
    """A GGUF file whose tensors fit its configuration."""

    path: Path
    config: ModelConfig
    layout: Layout
    file: GGUFFile


def open_checkpoint(path: Path) -> SafetensorsCheckpoint | GGUFCheckpoint:
    """The model at a GGUF file, or in a folder in HF layout or with one GGUF file.

    Raises ModelNotFoundError when nothing is there, InvalidModelError when it cannot be loaded, with the reason.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        if CONFIG in names and any(name.endswith(".safetensors") for name in names):
            return _open_hf(path)
        ggufs = [name for name in names if name.lower().endswith(".gguf")]
        if len(ggufs) == 1:
            return _open_gguf(path / ggufs[0])
        raise _nothing_to_load(path, names, ggufs)
    if not path.exists():
        raise ModelNotFoundError("There is no model at {path}.", path=path)
    if path.suffix.lower() in PICKLES:
        raise _pickle(path)
    return _open_gguf(path)


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that must be an object, without NaN or infinity. Raises InvalidModelError."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InvalidModelError("{path} is too large ({size} bytes).", path=path, size=path.stat().st_size)
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, a number of 5,000 digits, a million brackets
        raise InvalidModelError("{path} is not valid JSON: {reason}", path=path, reason=shown(str(error))) from error
    except OSError as error:
        raise InvalidModelError("{path} cannot be read: {reason}", path=path, reason=error.strerror) from error
    if not isinstance(value, dict):
        raise InvalidModelError("{path} must hold a JSON object.", path=path)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _nothing_to_load(folder: Path, names: list[str], ggufs: list[str]) -> InvalidModelError:
    if ggufs:
        return InvalidModelError(
            "{folder} holds several GGUF files ({names}). Name one of them.", folder=folder, names=", ".join(ggufs)
        )
    if any(name.endswith(PICKLES) for name in names):
        return _pickle(folder)
    if any(name.endswith(".safetensors") for name in names):
        return InvalidModelError("{folder} has no {file}.", folder=folder, file=CONFIG)
    return InvalidModelError("{folder} holds no weights: neither .safetensors nor .gguf files.", folder=folder)


def _pickle(path: Path) -> InvalidModelError:
    return InvalidModelError(
        "{path} holds the weights only as pickles (.bin, .pt), which can run any code when they are opened and are"
        " never loaded. Choose a copy with .safetensors or .gguf files.",
        path=path,
    )


def _open_gguf(path: Path) -> GGUFCheckpoint:
    file = GGUFFile.open(path)
    config = config_from_gguf(file)
    layout = gguf_layout(config)
    found = {name: tensor.shape for name, tensor in file.tensors.items() if name != ROPE_FACTORS}
    check_tensors(path, tensor_shapes(config, layout), found)
    for tensor in {tensor.type: tensor for tensor in file.tensors.values()}.values():
        check_decodable(path, tensor)
    return GGUFCheckpoint(path, config, layout, file)


def _open_hf(folder: Path) -> SafetensorsCheckpoint:
    raw = read_json_object(folder / CONFIG)
    _check_writes_text(folder, raw)
    config = config_from_hf(raw)
    layout = hf_layout(config)
    expected = tensor_shapes(config, layout)
    stored: dict[str, StoredTensor] = {}
    left_out = is_leftover_or_vision if config.family == "gemma3" else is_leftover
    for tensor in (tensor for file in weight_files(folder) for tensor in read_header(file, left_out)):
        name = _in_full(tensor.name, expected)
        if name in stored:
            raise InvalidModelError("{path} holds the tensor {tensor} twice.", path=folder, tensor=shown(name))
        stored[name] = tensor
    found = dict(stored)
    duplicate_head = found.pop("lm_head.weight", None) if config.tied else None
    check_tensors(folder, expected, {name: tensor.shape for name, tensor in found.items()})
    if duplicate_head is not None:
        embed = next(iter(expected.values()))
        check_tensors(folder, {"lm_head.weight": embed}, {"lm_head.weight": duplicate_head.shape})
    return SafetensorsCheckpoint(folder, config, layout, found, raw, duplicate_head)


def _check_writes_text(folder: Path, raw: Mapping[str, Any]) -> None:
    """Heads and encoders are models too, but no decoder comes of them."""
    named = raw.get("architectures")
    architecture = str(named[0])[:60] if isinstance(named, list) and named else ""
    if architecture.endswith(("ForSequenceClassification", "ForTokenClassification")):
        raise InvalidModelError(
            "{folder} labels texts ({architecture}) and writes none. Serve it and ask /v1/classify, or name the model that it was"
            " made from.",
            folder=folder,
            architecture=architecture,
        )
    if raw.get("model_type") == RNN_MODEL_TYPE:
        raise InvalidModelError(
            "{folder} is a recurrent model, which only Chatwright itself reads: it can be served and can complete text, but it"
            " cannot be tuned, exported or quantised.",
            folder=folder,
        )
    if raw.get("model_type") == "bert":
        raise InvalidModelError(
            "{folder} is an encoder (BERT): it turns texts into vectors and writes none. Name a model that continues text"
            " (supported: {supported}).",
            folder=folder,
            supported=SUPPORTED,
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of an HF folder: one, or those that its index names. Raises InvalidModelError."""
    if not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists():
            raise InvalidModelError(
                "{folder} has neither {file} nor {index}.", folder=folder, file=WEIGHTS, index=INDEX
            )
        return [folder / WEIGHTS]
    weight_map = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidModelError("{path} has no weight_map.", path=folder / INDEX)
    names = []
    for name in weight_map.values():
        # the index comes with the model: it must not lead out of the folder
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors") or "\\" in name:
            raise InvalidModelError(
                "{path} names {file}, which is not a .safetensors file in the same folder.",
                path=folder / INDEX,
                file=shown(name),
            )
        names.append(name)
    return [folder / name for name in dict.fromkeys(names)]


def read_header(file: Path, left_out: Callable[[str], bool] = lambda name: False) -> Iterable[StoredTensor]:
    """The tensors of a safetensors file but those left out by name, none read.

    Raises InvalidModelError, also for numbers that are no floats.
    """
    if not file.is_file():
        raise InvalidModelError("{path} is missing. Fetch the model again.", path=file)
    try:
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                if left_out(name):
                    continue
                part = tensors.get_slice(name)
                stored = StoredTensor(file, name, tuple(part.get_shape()), part.get_dtype())
                if stored.dtype not in FLOATS:
                    raise InvalidModelError(
                        "{path}: the tensor {tensor} has the number format {dtype}, which is not supported.",
                        path=file,
                        tensor=shown(name),
                        dtype=stored.dtype,
                    )
                yield stored
    except (SafetensorError, OSError) as error:
        raise InvalidModelError(
            "{path} is not a valid safetensors file ({reason}). Fetch it again.", path=file, reason=shown(str(error))
        ) from error


def _in_full(name: str, expected: Mapping[str, Shape]) -> str:
    """Files written from the bare decoder (as OpenAI's GPT-2) leave out the prefix of the causal model around it; in models of
    text and images the decoder has a prefix of its own, in Transformers 4 and 5 at different places."""
    name = name.removeprefix("language_model.").replace("model.language_model.", "model.", 1)
    if name not in expected:
        for prefix in ("transformer.", "model."):
            if prefix + name in expected:
                return prefix + name
    return name


def is_leftover(name: str) -> bool:
    """Constants that old versions of Transformers wrote among the weights: causal masks, rotary frequencies."""
    return name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"))


def is_leftover_or_vision(name: str) -> bool:
    """`is_leftover`, or what turns images into tokens in a model of text and images, whose decoder is read alone."""
    part = name.removeprefix("model.")
    return is_leftover(name) or part.startswith(("vision_tower.", "multi_modal_projector."))


def check_tensors(path: Path, expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Raises InvalidModelError when a tensor lacks, is too many or has another shape."""
    for name, shape in expected.items():
        if name not in found:
            raise InvalidModelError("{path} lacks the tensor {tensor}.", path=path, tensor=name)
        if found[name] != shape:
            raise InvalidModelError(
                "{path}: the tensor {tensor} has the shape {shape}, but the model's configuration needs {expected}.",
                path=path,
                tensor=name,
                shape=list(found[name]),
                expected=list(shape),
            )
    for name in found:
        if name not in expected:
            raise InvalidModelError(
                "{path} has the tensor {tensor}, which the model's configuration has no place for.",
                path=path,
                tensor=shown(name),
            )
