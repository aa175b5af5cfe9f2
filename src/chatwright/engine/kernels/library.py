"""The compiled kernels (the distribution `chatwright-kernels`): found, checked, and called through ctypes.

Structures here are those of kernels/include/chatwright_kernels.h; ABI must be its CW_ABI. A library of another ABI, or none, means
PyTorch and a sentence.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chatwright.i18n import _

ABI = 2
PANEL, GROUP = 16, 32

# Forces an instruction set by its name, or "off".
VARIABLE = "CHATWRIGHT_KERNELS"


class Op(Structure):
    """cw_op."""

    _fields_ = (
        *((name, c_int32) for name in ("kind", "flags", "src", "dst", "n_in", "n_out", "format")),
        *((f"i{n}", c_int32) for n in range(5)),
        ("lora", c_int32),
        ("f0", c_float),
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("table", c_void_p),
    )


class LoRA(Structure):
    """cw_lora."""

    _fields_ = (
        *((name, c_int32) for name in ("product", "row", "n_in", "n_out", "rank")),
        ("scale", c_float),
        ("a", c_void_p),
        ("b", c_void_p),
    )


class Span(Structure):
    """cw_sequence."""

    _fields_ = (*((name, c_int32) for name in ("first", "n_tokens", "position", "adapter")), ("blocks", c_void_p))


class Step(Structure):
    """cw_step."""

    _fields_ = (
        *((name, c_int32) for name in ("n_tokens", "n_sequences", "n_wanted", "logits_stride")),
        *((name, c_void_p) for name in ("ids", "positions", "sequences", "wanted", "logits", "hidden")),
    )


class Shape(Structure):
    """cw_shape."""

    _fields_ = (
        *(
            (name, c_int32)
            for name in (
                "n_ops",
                "n_buffers",
                "max_tokens",
                "n_layers",
                "n_kv_heads",
                "head_dim",
                "n_cache_blocks",
                "n_threads",
                "cache",
            )
        ),
        ("ops", POINTER(Op)),
        *((name, c_void_p) for name in ("widths", "keys", "values")),
    )


class Format(IntEnum):
    """cw_format."""

    F32 = 0
    BF16 = 1
    I8 = 2
    I4 = 3
    I4M = 4
    I4MF = 5


class Cache(IntEnum):
    """cw_cache."""

    F16 = 0
    F32 = 1
    I8 = 2


class Source(IntEnum):
    """cw_source."""

    F32 = 0
    Q8_0 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q4_K = 4


@dataclass(frozen=True)
class Kernels:
    """A loaded library and the instruction set to use."""

    c: Any
    isa: int
    isa_name: str


@dataclass(frozen=True)
class Unavailable:
    """Why there are no kernels, as a sentence for the user."""

    reason: str


@cache
def load_kernels() -> Kernels | Unavailable:
    """The kernels of this machine, or why PyTorch must do."""
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted == "off":
        return Unavailable(_("The kernels are switched off ({variable}=off).", variable=VARIABLE))
    path = library_path()
    if path is None:
        return Unavailable(_("The compiled kernels are not installed (pip install ./kernels needs a C++ compiler)."))
    return open_library(path, wanted)


def library_path() -> Path | None:
    """Where the installed library lies."""
    spec = find_spec("chatwright_kernels")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for file in sorted(Path(folder).glob("*chatwright_kernels.*")):
            if file.suffix in (".so", ".dylib", ".dll"):
                return file
    return None


def open_library(path: Path, wanted: str = "auto") -> Kernels | Unavailable:
    """Load a library and choose an instruction set: the best that the processor has, or the one that is wanted."""
    try:
        c = ctypes.CDLL(str(path))
        c.cw_abi.restype = c_int
        abi = c.cw_abi()
    except (OSError, AttributeError) as error:
        return Unavailable(_("The compiled kernels {path} can not be loaded: {reason}", path=path, reason=error))
    if abi != ABI:
        return Unavailable(
            _(
                "The compiled kernels {path} are of another version ({found}; {wanted} is needed): install them again with "
                "pip install ./kernels.",
                path=path,
                found=abi,
                wanted=ABI,
            )
        )
    c.cw_isa_name.restype, c.cw_isa_name.argtypes = ctypes.c_char_p, [c_int]
    c.cw_isa_usable.restype, c.cw_isa_usable.argtypes = c_int, [c_int]
    c.cw_cache_bytes.restype, c.cw_cache_bytes.argtypes = c_int64, [c_int, c_int, c_int]
    c.cw_packed_bytes.restype, c.cw_packed_bytes.argtypes = c_int64, [c_int, c_int64, c_int64]
    c.cw_pack.restype, c.cw_pack.argtypes = c_int, [c_int, c_int, c_void_p, c_int64, c_int64, c_int64, c_void_p]
    c.cw_unpack.restype, c.cw_unpack.argtypes = None, [c_int, c_void_p, c_int64, c_int64, c_void_p]
    c.cw_create.restype, c.cw_create.argtypes = c_void_p, [POINTER(Shape), c_int]
    c.cw_destroy.restype, c.cw_destroy.argtypes = None, [c_void_p]
    c.cw_set_adapter.restype, c.cw_set_adapter.argtypes = c_int, [c_void_p, c_int, POINTER(LoRA), c_int]
    c.cw_run.restype, c.cw_run.argtypes = c_int, [c_void_p, POINTER(Step)]
    c.cw_weigh.restype, c.cw_weigh.argtypes = None, [c_int, c_void_p, c_int64, c_float, c_void_p, c_void_p]
    c.cw_profile.restype, c.cw_profile.argtypes = None, [c_void_p, c_void_p]
    names: list[str] = []
    while name := c.cw_isa_name(len(names)):
        names.append(name.decode())
    usable = [name for i, name in enumerate(names) if c.cw_isa_usable(i)]
    chosen = usable[0] if wanted == "auto" else wanted
    if chosen not in usable:
        return Unavailable(
            _(
                "{variable}={wanted}: this processor, or this build of the kernels, has only {usable}.",
                variable=VARIABLE,
                wanted=wanted,
                usable=", ".join(usable),
            )
        )
    return Kernels(c, names.index(chosen), chosen)
