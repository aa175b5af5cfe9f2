"""The model card: README.md with YAML at its head, as hubs and `describe` read it, and what is known of the model in words below.

Every card has the same sections, and says so where something is not known or not measured. Sizes are read from the files that lie
beside it. Between `<!-- chatwright:… -->` marks figures can be added later (`add_scores`, `add_safety`); whatever a person
wrote elsewhere stays as it is.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal

import yaml

from chatwright import __version__
from chatwright.errors import StorageError, UsageError
from chatwright.model.checkpoint import CONFIG, GGUFCheckpoint, open_checkpoint, read_json_object
from chatwright.model.folder import CARD

PipelineTag = Literal["text-generation", "text-classification", "token-classification", "feature-extraction"]
Block = Literal["scores", "safety"]

SECTIONS = ("Data", "Recipe", "Sizes", "Scores", "Bias and memorisation", "Limits")
_HEADINGS: Mapping[Block, str] = {"scores": "Scores", "safety": "Bias and memorisation"}
_NOT_MEASURED: Mapping[Block, str] = {
    "scores": "_Not measured yet: `chatwright evaluate` writes its figures here._",
    "safety": "_Not measured yet. Take it that the model has the prejudices of its training text, and can recite parts of it._",
}
# Filled by `write_card`, which knows the files; anew where a card is copied to other files.
_SIZES = ("<!-- chatwright:sizes -->", "<!-- /chatwright:sizes -->")
_FIGURE = re.compile(r"- (?P<name>.+?): (?P<value>.*)")
# `n = 3 (engine, auto, 50 of 234 items)`: of how many items a figure is, and how many were drawn where not all were asked.
_N_ITEMS = re.compile(r"\bn = (?P<n>\d+)(?: \([^;)]*\b(?P<drawn>\d+) of \d+ items\b)?")
_GENERAL_LIMITS: Mapping[PipelineTag, str] = {
    "text-generation": "Its answers can be wrong, and it can repeat what it was trained on.",
    "text-classification": "It gives one of its labels to any text, also to one that none of them fits.",
    "token-classification": "It knows its own labels only, and can miss spans or find some that are none.",
    "feature-extraction": "Its vectors tell likeness in the texts it was trained on; elsewhere they can mislead.",
}


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a reader must know before using a model.

    `license` is "unknown" unless the caller knows: it depends on the data, which only their owner can judge. `languages` are
    codes ("en", "zh"). `data`, `recipe`, `scores` and `safety` are shown as they are, the last two with whatever they were
    measured on. `notes` are limits: sentences of what the model cannot do. `made_here`: not for a model that came from elsewhere
    without a card, and is only measured here.
    """

    title: str
    pipeline_tag: PipelineTag
    languages: Sequence[str] = ()
    base_model: str = ""
    library_name: str = "transformers"
    license: str = "unknown"
    dataset_fingerprint: str = ""
    tags: Sequence[str] = ()
    data: Mapping[str, object] = field(default_factory=dict)
    recipe: Mapping[str, object] = field(default_factory=dict)
    scores: Mapping[str, object] = field(default_factory=dict)
    safety: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()
    made_here: bool = True

    def render(self) -> str:
        """The text of README.md, but for the sizes, which `write_card` puts in."""
        head: dict[str, Any] = {
            "license": self.license,
            "language": list(self.languages),
            "library_name": self.library_name,
            "pipeline_tag": self.pipeline_tag,
            "base_model": self.base_model,
            "tags": ["chatwright", *self.tags],
        }
        yaml_head = yaml.safe_dump(
            {key: value for key, value in head.items() if value}, allow_unicode=True, sort_keys=False
        )
        fingerprint = {"fingerprint": self.dataset_fingerprint} if self.dataset_fingerprint else {}
        base = {"base model": self.base_model} if self.base_model else {}
        unknown = "_Not known here: see the base model._" if self.base_model else "_Not known._"
        limits = [*self.notes, _GENERAL_LIMITS[self.pipeline_tag]]
        return "\n".join(
            [
                "---",
                yaml_head.rstrip(),
                "---",
                f"# {_line(self.title)}",
                "",
                f"{'Made' if self.made_here else 'Made elsewhere, measured'} by Chatwright {__version__}.",
                *_section("Data", _figures(fingerprint | dict(self.data)) or [unknown]),
                *_section("Recipe", _figures(base | dict(self.recipe)) or ["_Not known._"]),
                *_section("Sizes", [*_SIZES]),
                *_section(_HEADINGS["scores"], _block("scores", _figures(self.scores))),
                *_section(_HEADINGS["safety"], _block("safety", _figures(self.safety))),
                *_section("Limits", [f"- {_line(limit)}" for limit in limits]),
                "",
            ]
        )


