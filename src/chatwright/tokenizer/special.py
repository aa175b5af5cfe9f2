"""The control tokens of tokenizers trained here, and what each is for.

`<|endoftext|>` stands before every document of pretraining and so ends the one before it; base models end with it.
`<|im_end|>` ends a turn of a conversation; chat models end with it. Both end an answer when served, whichever came last in
training: a chat model that was never taught `<|im_end|>` well falls back on `<|endoftext|>`, and the other way round.
The texts are Qwen2's, so that tools which know its ChatML and its fill-in-the-middle know ours.
"""

from __future__ import annotations

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
FIM_PREFIX = "<|fim_prefix|>"
FIM_MIDDLE = "<|fim_middle|>"
FIM_SUFFIX = "<|fim_suffix|>"

# In the order of their ids, which are the last of the vocabulary.
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)
END_TOKENS = (END_OF_TEXT, IM_END)
