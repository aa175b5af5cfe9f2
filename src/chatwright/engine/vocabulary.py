"""The tokens of a tokenizer as llguidance wants them: the bytes of each, which are control, and how a text is cut."""

from __future__ import annotations

from collections.abc import Iterator

from llguidance import LLTokenizer, TokenizerWrapper

from chatwright.tokenizer.tokenizer import Tokenizer

# Enough for every token; cutting all of a text of 60 kB would take 70 ms.
MAX_EXACT_CHARS = 256


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
        self._llguidance: LLTokenizer | None = None

    def for_llguidance(self) -> LLTokenizer:
        """Built in a tenth of a second for 50,000 tokens."""
        self._llguidance = LLTokenizer(TokenizerWrapper(self), eos_token=self.eos_ids)
        return self._llguidance

    def __call__(self, text: bytes) -> list[int]:
        """Ids of text that a grammar leaves no choice about. Asked anew at every step, of which only the first id counts."""
        head, rest = text.decode(), ""
        if len(head) > MAX_EXACT_CHARS:
            head, rest = head[:MAX_EXACT_CHARS], head[MAX_EXACT_CHARS:]
        return self._as_in_training(head) + (self._greedy(rest) if rest else [])

    def _as_in_training(self, text: str) -> list[int]:
        """The ids that the tokenizer gives; the longest tokens where those would not give the text back byte by byte, but in
        another normal form, say."""
        exact = text.encode()
        for before in ("", "\n"):  # some tokenizers put a blank before every text; behind a line end it is gone
            ids = self._tokenizer.encode_prompts([list(self._segments(before + text))], continuing=True)[0]
            pieces = [self.tokens[token_id] for token_id in ids]
            n_before, skipped = sum(map(len, pieces)) - len(exact), 0
            while n_before > 0 and skipped < len(ids):
                n_before -= len(pieces[skipped])
                skipped += 1
            if b"".join(pieces[skipped:]) == exact:
                return ids[skipped:]
        return self._greedy(text)

    def _greedy(self, text: str) -> list[int]:
        assert self._llguidance is not None
        ids: list[int] = self._llguidance.greedy_tokenize(text)
        return ids

    def _segments(self, text: str) -> Iterator[str | int]:
        """Shown control tokens (`<tool_call>`) whole, unlike in a prompt: what the model writes cannot be a forgery."""
        start = 0
        for match in self._tokenizer.control.shown.finditer(text):
            yield text[start : match.start()]
            yield self._tokenizer.special_ids[match[0]]
            start = match.end()
        yield text[start:]
