"""Which files of a repository make up a model: configuration, tokenizer, safetensors or one GGUF; no pickles."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from chatwright.errors import PullError

_SMALL = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "README.md",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "model.safetensors.index.json",
    # of encoders: how the vectors of tokens become one of a text
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
}
POOLING = "1_Pooling/config.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SPLIT_GGUF = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def select_files(files: Collection[str], wanted: str | None, where: str) -> list[str]:
    """The files to fetch out of `files` (paths inside the repository, which may be anything).

    `wanted`: a GGUF's file name or quantisation such as `Q4_K_M`, or None. Raises PullError, naming the choices.
    """
    # Only the top folder, but for one file: variants for other runtimes lie in subfolders (onnx/), and no path can leave.
    top = sorted(name for name in files if PurePosixPath(name).name == name)
    small = [name for name in top if name in _SMALL]
    if wanted is not None:
        return [choose_gguf(top, wanted, where), *(name for name in small if name.startswith(("README", "LICENSE")))]
    if POOLING in files and "modules.json" in top:
        small.append(POOLING)
    if "model.safetensors" in top:
        return ["model.safetensors", *(name for name in small if name != "model.safetensors.index.json")]
    if shards := [name for name in top if _SHARD.fullmatch(name)]:
        return [*shards, *small]
    if any(name.endswith(".gguf") for name in top):
        return [choose_gguf(top, None, where), *(name for name in small if name.startswith(("README", "LICENSE")))]
    if any(name.endswith(_PICKLES) for name in top):
        raise PullError(
            "{where} holds its weights only as pickle files, which can run code when they are opened: choose a "
            "repository "
            "with safetensors or GGUF files.",
            where=where,
        )
    raise PullError("{where} holds no model: neither model.safetensors nor a .gguf file.", where=where)


def choose_gguf(files: Collection[str], wanted: str | None, where: str) -> str:
    """The one GGUF among `files` that `wanted` names (by file name or quantisation), or the only one there is."""
    ggufs = [name for name in files if name.endswith(".gguf") and not _SPLIT_GGUF.search(name) and "mmproj" not in name]
    matching = ggufs
    if wanted is not None:
        exact = [name for name in ggufs if wanted in (name, name.removesuffix(".gguf"))]
        tag = re.compile(rf"(?:^|[^A-Za-z0-9]){re.escape(wanted)}\.gguf$", re.IGNORECASE)
        matching = exact or [name for name in ggufs if tag.search(name)]
    if len(matching) == 1:
        return matching[0]
    if not ggufs:
        raise PullError("{where} has no GGUF file in one piece.", where=where)
    raise PullError(
        "{where} has several GGUF files: choose one by adding :NAME, where NAME is one of {choices}.",
        where=where,
        choices=", ".join(name.removesuffix(".gguf") for name in (matching or ggufs)),
    )
