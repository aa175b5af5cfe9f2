"""How the vectors of tokens become the one of a text, as a folder in the layout of sentence-transformers says it. No torch.

A folder without modules.json means what sentence-transformers takes it for: the mean, not scaled (Reimers & Gurevych 2019).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from chatwright.errors import InvalidModelError
from chatwright.model.checkpoint import MAX_JSON_BYTES, read_json_object
from chatwright.model.config import shown

MODULES = "modules.json"
PoolingMode = Literal["mean", "cls", "max"]

_FLAGS: Mapping[str, PoolingMode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True)
class Pooling:
    """`mode`: the mean of a text's tokens, the first one, or the largest number of each channel. `normalize`: the vector is
    scaled to length one. `max_tokens`: longer texts were cut in training; None where the folder does not say.
    """

    mode: PoolingMode = "mean"
    normalize: bool = False
    max_tokens: int | None = None


def read_pooling(folder: Path) -> Pooling:
    """The pooling of an encoder's folder. Raises InvalidModelError for what would be computed otherwise here."""
    if not (folder / MODULES).is_file():
        return Pooling()
    mode: PoolingMode | None = None
    normalize = False
    for kind, path in _modules(folder / MODULES):
        match kind:
            case "Transformer" if mode is None:
                pass
            case "Pooling" if mode is None:
                mode = _mode(folder / path / "config.json")
            case "Normalize":
                normalize = True
            case _:
                _refuse(folder / MODULES, "type", kind)
    settings = _optional(folder / "sentence_bert_config.json")
    if settings.get("do_lower_case"):
        _refuse(folder / "sentence_bert_config.json", "do_lower_case", settings["do_lower_case"])
    prompt = _optional(folder / "config_sentence_transformers.json").get("default_prompt_name")
    if prompt is not None:
        _refuse(folder / "config_sentence_transformers.json", "default_prompt_name", prompt)
    longest = settings.get("max_seq_length")
    if longest is not None and (not isinstance(longest, int) or isinstance(longest, bool) or longest < 3):
        _refuse(folder / "sentence_bert_config.json", "max_seq_length", longest)
    return Pooling(mode or "mean", normalize, longest)


def _modules(path: Path) -> list[tuple[str, str]]:
    """(last word of the type, folder) of each module, in order."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError) as error:
        raise InvalidModelError("{path} is not valid JSON: {reason}", path=path, reason=shown(str(error))) from error
    modules = listed if isinstance(listed, list) else [None]
    found = []
    for module in modules:
        kind, folder = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
        # the list comes with the model: it must not lead out of the folder
        if not isinstance(kind, str) or not isinstance(folder, str) or Path(folder).name != folder or "\\" in folder:
            raise InvalidModelError(
                "{path} is not a list of modules in folders beside it: {value}.", path=path, value=shown(module)
            )
        found.append((kind.rpartition(".")[2], folder))
    return found


def _mode(path: Path) -> PoolingMode:
    raw = _optional(path)
    named = raw.get("pooling_mode")
    if named is not None:
        if named not in get_args(PoolingMode):
            _refuse(path, "pooling_mode", named)
        return named  # type: ignore[no-any-return]
    on = [key for key, value in raw.items() if key.startswith("pooling_mode_") and value is True]
    if len(on) != 1 or on[0] not in _FLAGS:
        _refuse(path, "pooling_mode", ", ".join(on))
    return _FLAGS[on[0]]


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _refuse(path: Path, key: str, value: object) -> NoReturn:
    raise InvalidModelError(
        "{path} sets {key} to {value}, which is not supported.", path=path, key=key, value=shown(value)
    )
