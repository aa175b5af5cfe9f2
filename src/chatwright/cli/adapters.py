"""LoRA adapters on the command line: `--adapter NAME=DIR`, and an adapter's folder in the place of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chatwright.errors import ModelNotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatwright.hub import ModelsFolder
    from chatwright.model.adapter import Adapter


@dataclass(frozen=True)
class Chosen:
    """A model to be loaded: the name it is served by, its weights, and the adapter to merge into them, if any."""

    name: str
    path: Path
    adapter: Path | None = None
    base: str = ""  # the name of the model that an adapter is put on


def resolve_model(name_or_path: str, folder: ModelsFolder) -> Chosen:
    """A model by name or path; the path may also be that of an adapter, or of a run with one, whose base is here.

    Raises ModelNotFoundError, InvalidModelError for a broken adapter.
    """
    from chatwright.model.adapter import is_adapter, open_adapter

    path = Path(name_or_path).expanduser() if "\0" not in name_or_path else Path()
    if folder.find(name_or_path) is not None or not is_adapter(path):
        return Chosen(*folder.resolve(name_or_path, allow_path=True))
    adapter = open_adapter(path)
    try:
        base, weights = folder.resolve(adapter.base_name, allow_path=True)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            "The adapter in {folder} was made for {base}, which is not here. If you have it under another name:"
            " `chatwright serve MODEL --adapter NAME={folder}`.",
            folder=adapter.path,
            base=repr(adapter.base_name[:200]),
        ) from error
    named = path.resolve().parent if path.resolve().name == "adapter" else path.resolve()
    return Chosen(named.name, weights, adapter.path, base)


def resolve_whole_model(name_or_path: str, folder: ModelsFolder) -> tuple[str, Path]:
    """`folder.resolve` for what changes the weights of a model: an adapter has none of its own to change.

    Raises UsageError for an adapter, ModelNotFoundError.
    """
    from chatwright.hub.folder import loadable_path
    from chatwright.model.adapter import is_adapter, open_adapter

    path = Path(name_or_path).expanduser() if "\0" not in name_or_path else Path()
    if folder.find(name_or_path) is None and not loadable_path(path) and is_adapter(path):
        raise UsageError(
            "{path} is a LoRA adapter of {base}, and no whole model. Merge the two, and take DIR: chatwright export {path} --to hf"
            " --out DIR. Or take {base} itself.",
            path=name_or_path,
            base=open_adapter(path).base_name[:200],
        )
    return folder.resolve(name_or_path, allow_path=True)


def with_adapters(models: Sequence[Chosen], options: Sequence[str]) -> list[Chosen]:
    """The models, and one more for each `NAME=DIR`: its base with that adapter.

    Raises UsageError when an option is not of that form, when names clash, or when it is not clear which of several models is
    the base; ModelNotFoundError, InvalidModelError for the adapter.
    """
    from chatwright.hub import is_name
    from chatwright.model.adapter import open_adapter

    chosen = list(models)
    for option in options:
        name, equals, folder = option.partition("=")
        if not equals or not folder or not is_name(name):
            raise UsageError(
                "--adapter takes NAME=DIR, such as support=runs/support; {option!r} is not of that form.",
                option=option[:200],
            )
        if any(name == other.name for other in chosen):
            raise UsageError(
                "The adapter in {folder} cannot be called {name}: another model is called so. Choose another name.",
                folder=folder,
                name=name,
            )
        adapter = open_adapter(Path(folder).expanduser())
        base = _base_of(adapter, [model for model in models if model.adapter is None], name)
        chosen.append(Chosen(name, base.path, adapter.path, base.name))
    return chosen


def _base_of(adapter: Adapter, models: Sequence[Chosen], name: str) -> Chosen:
    """The only model there is, whatever the adapter calls its base; of several the one that it names."""
    if len(models) == 1:
        return models[0]
    from chatwright.hub.adapters import is_called

    named = [model for model in models if is_called(adapter.base_name, model.name, model.path)]
    if len(named) != 1:
        raise UsageError(
            "Which of the models is the base of the adapter {name}? It was made for {base}. Serve it with that model alone.",
            name=name,
            base=repr(adapter.base_name[:200]),
        )
    return named[0]
