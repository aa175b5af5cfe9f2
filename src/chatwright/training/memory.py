"""Memory that ran out, as a sentence (PyTorch has a RuntimeError for it, Python a MemoryError), and memory given back."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from chatwright.errors import TrainingError

_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "can't start new thread",  # its stack did not fit
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that no memory was to be had, in whatever words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (any(words in text for words in _WORDS))


@contextmanager
def out_of_memory(verb: str = "train") -> Iterator[None]:
    """Raises TrainingError instead, with what to do: "train" and "tune" have options of their own. What was saved stays."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if verb == "tune":
            raise TrainingError(
                "Memory ran out. Take fewer rows at a time (--micro-rows), a shorter context (--context), an adapter"
                " (--method lora) or a smaller model; what the run has saved is kept."
            ) from error
        raise TrainingError(
            "Memory ran out. Take fewer rows at a time (--micro-rows), a smaller model (--size) or a shorter context (--context);"
            " what the run has saved is kept."
        ) from error


def give_back() -> None:
    """Returns freed memory to the system, where its C library is glibc: training a tokenizer left 410 MB of small pieces behind
    that nothing else could use, and the run's peak was higher by as much."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
