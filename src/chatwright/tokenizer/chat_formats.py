"""The chat formats that come with Chatwright: of models trained here, and of base models that are to learn a conversation.

A base model has no template of its own, but often tokens for one in its vocabulary: Gemma's turns, or ChatML as Qwen has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from chatwright.tokenizer.chat import ChatTemplate
from chatwright.tokenizer.tokenizer import Tokenizer

FormatName = Literal["chatml", "gemma"]


@dataclass(frozen=True)
class ChatFormat:
    """`begin` and `end`: the control tokens around a turn; `end` also ends an answer."""

    name: FormatName
    title: str
    begin: str
    end: str

    @property
    def source(self) -> str:
        """The Jinja text."""
        return files("chatwright.tokenizer").joinpath(f"{self.name}.jinja").read_text(encoding="utf-8").rstrip("\n")


CHATML = ChatFormat("chatml", "ChatML", "<|im_start|>", "<|im_end|>")
GEMMA = ChatFormat("gemma", "Gemma", "<start_of_turn>", "<end_of_turn>")


def format_for(tokenizer: Tokenizer) -> ChatFormat | None:
    """The format whose tokens a vocabulary has, if any."""
    for known in (GEMMA, CHATML):
        if known.begin in tokenizer.special_ids and known.end in tokenizer.special_ids:
            return known
    return None


def lend(chat_format: ChatFormat, tokenizer: Tokenizer) -> ChatTemplate:
    """The template for a model that has none. From now on the end of a turn ends its answers."""
    tokenizer.eos_ids |= {tokenizer.special_ids[chat_format.end]}
    names = {token_id: text for text, token_id in tokenizer.special_ids.items()}
    bos = names.get(tokenizer.bos_id) if tokenizer.bos_id is not None else None
    return ChatTemplate(chat_format.source, {"bos_token": bos} if bos else {})