def write_card(folder: Path, text: str) -> None:
    """README.md of a model folder whose other files are written, with their sizes in it, also where the text is the card of the
    model that this one was made from. Raises OSError."""
    sizes = _figures(folder_sizes(folder)) or ["_Not known._"]
    begin, end = _SIZES
    before, found, rest = text.partition(begin + "\n")
    _, closed, after = rest.partition(end)
    if found and closed:
        text = "".join([before, begin, "\n", *(f"{line}\n" for line in sizes), end, after])
    (folder / CARD).write_text(text, encoding="utf-8", newline="\n")


def folder_sizes(folder: Path) -> Mapping[str, str]:
    """What the files of a model, an adapter or a head say of their size: parameters, weights, shape, context."""
    sizes: dict[str, str] = {}
    kinds: Counter[str] = Counter()
    n_bytes = 0
    for file in sorted(folder.iterdir()):
        if file.suffix == ".safetensors":
            for kind, shape in _stored(file):
                kinds[kind] += math.prod(shape)
            n_bytes += file.stat().st_size
        elif file.suffix == ".gguf":
            n_bytes += file.stat().st_size
            checkpoint = open_checkpoint(file)
            if isinstance(checkpoint, GGUFCheckpoint):
                for stored in checkpoint.file.tensors.values():
                    kinds[stored.type.name] += math.prod(stored.shape)
                sizes["shape"] = _shape(
                    checkpoint.config.n_layer, checkpoint.config.d_model, checkpoint.config.vocab_size
                )
                sizes["context"] = f"{checkpoint.config.context_length:,} tokens"
    if not kinds:
        return {}
    by_share = ", ".join(f"{kind} {n / kinds.total():.0%}" for kind, n in kinds.most_common())
    weights = {
        "parameters": f"{kinds.total():,}",
        "weights": f"{n_bytes:,} bytes ({next(iter(kinds)) if len(kinds) == 1 else by_share})",
    }
    if (folder / CONFIG).is_file() and "shape" not in sizes:
        raw = read_json_object(folder / CONFIG)
        n_layer, width, vocabulary, context = (
            next((raw[key] for key in keys if isinstance(raw.get(key), int)), None)
            for keys in (
                ("num_hidden_layers", "n_layer"),
                ("hidden_size", "n_embd", "d_model"),
                ("vocab_size",),
                ("max_position_embeddings", "n_positions", "context_length"),
            )
        )
        if n_layer and width and vocabulary:
            sizes["shape"] = _shape(n_layer, width, vocabulary)
        if context:
            sizes["context"] = f"{context:,} tokens"
    return weights | sizes


