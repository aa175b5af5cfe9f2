"""What is exported: the files of a model, with an adapter merged into its weights where one is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from chatwright.compression.finite import check_finite, is_finite
from chatwright.model.adapter import open_adapter
from chatwright.model.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint, open_checkpoint
from chatwright.model.config import ModelConfig
from chatwright.model.describe import ModelInfo, describe_model
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model, read_parameter
from chatwright.model.lora import load_adapter, merge_lora
from chatwright.tokenizer.chat import ChatTemplate, load_chat_template


@dataclass(frozen=True)
class Source:
    """A decoder on disk. `adapter`: a folder in PEFT's layout whose product is added to the weights."""

    checkpoint: GGUFCheckpoint | SafetensorsCheckpoint
    adapter: Path | None = None

    @classmethod
    def open(cls, path: Path, adapter: Path | None = None) -> Source:
        """The model in a folder or a GGUF file. Raises ModelNotFoundError, InvalidModelError (for encoders and recurrent models
        too)."""
        return cls(open_checkpoint(path), None if adapter is None else open_adapter(adapter).path)

    @property
    def config(self) -> ModelConfig:
        """What the decoder is."""
        return self.checkpoint.config

    @property
    def folder(self) -> Path:
        """Where its tokenizer lies."""
        return self.checkpoint.path if self.checkpoint.path.is_dir() else self.checkpoint.path.parent

    @cached_property
    def info(self) -> ModelInfo:
        """Name, license, languages."""
        return describe_model(self.checkpoint.path)

    @cached_property
    def template(self) -> ChatTemplate | None:
        """Its chat template, or the adapter's."""
        metadata = self.checkpoint.file.metadata if isinstance(self.checkpoint, GGUFCheckpoint) else None
        template = load_chat_template(self.folder, metadata, adapter=self.adapter)
        if template is not None:
            template.close()  # its text is all that is wanted
        return template

    @cached_property
    def _merged(self) -> dict[str, Tensor]:
        assert self.adapter is not None
        model = load_model(self.checkpoint.path)
        load_adapter(model, self.adapter)
        merge_lora(model)
        return {name: parameter.detach() for name, parameter in model.named_parameters()}

    def parameter(self, name: str) -> Tensor:
        """A parameter in the decoder's own shape, read when asked for; with an adapter in float32."""
        return self._merged[name] if self.adapter is not None else read_parameter(self.checkpoint, name)

    def check_finite(self, name: str, parameter: Tensor) -> None:
        """Raises InvalidModelError for numbers that are none, which names the model, or the adapter where that brought them."""
        if is_finite(parameter):
            return
        own = self.adapter is None or not is_finite(read_parameter(self.checkpoint, name))
        check_finite(self.checkpoint.path if own or self.adapter is None else self.adapter, name, parameter)

    def model(self, dtype: torch.dtype) -> GPT:
        """The whole of it, the adapter merged in float32."""
        if self.adapter is None:
            return load_model(self.checkpoint.path, dtype=dtype)
        model = load_model(self.checkpoint.path)
        load_adapter(model, self.adapter)
        merge_lora(model)
        return model.to(dtype)
