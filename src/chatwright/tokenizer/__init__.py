"""Text ↔ token ids, and chat messages → token ids.

`load_tokenizer` reads a model folder or GGUF metadata; `load_chat_template` and `encode_chat` turn messages into ids so
that the text of a control token inside a message never becomes that token. Templates run in a
child process with limits. `encode_supervised` says which tokens of a conversation a model is trained on. Tokenizers are trained
by `tokenizer.train`, and those of other models copied by `tokenizer.save`.
"""

from chatwright.tokenizer.chat import ChatTemplate, encode_chat, load_chat_template
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.renderer import TemplateRenderer
from chatwright.tokenizer.stream import StreamDecoder
from chatwright.tokenizer.supervision import Supervised, encode_supervised
from chatwright.tokenizer.tokenizer import Tokenizer

__all__ = [
    "ChatTemplate",
    "StreamDecoder",
    "Supervised",
    "TemplateRenderer",
    "Tokenizer",
    "encode_chat",
    "encode_supervised",
    "load_chat_template",
    "load_tokenizer",
]
