"""Decoder, encoder and recurrent model, their configurations, and the files they are read from and written to.

Without torch: `config`, `rnn_config` and `presets` (what a model is, and which one a size gives), `gguf`, `gguf_config`, `hf`,
`layout` (how files spell it), `checkpoint`, `rnn_checkpoint` and `adapter` (open files and check them), `describe`, `card`.
With torch, imported by name, so that a server that only lists models never pays for it: `gpt`, `encoder`, `rnn`, `heads`,
`lora`, `init`, and `load`, `save`, `folder`, `encoder_hf`, `head_folder`, `rnn_folder` for their folders.
"""

from chatwright.model.config import ModelConfig, RopeScaling

__all__ = ["ModelConfig", "RopeScaling"]
