"""The tokens of a tokenizer as llguidance wants them: the bytes of each, which are control, and how a text is cut."""

from __future__ import annotations

from collections.abc import Iterator

from llguidance import LLTokenizer, TokenizerWrapper

from chatwright.tokenizer.tokenizer import Tokenizer


class Vocabulary:
    """tokens: bytes of every id, of hidden control tokens their names. eos_ids: what ends an answer, never empty.

    A tokenizer without end tokens gets one more id, which no model chooses.
    """

    bos_token_id = None  # llguidance asks, and does not need it

    def __init__(self, tokenizer: Tokenizer) -> None:
        names = {token_id: text for text, token_id in tokenizer.special_ids.items()}
        self.tokens = [
            names[token_id].encode() if token_id in tokenizer.hidden_ids else tokenizer.token_bytes(token_id)
            for token_id in range(tokenizer.vocab_size)
        ]
        self.special_token_ids = sorted(tokenizer.hidden_ids)
        self.eos_ids = sorted(tokenizer.eos_ids)
        if not self.eos_ids:
            self.eos_ids = [len(self.tokens)]
            self.special_token_ids.append(len(self.tokens))
            self.tokens.append(b"<end of the answer>")
        self.eos_token_id = self.eos_ids[0]
        self._tokenizer = tokenizer

    def for_llguidance(self) -> LLTokenizer:
        """Built in a tenth of a second for 50,000 tokens."""
        return LLTokenizer(TokenizerWrapper(self), eos_token=self.eos_ids)

    def __call__(self, text: bytes) -> list[int]:
        """Ids of text that a grammar leaves no choice about, cut as the model has seen it in training."""
        return self._tokenizer.encode_prompts([list(self._segments(text.decode()))], continuing=True)[0]

    def _segments(self, text: str) -> Iterator[str | int]:
        """Shown control tokens (`<tool_call>`) whole, unlike in a prompt: what the model writes cannot be a forgery."""
        start = 0
        for match in self._tokenizer.control.shown.finditer(text):
            yield text[start : match.start()]
            yield self._tokenizer.special_ids[match[0]]
            start = match.end()
        yield text[start:]
