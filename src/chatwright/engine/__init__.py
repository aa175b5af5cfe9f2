"""What turns token ids into token ids, and the thin layer of text above it.

`protocol` is the contract that every engine keeps. `scheduler`, `sequence` and `sampler` are policy without torch; `runner` is
the only file that touches tensors; `local` drives them in a thread. `text` puts tokenizer, chat template and stop strings on
top of any engine, so that all engines behave alike.
"""

from chatwright.engine.protocol import (
    Engine,
    EngineEvent,
    EngineStats,
    FinishEvent,
    FinishReason,
    GenerateRequest,
    Grammar,
    PromptEvent,
    SamplingParams,
    TokenEvent,
    TokenLogprobs,
)

__all__ = [
    "Engine",
    "EngineEvent",
    "EngineStats",
    "FinishEvent",
    "FinishReason",
    "GenerateRequest",
    "Grammar",
    "PromptEvent",
    "SamplingParams",
    "TokenEvent",
    "TokenLogprobs",
]
