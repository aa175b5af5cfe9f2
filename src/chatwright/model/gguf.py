"""Reads GGUF files, believing nothing in them: every count, length, shape and offset is checked before it is used.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian). The checks answer a
class of advisories in other readers (CVE-2024-39720, CVE-2025-66959, CVE-2026-7482, CVE-2026-33298: lengths and offsets
beyond the file, products that overflow, huge allocations, division by a zero alignment).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.quants import dequantize

from chatwright.errors import Detail, InvalidModelError, ModelNotFoundError
from chatwright.model.config import shown

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4  # ggml's own limit
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_NAME_BYTES = 1 << 10
MAX_METADATA_ITEMS = 1 << 22  # over all arrays together; a vocabulary of 256k tokens with its merges has about 2 ** 20
DEQUANTIZE_ELEMENTS = 1 << 16  # at a time: dequantising needs several times its output, which then stays in the cache

_SCALARS: Mapping[GGUFValueType, str] = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.BOOL: "|u1",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT64: "<f8",
}


@dataclass(frozen=True)
class GGUFTensor:
    """Where a tensor lies. `shape` is in numpy's order (last axis contiguous), `offset` from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    size_bytes: int


class GGUFFile:
    """One file: `metadata` as plain Python values, `tensors` by name, and `read`, which dequantises one of them."""

    def __init__(
        self,
        path: Path,
        data: npt.NDArray[np.uint8],
        metadata: Mapping[str, Any],
        tensors: Mapping[str, GGUFTensor],
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.tensors = tensors
        self._data = data

    @classmethod
    def open(cls, path: Path) -> GGUFFile:
        """Reads the header; the tensors stay on the disk. Raises ModelNotFoundError, InvalidModelError."""
        path = Path(path)
        if not path.is_file():
            raise ModelNotFoundError("There is no file {path}.", path=path)
        try:
            with path.open("rb") as opened:
                is_gguf = opened.read(len(MAGIC)) == MAGIC
            if not is_gguf:
                raise InvalidModelError(
                    "{path} is not a GGUF file: it does not begin with the letters GGUF.", path=path
                )
            data = np.memmap(path, dtype=np.uint8, mode="r")
        except OSError as error:
            raise InvalidModelError("{path} cannot be read: {reason}", path=path, reason=error.strerror) from error
        header = _Cursor(path, data)
        header.take(len(MAGIC))
        version = header.u32()
        if version not in SUPPORTED_VERSIONS:
            raise InvalidModelError(
                "{path} is GGUF version {version}; versions 2 and 3, little-endian, are supported.",
                path=path,
                version=version,
            )
        n_tensors = header.count(MAX_TENSORS, Detail("tensors"), min_size=8 + 4 + 8 + 4 + 8)
        n_keys = header.count(MAX_KEYS, Detail("metadata keys"), min_size=8 + 4 + 1)
        metadata = dict(_read_metadata(header, n_keys))
        tensors = {tensor.name: tensor for tensor in _read_tensors(header, n_tensors, metadata)}
        return cls(path, data, MappingProxyType(metadata), MappingProxyType(tensors))

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of a tensor as they lie in the file, without a copy."""
        tensor = self.tensors[name]
        return self._data[tensor.offset : tensor.offset + tensor.size_bytes]

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor as float32, in numpy's order. Raises InvalidModelError for a type that cannot be decoded."""
        tensor = self.tensors[name]
        check_decodable(self.path, tensor)
        block_elements, block_bytes = GGML_QUANT_SIZES[tensor.type]
        # by blocks, whatever row they are of: `dequantize` is slow on many short rows
        blocks = self.raw(name).reshape(-1, block_bytes)
        values = np.empty((len(blocks), block_elements), dtype=np.float32)
        step = DEQUANTIZE_ELEMENTS // block_elements
        for start in range(0, len(blocks), step):
            some = blocks[start : start + step].copy().reshape(1, -1)  # the copy aligns what the file may not
            with np.errstate(all="ignore"):  # infinite scales in a damaged file are its own affair
                values[start : start + step] = dequantize(some, tensor.type).reshape(-1, block_elements)
        return values.reshape(tensor.shape)


def check_decodable(path: Path, tensor: GGUFTensor) -> None:
    """Raises InvalidModelError when the `gguf` package cannot decode the tensor's type."""
    _, block_bytes = GGML_QUANT_SIZES[tensor.type]
    try:
        dequantize(np.zeros((1, block_bytes), dtype=np.uint8), tensor.type)
    except NotImplementedError as error:
        raise InvalidModelError(
            "{path} holds the tensor {tensor} in the format {type}, which cannot be decoded. Choose another"
            " quantisation of the model, for example Q8_0 or Q4_K_M.",
            path=path,
            tensor=tensor.name,
            type=tensor.type.name,
        ) from error


class _Cursor:
    """A position in the header that never leaves the file."""

    def __init__(self, path: Path, data: npt.NDArray[np.uint8]) -> None:
        self.path = path
        self.buffer = data.data  # a memoryview: slicing it is cheap
        self.position = 0
        self.items_left = MAX_METADATA_ITEMS

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.buffer):
            raise self.broken(Detail("the file ends in the middle of its header"))
        taken = bytes(self.buffer[self.position : end])
        self.position = end
        return taken

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def count(self, largest: int, what: Detail, min_size: int) -> int:
        """A number of things of at least `min_size` bytes each that are to follow."""
        count = self.u64()
        if count > min(largest, (len(self.buffer) - self.position) // min_size):
            raise self.broken(Detail("it claims {n} {what}", n=count, what=what))
        return count

    def name(self) -> str:
        """A text that names something, and so is short."""
        if int.from_bytes(self.buffer[self.position : self.position + 8], "little") > MAX_NAME_BYTES:
            raise self.broken(Detail("a name in it is longer than {most} bytes", most=MAX_NAME_BYTES))
        return self.texts(1)[0]

    def texts(self, count: int) -> list[str]:
        """So many texts, each after its length; in one loop, because vocabularies have 100,000 and more."""
        buffer, position, end = self.buffer, self.position, len(self.buffer)
        texts: list[str] = []
        try:
            for _ in range(count):
                start = position + 8
                position = start + int.from_bytes(buffer[position:start], "little")
                if position > end:
                    raise self.broken(Detail("a text in it lies beyond the end of the file"))
                texts.append(str(buffer[start:position], "utf-8"))
        except UnicodeDecodeError as error:
            raise self.broken(Detail("a text in it is not UTF-8")) from error
        self.position = position
        return texts

    def value_type(self) -> GGUFValueType:
        number = self.u32()
        try:
            return GGUFValueType(number)
        except ValueError as error:
            raise self.broken(Detail("it has a value of unknown type {number}", number=number)) from error

    def values(self, kind: GGUFValueType, count: int) -> list[Any]:
        """`count` values of a type that is not an array."""
        if kind is GGUFValueType.STRING:
            return self.texts(count)
        if kind not in _SCALARS:
            raise self.broken(Detail("it has an array of arrays"))
        dtype = np.dtype(_SCALARS[kind])
        numbers = np.frombuffer(self.take(count * dtype.itemsize), dtype)
        if kind is GGUFValueType.BOOL:
            if (numbers > 1).any():
                raise self.broken(Detail("a truth value in it is neither 0 nor 1"))
            numbers = numbers.astype(np.bool_)
        plain: list[Any] = numbers.tolist()
        return plain

    def value(self) -> Any:
        """A value with its type before it."""
        kind = self.value_type()
        if kind is not GGUFValueType.ARRAY:
            return self.values(kind, 1)[0]
        item_kind = self.value_type()
        item_size = np.dtype(_SCALARS[item_kind]).itemsize if item_kind in _SCALARS else 8
        count = self.count(self.items_left, Detail("array items"), item_size)
        self.items_left -= count
        return self.values(item_kind, count)

    def broken(self, reason: Detail) -> InvalidModelError:
        return InvalidModelError(
            "{path} is a broken GGUF file ({reason}). Fetch it again.", path=self.path, reason=reason
        )


def _read_metadata(header: _Cursor, n_keys: int) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for _ in range(n_keys):
        key = header.name()
        if key in seen:
            raise header.broken(Detail("the key {key} stands in it twice", key=shown(key)))
        seen.add(key)
        yield key, header.value()


def _read_tensors(header: _Cursor, n_tensors: int, metadata: Mapping[str, Any]) -> list[GGUFTensor]:
    declared = [_read_tensor(header) for _ in range(n_tensors)]
    if len({tensor.name for tensor in declared}) != len(declared):
        raise header.broken(Detail("two tensors have the same name"))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise header.broken(Detail("its alignment is {alignment}", alignment=shown(alignment)))
    start = -(-header.position // alignment) * alignment
    tensors = [
        GGUFTensor(t.name, t.shape, t.type, start + t.offset, t.size_bytes)
        for t in sorted(declared, key=lambda tensor: tensor.offset)
    ]
    end = start
    for tensor in tensors:
        if tensor.offset % alignment:
            raise header.broken(Detail("the tensor {tensor} is not aligned", tensor=shown(tensor.name)))
        # tensors that share bytes would let a small file fill the memory
        if tensor.offset < end:
            raise header.broken(Detail("the tensor {tensor} overlaps another", tensor=shown(tensor.name)))
        end = tensor.offset + tensor.size_bytes
        if end > len(header.buffer):
            raise header.broken(
                Detail("the tensor {tensor} lies beyond the end of the file", tensor=shown(tensor.name))
            )
    return tensors


def _read_tensor(header: _Cursor) -> GGUFTensor:
    """One entry of the table of tensors, its offset still relative to the start of the data."""
    name = header.name()
    n_dims = header.u32()
    if not 1 <= n_dims <= MAX_DIMENSIONS:
        raise header.broken(Detail("the tensor {tensor} has {n} dimensions", tensor=shown(name), n=n_dims))
    shape = struct.unpack(f"<{n_dims}Q", header.take(8 * n_dims))[::-1]
    type_number = header.u32()
    offset = header.u64()
    try:
        kind = GGMLQuantizationType(type_number)
    except ValueError as error:
        raise header.broken(
            Detail("the tensor {tensor} has the unknown type {number}", tensor=shown(name), number=type_number)
        ) from error
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    if min(shape) < 1 or shape[-1] % block_elements:
        raise header.broken(
            Detail(
                "the tensor {tensor} of type {type} has the shape {shape}",
                tensor=shown(name),
                type=kind.name,
                shape=list(shape),
            )
        )
    size_bytes = math.prod(shape) // block_elements * block_bytes
    return GGUFTensor(name, shape, kind, offset, size_bytes)