def _stored(file: Path) -> Iterator[tuple[str, Sequence[int]]]:
    """(number format, shape) of every tensor of a safetensors file that was just written, of whatever numbers."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield tensor["dtype"], tensor["shape"]


def _shape(n_layer: int, width: int, vocabulary: int) -> str:
    return f"{n_layer} layers of width {width:,}, a vocabulary of {vocabulary:,}"


def add_scores(folder: Path, scores: Mapping[str, object], new: ModelCard | None = None) -> Sequence[str]:
    """Adds figures to the card of a model folder, or renews those of the same names; twice is as once. Returns the names of those
    that were not taken, because the card has one of more items.

    Everything outside the marks of that section stays byte for byte. A folder without a card gets one, `new` where the caller
    knows more than the folder's name; a card without the section gets it at its end. Raises UsageError where there is no folder,
    StorageError.
    """
    return _add(folder, "scores", scores, new)


def add_safety(folder: Path, figures: Mapping[str, object], new: ModelCard | None = None) -> Sequence[str]:
    """`add_scores` for the section on bias, toxicity and memorisation."""
    return _add(folder, "safety", figures, new)


def _add(folder: Path, block: Block, figures: Mapping[str, object], new: ModelCard | None) -> Sequence[str]:
    if not folder.is_dir():
        raise UsageError("{path} is no model folder, so it has no card to write figures into.", path=folder)
    card = folder / CARD
    try:
        if not card.is_file():
            title = folder.resolve().name
            new = new or ModelCard(title=title, pipeline_tag="text-generation", made_here=False)
            write_card(folder, new.render())
        with card.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
        changed, kept = with_figures(text, block, figures)
        if changed != text:
            _replace(card, changed)
    except OSError as error:
        raise StorageError("The card {path} cannot be written: {reason}", path=card, reason=error.strerror) from error
    return kept


def with_figures(text: str, block: Block, figures: Mapping[str, object]) -> tuple[str, Sequence[str]]:
    """The card with these figures among those of the block; lines of other kinds in it are kept. The names are those of figures
    that stay as they were (see `_stays`)."""
    newline = "\r\n" if "\r\n" in text else "\n"
    begin, end = _marks(block)
    start = text.find(begin)
    stop = text.find(end, start + len(begin)) if start >= 0 else -1
    if stop < 0:
        heading = f"## {_HEADINGS[block]}"
        text = text.rstrip("\r\n") + newline
        if not re.search(rf"^{re.escape(heading)}\s*$", text, re.MULTILINE):
            text += newline + heading + newline
        else:  # a card of an older version, or a person's own
            heading = f"## {_HEADINGS[block]}, measured"
            text += newline + heading + newline
        text += newline + begin + newline + end + newline
        start = text.index(begin)
        stop = text.index(end)
    shown: dict[str, str] = {}
    others = []
    for line in text[start + len(begin) : stop].splitlines():
        match = _FIGURE.fullmatch(line.strip())
        if match:
            shown[match["name"]] = match["value"]
        elif line.strip() and line.strip() != _NOT_MEASURED[block]:
            others.append(line)
    kept = []
    for given, figure in figures.items():
        name, value = _name(given), _line(str(figure))
        if _stays(shown.get(name, ""), value):
            kept.append(given)
        else:
            shown[name] = value
    lines = [*(f"- {name}: {value}" for name, value in shown.items()), *others] or [_NOT_MEASURED[block]]
    return text[:start] + newline.join([begin, *lines, ""]) + text[stop:], kept


def _stays(old: str, new: str) -> bool:
    """A quick look does not take the place of a measurement: a figure of items that were drawn replaces none of more, and none of
    all items. One of all items always does, also where bad ones have been taken out of the task since."""
    was, now = _N_ITEMS.search(old), _N_ITEMS.search(new)
    if was is None or now is None or now["drawn"] is None:
        return False
    if was["drawn"] is None:
        return int(was["n"]) >= int(now["n"])
    return int(was["drawn"]) > int(now["drawn"])


def _replace(card: Path, text: str) -> None:
    """The card is there whole, before and after; a crash between leaves the old one."""
    with NamedTemporaryFile(
        "w", dir=card.parent, prefix=".card-", delete=False, encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        temporary = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(card.stat().st_mode & 0o777)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    temporary.replace(card)


def _marks(block: Block) -> tuple[str, str]:
    return f"<!-- chatwright:{block} -->", f"<!-- /chatwright:{block} -->"


def _block(block: Block, lines: Sequence[str]) -> list[str]:
    begin, end = _marks(block)
    return [begin, *(lines or [_NOT_MEASURED[block]]), end]


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return ["", f"## {title}", "", *lines]


def _figures(rows: Mapping[str, object]) -> list[str]:
    return [f"- {_name(str(name))}: {_line(str(value))}" for name, value in rows.items()]


def _name(text: str) -> str:
    """The part of a line before its first colon."""
    return _line(text).replace(": ", ", ")


def _line(text: str) -> str:
    """A name from a file must not begin a line of its own, nor a comment."""
    return " ".join(text.split()).replace("<!--", "<! --").replace("-->", "-- >") or "-"
