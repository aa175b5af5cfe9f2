"""Tokens to text one at a time, never showing half a character."""

from __future__ import annotations

import codecs
from typing import Protocol


class HasTokenBytes(Protocol):
    """What a stream needs of a tokenizer."""

    def token_bytes(self, token_id: int) -> bytes: ...


class StreamDecoder:
    """Decodes one answer: the concatenation of every `push` and the final `flush` is complete characters only.

    Bytes that can not be UTF-8 become U+FFFD; an incomplete character at the very end is dropped.
    """

    def __init__(self, tokenizer: HasTokenBytes, *, strip_leading_space: bool = False) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = strip_leading_space

    def push(self, token_id: int) -> str:
        """The characters that this token completes; "" while one is still incomplete."""
        data = self._tokenizer.token_bytes(token_id)
        if self._strip and data:
            data = data.removeprefix(b" ")
            self._strip = False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The end of the answer: always "", as whatever is still incomplete is dropped. The decoder starts afresh."""
        self._decoder.reset()
        return ""
