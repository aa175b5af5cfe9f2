"""A GGUF in another of llama.cpp's formats, made by the `gguf` package: for peers that cannot do it themselves.

Every matrix gets the format (llama.cpp's own `quantize` leaves some more precise), everything else stays fp32.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

FILE_TYPES = {
    "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "Q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
}


def convert(model: Path, kind: str, to: Path) -> None:
    """Write the model at `model` to `to`, its matrices in the format `kind`."""
    reader = gguf.GGUFReader(model)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(to, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = int(FILE_TYPES[kind]) if name == "general.file_type" else field.contents()
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], sub_type=inner)
    wanted = gguf.GGMLQuantizationType[kind]
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        matrix = values.ndim == 2 and values.shape[1] % 32 == 0
        format_ = wanted if matrix else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(np.ascontiguousarray(values, np.float32), format_)
        writer.add_tensor(tensor.name, data, raw_dtype=format_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
