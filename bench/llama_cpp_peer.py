"""llama.cpp as a peer, through its C API in `llama-cpp-python` (built natively: CMAKE_ARGS=-DGGML_NATIVE=ON)."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import llama_cpp as c
import numpy as np

from bench.peer import Opening, serve

KINDS = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "F16": 1}
BATCH, STEP_TOKENS = 2048, 512


def requantise(model: Path, kind: str, to: Path) -> None:
    """The same model in another of llama.cpp's formats, as llama.cpp itself makes it."""
    c.llama_log_set(_SILENT, ctypes.c_void_p(0))
    options = c.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize, options.pure = KINDS[kind], True, False
    if c.llama_model_quantize(str(model).encode(), str(to).encode(), ctypes.byref(options)):
        raise RuntimeError(f"llama.cpp could not make {to}")


class LlamaCpp:
    """See `bench.peer.Peer`. One model under llama.cpp with its own threads."""

    def __init__(self, opening: Opening) -> None:
        c.llama_log_set(_SILENT, ctypes.c_void_p(0))
        c.llama_backend_init()
        self.model = c.llama_model_load_from_file(opening.model.encode(), c.llama_model_default_params())
        options = c.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = opening.context, BATCH, STEP_TOKENS
        options.n_seq_max = opening.max_streams
        options.n_threads = options.n_threads_batch = opening.threads
        options.kv_unified = True
        self.context = c.llama_init_from_model(self.model, options)
        if not self.context:
            raise RuntimeError("llama.cpp made no context")
        self.n_vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        self.batch = c.llama_batch_init(BATCH, 0, 1)

    def _run(self, tokens: Sequence[tuple[int, int, int, bool]]) -> None:
        """(token, position, stream, whether its logits are wanted) of each."""
        self.batch.n_tokens = len(tokens)
        for i, (token, position, stream, wanted) in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i] = token, position
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, stream
            self.batch.logits[i] = wanted
        if c.llama_decode(self.context, self.batch):
            raise RuntimeError("llama.cpp refused a batch")

    def _logits(self, n_rows: int) -> np.ndarray:
        """Of the rows that were wanted; waits for the step."""
        flat = np.ctypeslib.as_array(c.llama_get_logits(self.context), (n_rows * self.n_vocab,))
        return flat.reshape(n_rows, self.n_vocab)

    def _read(self, ids: Sequence[int], stream: int, start: int = 0) -> int:
        """Tokens of a stream from position `start` on; the likeliest token after them."""
        for first in range(0, len(ids), BATCH):
            part = ids[first : first + BATCH]
            last = first + len(part) == len(ids)
            rows = [(token, start + first + i, stream, last and i == len(part) - 1) for i, token in enumerate(part)]
            self._run(rows)
        return int(self._logits(1)[0].argmax())

    def _clear(self) -> None:
        c.llama_memory_clear(c.llama_get_memory(self.context), True)

    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """See Peer."""
        self._clear()
        chosen = [self._read(range(1000, 1000 + n_prompt), stream) for stream in range(n_streams)]
        start = time.perf_counter()
        for step in range(n_tokens):
            self._run([(token, n_prompt + step, stream, True) for stream, token in enumerate(chosen)])
            chosen = self._logits(n_streams).argmax(1).tolist()
        return n_streams * n_tokens / (time.perf_counter() - start)

    def prompt(self, n_tokens: int) -> float:
        """See Peer."""
        self._clear()
        start = time.perf_counter()
        self._read(range(1000, 1000 + n_tokens), 0)
        return n_tokens / (time.perf_counter() - start)

    def first_token(self, n_tokens: int) -> tuple[float, float]:
        """See Peer."""
        cold_s = n_tokens / self.prompt(n_tokens)
        start = time.perf_counter()
        c.llama_memory_seq_rm(c.llama_get_memory(self.context), 0, n_tokens - 2, -1)
        self._read([5, 6], 0, n_tokens - 2)
        return cold_s, time.perf_counter() - start

    def perplexity(self, windows: Sequence[Sequence[int]]) -> float:
        """See Peer."""
        nats, count = 0.0, 0
        for window in windows:
            self._clear()
            self._run([(token, i, 0, True) for i, token in enumerate(window)])
            logits = self._logits(len(window)).astype(np.float64)
            shifted = logits - logits.max(1, keepdims=True)
            scores = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
            nats -= scores[np.arange(len(window) - 1), window[1:]].sum()
            count += len(window) - 1
        return math.exp(nats / count)


@c.llama_log_callback
def _SILENT(level: int, text: bytes, data: object) -> None:  # noqa: N802
    pass


if __name__ == "__main__":
    if len(sys.argv) > 1:  # FROM KIND TO
        requantise(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    else:
        serve(LlamaCpp, ("llama-cpp-python",))
