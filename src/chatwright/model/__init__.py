"""One decoder, its configuration, and the files it is read from and written to.

`config` (what a model is), `gguf`, `gguf_config` and `hf` (how files spell it), `layout` (where each parameter lies in
them), `checkpoint` (opens a model's files and checks them) and `describe` work without torch; `gpt` (the decoder) and
`load` need it and are imported by name, so that a server that only lists models never pays for torch.
"""

from chatwright.model.config import ModelConfig, RopeScaling

__all__ = ["ModelConfig", "RopeScaling"]
