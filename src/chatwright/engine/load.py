"""A folder of files becomes a model that talks: weights into a local engine, tokenizer and chat template above it."""

from __future__ import annotations

import hashlib
import logging
from importlib.metadata import version
from pathlib import Path

from chatwright import __version__
from chatwright.engine.local import LocalEngine
from chatwright.engine.recurrent import RecurrentRunner
from chatwright.engine.runner import ModelRunner
from chatwright.engine.scheduler import Scheduler
from chatwright.engine.text import TextModel
from chatwright.errors import InvalidModelError, StorageError
from chatwright.model.adapter import Adapter, check_fits, open_adapter
from chatwright.model.checkpoint import GGUFCheckpoint, open_checkpoint
from chatwright.model.config import ModelConfig
from chatwright.model.describe import describe_model
from chatwright.model.rnn_checkpoint import is_recurrent, open_rnn
from chatwright.model.rnn_config import RNNConfig
from chatwright.settings import Settings
from chatwright.tokenizer.chat import load_chat_template
from chatwright.tokenizer.fim import FimTokens
from chatwright.tokenizer.load import load_tokenizer

log = logging.getLogger(__name__)

# Prompt tokens computed beside the decoding of others in one step: long enough for efficient matrix products, short enough
# (a second or so on two cores for the default model) that nobody's answer stutters.
MAX_STEP_TOKENS = 256
# Below this not even a short conversation fits.
MIN_CACHE_TOKENS = 256
# The cache never takes more than this share of the memory that is free when the model has been loaded.
CACHE_SHARE_OF_MEMORY = 0.5


def load_text_model(path: Path, name: str, settings: Settings, adapter: Path | None = None) -> TextModel:
    """Load the model at `path` (a folder or a .gguf file) and start its engine; blocking, seconds. A LoRA adapter is merged.

    Raises InvalidModelError for what can not be loaded, UsageError for a device that is not there.
    """
    info = describe_model(path)
    recurrent = is_recurrent(path)
    checkpoint = open_rnn(path) if recurrent else open_checkpoint(path)
    if isinstance(checkpoint, GGUFCheckpoint):
        weights, metadata = [checkpoint.path], checkpoint.file.metadata
    else:
        weights, metadata = sorted({tensor.file for tensor in checkpoint.tensors.values()}), None
    if adapter is not None:
        weights.append(_checked_adapter(adapter, info.config).weights)
    folder = path if path.is_dir() else path.parent
    tokenizer = load_tokenizer(folder, metadata)
    template = load_chat_template(folder, metadata)
    if tokenizer.vocab_size > info.config.vocab_size:
        raise InvalidModelError(
            "{path}: the tokenizer has {n_tokens} tokens, but the model knows {vocab_size}. They do not belong together.",
            path=path,
            n_tokens=tokenizer.vocab_size,
            vocab_size=info.config.vocab_size,
        )
    runner: ModelRunner | RecurrentRunner
    if recurrent:
        runner = RecurrentRunner.load(path, device=settings.device, n_threads=settings.n_threads)
    else:
        runner = ModelRunner.load(path, device=settings.device, n_threads=settings.n_threads, adapter=adapter)
    affordable = int(runner.free_bytes() * CACHE_SHARE_OF_MEMORY) // runner.cache_bytes_per_token()
    if affordable < MIN_CACHE_TOKENS:
        raise StorageError(
            "{path} is loaded, but the memory left holds only {n} tokens of conversation. Free memory, or take a smaller model.",
            path=path,
            n=affordable,
        )
    if affordable < info.context_length:
        log.warning(
            "memory is short: conversations with %s are limited to %d tokens of %d",
            name,
            affordable,
            info.context_length,
        )
    scheduler = Scheduler(
        max_batch=settings.max_batch,
        max_step_tokens=MAX_STEP_TOKENS,
        cache_tokens=min(settings.kv_cache_tokens, affordable),
    )
    engine = LocalEngine(runner, scheduler, max_context=info.config.context_length, max_queue=settings.max_queue)
    return TextModel(
        name,
        engine,
        tokenizer,
        template,
        languages=info.languages,
        fim=FimTokens.of(tokenizer) if info.fills_in else None,
        created=int(weights[0].stat().st_mtime),
        fingerprint=_fingerprint(weights, settings),
    )


def _checked_adapter(path: Path, config: ModelConfig | RNNConfig) -> Adapter:
    """The adapter, refused before the seconds of loading when it was made for another model."""
    adapter = open_adapter(path)
    if not isinstance(config, ModelConfig):
        raise InvalidModelError("A recurrent model cannot have the adapter in {folder}.", folder=adapter.path)
    check_fits(adapter, config)
    return adapter


def _fingerprint(weights: list[Path], settings: Settings) -> str:
    """Changes with whatever can change an answer: weights, code, precision, threads (OpenAI's `system_fingerprint`)."""
    parts = [__version__, version("torch"), "float32", str(settings.n_threads)]
    for file in weights:
        stat = file.stat()
        parts += [file.name, str(stat.st_size), str(stat.st_mtime_ns)]
    return "fp_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]
