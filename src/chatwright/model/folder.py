"""Folders that appear whole or not at all, and whole model folders: weights, tokenizer, sampling defaults and card."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from chatwright.errors import StorageError, UsageError

if TYPE_CHECKING:
    from chatwright.model.gpt import GPT
    from chatwright.model.rnn import RNN

GENERATION_CONFIG = "generation_config.json"
CARD = "README.md"
WEIGHTS_SUFFIX = ".safetensors"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to write into, which becomes `folder` when the block ends without an error.

    Its files are on the disk by then, so that a power cut leaves nothing half-written under the final name. Weights get the mode
    of any other new file (safetensors makes them 0600, which a server of another user cannot read). Raises UsageError when
    `folder` is there and not empty, StorageError when something cannot be written.
    """
    folder = Path(folder)
    try:
        check_new_folder(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _swept(), TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            whole = Path(temporary) / "model"
            whole.mkdir()
            yield whole
            for file in whole.rglob("*"):
                if file.is_file():
                    if file.suffix == WEIGHTS_SUFFIX:
                        # what the umask left of 0777, which cannot be asked for without setting it for all threads
                        file.chmod(whole.stat().st_mode & 0o666)
                    _flush(file)
            if folder.exists():
                folder.rmdir()  # it is empty; Windows would not replace it
            whole.rename(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError("The model cannot be written to {folder}: {reason}", folder=folder, reason=error) from error


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write into, which becomes `path` when the block ends without an error.

    As `new_folder`: never half-written, never over something that is there. Raises UsageError, StorageError.
    """
    path = Path(path)
    try:
        check_free(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _swept(), TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
            whole = Path(temporary) / "whole"
            yield whole
            _flush(whole)
            check_free(path)  # again, after minutes
            whole.rename(path)
    except OSError as error:
        raise StorageError("The model cannot be written to {folder}: {reason}", folder=path, reason=error) from error


@contextmanager
def _swept() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that what is half written goes away; by itself it ends a process at once. Where
    somebody handles it, a server or a run that saves first, that stays so."""
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def check_new_folder(folder: Path) -> None:
    """Raises UsageError where `new_folder` would: for who says what is written before it is, or works before."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError("{folder} is not empty. Remove it or choose another folder.", folder=folder)
    if not folder.is_dir():
        check_free(folder)


def check_free(path: Path) -> None:
    """Raises UsageError where something lies at `path`."""
    if path.exists() or path.is_symlink():
        raise UsageError("{path} is there already. Remove it or choose another name.", path=path)


def write_model_folder(
    model: GPT | RNN,
    folder: Path,
    *,
    write_tokenizer: Callable[[Path], None],
    generation: Mapping[str, Any],
    card: str,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """A complete folder in HF layout: config, weights, tokenizer and chat template, generation_config.json, model card.

    `write_tokenizer` writes the tokenizer's files into the folder it is given (`tokenizer.save.copy_tokenizer` of a source).
    `generation` are the sampling defaults; its `eos_token_id` (a number or a list: whatever ends an answer), `bos_token_id` and
    `pad_token_id` also go into config.json, with whatever `extra` holds. `card` is the text of README.md (see `model.card`).
    Raises UsageError when `folder` is not empty, StorageError, InvalidModelError for a model that has no HF form.
    """
    from chatwright.model.card import write_card
    from chatwright.model.gpt import GPT
    from chatwright.model.rnn_folder import write_rnn
    from chatwright.model.save import write_model

    special = {key: generation[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in generation}
    with new_folder(folder) as whole:
        more = special | dict(extra or {})
        if isinstance(model, GPT):
            write_model(model, whole, extra=more)
        else:
            write_rnn(model, whole, extra=more)
        write_tokenizer(whole)
        write_json(whole / GENERATION_CONFIG, dict(generation))
        write_card(whole, card)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """The object, as Transformers writes its own files."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
