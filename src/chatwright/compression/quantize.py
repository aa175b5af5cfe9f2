"""Weights in 8 or 4 bits, written as a model folder: by rounding, or calibrated on text (GPTQ)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as Type
from numpy.typing import NDArray
from torch import Tensor

from chatwright.compression.bill import Bill, measured, score, scored_bytes
from chatwright.compression.blocks import BLOCK, round_to_blocks, values_of_blocks
from chatwright.compression.card import write_made_card
from chatwright.compression.decoder import check_decoder, load_decoder
from chatwright.compression.gptq import gptq
from chatwright.compression.layerwise import walk
from chatwright.compression.quantized_file import Stored, write_weights
from chatwright.compression.sensitivity import measure_sensitivity, most_sensitive
from chatwright.compression.texts import calibration_texts, calibration_windows, held_out_documents, held_out_texts
from chatwright.errors import InvalidDatasetError, InvalidModelError, UsageError
from chatwright.evaluation.documents import EncodedDocument
from chatwright.hub.manifest import pulled_license
from chatwright.i18n import _
from chatwright.model.card import ModelCard
from chatwright.model.config import parameter_count
from chatwright.model.describe import describe_model
from chatwright.model.folder import new_folder
from chatwright.model.gpt import GPT
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.training.base_model import BaseModel
from chatwright.training.progress import Progress, Silent

Precision = Literal["int8", "int4"]
Method = Literal["round", "gptq"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
METHODS: tuple[Method, ...] = get_args(Method)

EIGHT_BIT_SHARE = 0.1
SENSITIVITY_WINDOWS = 8

_FILES: Mapping[Precision, Literal["Q8_0", "Q4_1"]] = {"int8": "Q8_0", "int4": "Q4_1"}


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """`method` None: gptq for 4 bits where there is text to calibrate on, else rounding. `calibration`, `text`: a dataset or a
    file; `text` is what the bill is measured on, by default what of the calibration is held out.
    `eight_bit_share`: of the layers' weights, at most so many stay in 8 bits where int4 is calibrated: the matrices that would
    lose most. `measure`: make a bill at all.
    """

    to: Precision
    method: Method | None = None
    calibration: Path | None = None
    text: Path | None = None
    n_windows: int | None = None
    eight_bit_share: float = EIGHT_BIT_SHARE
    measure: bool = True

    def __post_init__(self) -> None:
        if self.method == "gptq" and self.to == "int8":
            raise UsageError("--method gptq is for --to int4: at 8 bits rounding is exact enough.")
        if self.method == "gptq" and self.calibration is None:
            raise UsageError(
                "--method gptq needs text to calibrate on: add --calibration with a dataset or a text file."
            )
        if not 0 <= self.eight_bit_share < 1:  # NaN too
            raise UsageError(
                "--eight-bit-share takes a share from 0 to below 1, such as 0.1, not {share:g}.",
                share=self.eight_bit_share,
            )

    @property
    def chosen(self) -> Method:
        """The method, decided."""
        return self.method or ("gptq" if self.to == "int4" and self.calibration is not None else "round")


def quantize(
    base: BaseModel, options: QuantizeOptions, out: Path, *, n_threads: int, progress: Progress | None = None
) -> Bill:
    """Writes the folder `out`, whole or not at all, and says what it costs.

    Raises UsageError when `out` is there, InvalidModelError, InvalidDatasetError, StorageError; all before long work where that is
    possible.
    """
    progress = progress or Silent()
    config = check_decoder(base, "quantize")
    torch.set_num_threads(n_threads)
    with new_folder(out) as whole:
        tokenizer = base.tokenizer()
        windows = _windows(base, options, tokenizer) if options.chosen == "gptq" else None
        documents = (
            scored_documents(options.text, options.calibration, tokenizer, parameter_count(config))
            if options.measure
            else []
        )
        model = load_decoder(base)
        progress.stage(_("Measuring the model before"), None)
        before = score(model, documents)
        stored = _quantized(model, options, windows, progress)
        progress.stage(_("Writing"), None)
        title = f"{base.title} {options.to}"
        base.write_tokenizer(whole)
        lacking = write_weights(whole, config, stored, _FILES[options.to], _general(base, title))
        progress.stage(_("Measuring the model after"), None)
        after = score(model, documents)
        bill = Bill(
            measured(base.path, config, before, n_threads, options.measure),
            measured(whole, config, after, n_threads, options.measure),
            _notes(base, options, lacking),
        )
        made = ModelCard(title=title, pipeline_tag="text-generation", tags=["quantised"], notes=bill.notes)
        write_made_card(whole, base, replace(made, recipe=_recipe(options, windows)), bill)
    return bill


def scored_documents(
    text: Path | None, calibration: Path | None, tokenizer: Tokenizer, n_parameters: int
) -> list[EncodedDocument]:
    """What both models are measured on; nothing where none was given, and where a dataset that was given for something else holds
    nothing out. Raises InvalidDatasetError for one that was given and has none."""
    source = text or calibration
    if source is None:
        return []
    documents = held_out_documents(held_out_texts(source, calibration), tokenizer, scored_bytes(n_parameters))
    if documents or (text is None and source.is_dir()):
        return documents
    if source.is_dir():
        raise InvalidDatasetError(
            "{path} has no held-out text to measure on. Give --text another dataset, or a text file.", path=source
        )
    raise InvalidDatasetError("{path} has no text to measure on.", path=source)


def _windows(base: BaseModel, options: QuantizeOptions, tokenizer: Tokenizer) -> Tensor:
    assert options.calibration is not None
    n = options.n_windows or default_windows(parameter_count(check_decoder(base, "quantize")))
    texts = calibration_texts(options.calibration, options.text)
    return calibration_windows(texts, options.calibration, tokenizer, base.context_length, n)


def default_windows(n_parameters: int) -> int:
    """More text helps little beyond some 100 windows; a large model pays for each."""
    return int(min(128, max(32, 1e10 / n_parameters)))


@np.errstate(over="ignore", invalid="ignore")  # what does not fit is refused in a sentence
@torch.no_grad()
def _quantized(model: GPT, options: QuantizeOptions, windows: Tensor | None, progress: Progress) -> dict[str, Stored]:
    """Every parameter as it is stored; the model then has the values of its blocks."""
    parameters = dict(model.named_parameters())
    stored: dict[str, Stored] = {}

    def keep(name: str, blocks: Any, kind: Type) -> None:
        store(name, blocks, kind, values_of_blocks(blocks, kind))

    def store(name: str, rows: Any, kind: Type, values: NDArray[np.float32]) -> None:
        if not np.isfinite(values).all():
            raise InvalidModelError(
                "The parameter {name} has weights up to {most:.3g}: {kind} holds none so large. Nothing was written.",
                name=name,
                most=float(parameters[name].abs().max()),
                kind=kind.name,
            )
        stored[name] = Stored(rows, kind)
        parameters[name].copy_(torch.from_numpy(values))

    eight: set[str] = set()

    def visit(names: Sequence[str], moment_II: Tensor) -> None:
        for name in (f"{each}.weight" for each in names):
            if len(moment_II) % BLOCK:
                continue
            if name in eight:
                keep(name, round_to_blocks(parameters[name].numpy(), Type.Q8_0), Type.Q8_0)
            else:
                keep(name, gptq(parameters[name], moment_II), Type.Q4_1)

    if windows is not None:
        if options.eight_bit_share:
            tried = windows[:SENSITIVITY_WINDOWS]
            progress.stage(_("Measuring what rounding would hurt"), len(tried))
            eight = most_sensitive(model, measure_sensitivity(model, tried, progress), options.eight_bit_share)
        progress.stage(_("Calibrating layer by layer"), model.config.n_layer)
        walk(model, windows, visit, progress)
    progress.stage(_("Rounding"), len(parameters))
    head = "embed.weight" if model.head is None else "head.weight"
    for number, (name, parameter) in enumerate(parameters.items(), 1):
        if name not in stored:
            kind = _kind(name, parameter, options.to, head)
            values = parameter.detach().numpy()
            if kind in (Type.F32, Type.F16):
                rows = values.astype(np.float32 if kind is Type.F32 else np.float16)
                store(name, rows, kind, rows.astype(np.float32))
            else:
                keep(name, round_to_blocks(values, kind), kind)
        progress.advance(number)
    return stored


def _kind(name: str, parameter: Tensor, to: Precision, head: str) -> Type:
    if parameter.dim() == 1 or name == "position_embed.weight":
        return Type.F32
    if parameter.shape[-1] % BLOCK:
        return Type.F16  # no blocks fit
    # the matrix that chooses among words stays in 8 bits: in 4 it would cost more than all others together
    return Type.Q8_0 if name == head else Type[_FILES[to]]


def _recipe(options: QuantizeOptions, windows: Tensor | None) -> dict[str, Any]:
    recipe: dict[str, Any] = {"precision": options.to, "method": options.chosen}
    if windows is not None:
        recipe["calibrated on"] = f"{windows.numel():,} tokens"
    return recipe


def _general(base: BaseModel, title: str) -> dict[str, Any]:
    info = describe_model(base.path)
    known: dict[str, Any] = {"general.name": title}
    if (license := info.license or pulled_license(base.path)) is not None:
        known["general.license"] = license
    if info.languages:
        known["general.languages"] = list(info.languages)
    if info.fills_in:
        known["chatwright.fim"] = True
    return known


def _notes(base: BaseModel, options: QuantizeOptions, lacking: str | None) -> list[str]:
    stored = describe_model(base.path).quantization
    notes = []
    if lacking is not None:
        notes.append(_("Chatwright loads the folder, llama.cpp does not: {reason}", reason=lacking))
    if stored in ("F32", "BF16", "F16") and options.to == "int8":
        notes.append(
            _("Loaded by `serve`, the model before is rounded to 8 bits too: int8 saves disk and loading, not time.")
        )
    if stored.startswith("Q4") and options.to == "int8":
        notes.append(_("The weights have 4 bits already: 8 make the file larger and nothing better."))
    if stored.startswith(("Q", "IQ")) and options.to == "int4":
        notes.append(
            _(
                "The weights are rounded already ({kind}), and are rounded once more: quantise what it was made of.",
                kind=stored,
            )
        )
    return notes
