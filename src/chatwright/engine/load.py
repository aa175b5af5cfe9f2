"""The weights of a model become a local engine; with tokenizer and chat template above it, a model that talks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from chatwright.engine.device import find_device, loading, weights_dtype
from chatwright.engine.encoder_engine import EncoderEngine
from chatwright.engine.encoder_runner import EncoderRunner
from chatwright.engine.grammar import GrammarCompiler
from chatwright.engine.head_runner import HeadRunner
from chatwright.engine.kernels.library import Kernels, Unavailable, load_kernels
from chatwright.engine.kernels.runner import KernelRunner, unsupported
from chatwright.engine.local import LocalEngine
from chatwright.engine.opened import open_model
from chatwright.engine.pacing import Pacer
from chatwright.engine.recurrent import RecurrentRunner
from chatwright.engine.runner import ModelRunner
from chatwright.engine.scheduler import Scheduler
from chatwright.engine.text import TextModel
from chatwright.engine.tokenizers import load_model_tokenizer
from chatwright.errors import StorageError, UsageError
from chatwright.i18n import _
from chatwright.model.config import ModelConfig
from chatwright.model.describe import describe_model
from chatwright.model.encoder_config import EncoderConfig
from chatwright.model.rnn_config import RNNConfig
from chatwright.settings import Settings

log = logging.getLogger(__name__)

# Prompt tokens of one step while nobody's answer is under way (else the pacer makes it fewer): long enough for efficient matrix
# products, short enough (a second or so on two cores for the default model) that a newcomer gets his turn.
MAX_STEP_TOKENS = 256
# Below this not even a short conversation fits.
MIN_CACHE_TOKENS = 256
# The cache never takes more than this share of the memory that is free when the model has been loaded.
CACHE_SHARE_OF_MEMORY = 0.5


def load_text_model(path: Path, name: str, settings: Settings, adapter: Path | None = None) -> TextModel:
    """Load the model at `path` (a folder or a .gguf file) and start its engine in this process; blocking, seconds. With
    a LoRA adapter it is the adapter that talks.

    Raises InvalidModelError for what can not be loaded, UsageError for a device that is not there, StorageError.
    """
    opened = open_model(path, name, settings, adapter)  # first: it refuses within milliseconds
    adapters = {name: adapter} if adapter is not None else {}
    return opened.with_engine(load_engine(path, name, settings, adapters))


def load_engine(
    path: Path, name: str, settings: Settings, adapters: Mapping[str, Path] | None = None
) -> LocalEngine | EncoderEngine:
    """The engine of a model that `open_model` found in order, with LoRA adapters beside it. Raises as `load_text_model` does."""
    info = describe_model(path)
    device = find_device(settings.device)
    if device.type == "cuda":
        log.warning("%s runs on %s: experimental, Chatwright was never tested on a GPU", name, device)
    # Encoders, recurrent models and heads for labels are always float32.
    kind = settings.quantization if isinstance(info.config, ModelConfig) and not info.labels else "fp32"
    with loading(path, info.n_parameters * weights_dtype(device, kind).itemsize, device):
        if info.labels:
            head = HeadRunner.load(path, device=settings.device, n_threads=settings.n_threads)
            return EncoderEngine(head, max_context=info.context_length, max_queue=settings.max_queue)
        if isinstance(info.config, EncoderConfig):
            embedder = EncoderRunner.load(path, device=settings.device, n_threads=settings.n_threads)
            return EncoderEngine(embedder, max_context=info.context_length, max_queue=settings.max_queue)
        return _load_local(path, name, info.config, settings, adapters or {})


def _load_local(
    path: Path, name: str, config: ModelConfig | RNNConfig, settings: Settings, adapters: Mapping[str, Path]
) -> LocalEngine:
    runner = choose_runner(path, name, config, settings)
    affordable = int(runner.free_bytes() * CACHE_SHARE_OF_MEMORY) // runner.cache_bytes_per_token()
    if affordable < MIN_CACHE_TOKENS:
        raise StorageError(
            "{path} is loaded, but the memory left holds only {n} tokens of conversation. Free memory, or take a smaller model.",
            path=path,
            n=affordable,
        )
    if affordable < config.context_length:
        log.warning(
            "memory is short: conversations with %s are limited to %d tokens of %d",
            name,
            affordable,
            config.context_length,
        )
    scheduler = Scheduler(
        max_batch=settings.max_batch,
        max_step_tokens=MAX_STEP_TOKENS,
        cache_tokens=min(settings.kv_cache_tokens, affordable),
        prefix_cache=not isinstance(runner, RecurrentRunner),
        pacer=Pacer(max_tokens=MAX_STEP_TOKENS),
    )
    log.info("%s: %s", name, runner.described)
    return LocalEngine(
        runner,
        scheduler,
        max_context=config.context_length,
        max_queue=settings.max_queue,
        grammars=GrammarCompiler(lambda: load_model_tokenizer(path)),
        adapters=adapters,
    )


def choose_runner(
    path: Path, name: str, config: ModelConfig | RNNConfig, settings: Settings
) -> ModelRunner | KernelRunner | RecurrentRunner:
    """The kernels on a processor where they are there and know the model, else PyTorch, with a notice of why."""
    if isinstance(config, RNNConfig):
        return RecurrentRunner.load(path, device=settings.device, n_threads=settings.n_threads)
    kernels = load_kernels()
    device = find_device(settings.device)
    reason = kernels.reason if isinstance(kernels, Unavailable) else unsupported(config)
    if device.type == "cpu" and isinstance(kernels, Kernels) and reason is None:
        return KernelRunner.load(
            kernels,
            path,
            settings.quantization,
            max_step_tokens=MAX_STEP_TOKENS + settings.max_batch,
            n_threads=settings.n_threads,
            store=settings.packed_weights_dir,
        )
    if settings.quantization in ("int8", "int4"):
        raise UsageError(
            "{quantization} weights need the compiled kernels on a processor, which can not be used here: {reason}",
            quantization=settings.quantization,
            reason=reason or _("the model is to run on {device}.", device=device.type),
        )
    if device.type == "cpu":
        log.warning("%s runs on PyTorch, several times slower than on the compiled kernels: %s", name, reason)
    return ModelRunner.load(
        path,
        device=settings.device,
        n_threads=settings.n_threads,
        quantization=settings.quantization,
        max_batch=settings.max_batch,
    )
