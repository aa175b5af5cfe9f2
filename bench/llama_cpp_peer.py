"""llama.cpp as a peer, through its C API in `llama-cpp-python` (built natively: CMAKE_ARGS=-DGGML_NATIVE=ON)."""

from __future__ import annotations

import ctypes
import math
import time
from pathlib import Path

import llama_cpp as c
import numpy as np

KINDS = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "F16": 1}


def requantise(model: Path, kind: str, folder: Path) -> Path:
    """The same model in another of llama.cpp's formats."""
    to = folder / f"{model.stem}-{kind}.gguf"
    if not to.exists():
        options = c.llama_model_quantize_default_params()
        options.ftype, options.allow_requantize, options.pure = KINDS[kind], True, False
        if c.llama_model_quantize(str(model).encode(), str(to).encode(), ctypes.byref(options)):
            raise RuntimeError(f"llama.cpp could not make {to}")
    return to


class LlamaCpp:
    """One model file under llama.cpp with its own threads; the same calls as `bench.engine.Ours`."""

    def __init__(self, model: Path, *, name: str, threads: int, max_streams: int, context: int) -> None:
        self.name = name
        c.llama_log_set(_SILENT, ctypes.c_void_p(0))
        c.llama_backend_init()
        self.model = c.llama_model_load_from_file(str(model).encode(), c.llama_model_default_params())
        options = c.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = context, 2048, 512
        options.n_seq_max = max_streams
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = True
        self.context = c.llama_init_from_model(self.model, options)
        if not self.context:
            raise RuntimeError("llama.cpp made no context")
        self.n_vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        self.batch = c.llama_batch_init(2048, 0, 1)

    def _run(self, tokens: list[tuple[int, int, int, bool]]) -> None:
        """(token, position, stream, whether its logits are wanted) of each."""
        self.batch.n_tokens = len(tokens)
        for i, (token, position, stream, wanted) in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i] = token, position
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, stream
            self.batch.logits[i] = wanted
        if c.llama_decode(self.context, self.batch):
            raise RuntimeError("llama.cpp refused a batch")

    def _clear(self) -> None:
        c.llama_memory_clear(c.llama_get_memory(self.context), True)

    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """See `Ours.decode`."""
        self._clear()
        for stream in range(n_streams):
            self._run([(1000 + i, i, stream, i == n_prompt - 1) for i in range(n_prompt)])
        start = time.perf_counter()
        for step in range(n_tokens):
            self._run([(5, n_prompt + step, stream, True) for stream in range(n_streams)])
            c.llama_get_logits(self.context)  # waits for the step
        return n_streams * n_tokens / (time.perf_counter() - start)

    def prompt(self, n_tokens: int) -> float:
        """See `Ours.prompt`."""
        self._clear()
        start = time.perf_counter()
        self._run([(1000 + i, i, 0, i == n_tokens - 1) for i in range(n_tokens)])
        c.llama_get_logits(self.context)
        return n_tokens / (time.perf_counter() - start)

    def perplexity(self, ids: list[int], window: int) -> float:
        """See `Ours.perplexity`."""
        nats, count = 0.0, 0
        for first in range(0, len(ids), window):
            part = ids[first : first + window]
            self._clear()
            self._run([(token, i, 0, True) for i, token in enumerate(part)])
            flat = np.ctypeslib.as_array(c.llama_get_logits(self.context), (len(part) * self.n_vocab,))
            logits = flat.reshape(len(part), self.n_vocab).astype(np.float64)
            shifted = logits - logits.max(1, keepdims=True)
            scores = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
            nats -= scores[np.arange(len(part) - 1), part[1:]].sum()
            count += len(part) - 1
        return math.exp(nats / count)


@c.llama_log_callback
def _SILENT(level: int, text: bytes, data: object) -> None:  # noqa: N802
    pass
