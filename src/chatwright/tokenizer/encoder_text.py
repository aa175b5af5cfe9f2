"""An encoder's tokenizer behind what a model of text needs of one: text to ids with their marks, ids to text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from chatwright.tokenizer.stream import StreamDecoder
from chatwright.tokenizer.tokenizer import check_text
from chatwright.tokenizer.wordpiece import SPECIAL, WordPiece, load_wordpiece

# Between blanks, so that whatever BERT's normalisation does to their neighbours, each is a token at least.
_PLAIN_WORD = re.compile(r"(?<![^ \t\r\n])[A-Za-z0-9]+(?![^ \t\r\n])")
_N_MARKS = 2  # [CLS] and [SEP]


class EncoderTokenizer:
    """WordPiece with `tokenizer.Tokenizer`'s names: every text begins with [CLS] and ends with [SEP]; nothing ends an answer."""

    def __init__(self, wordpiece: WordPiece) -> None:
        self._wordpiece = wordpiece
        self.vocab_size = wordpiece.vocab_size
        self.bos_id: int | None = None
        self.eos_ids: frozenset[int] = frozenset()
        known = {token: token_id for token in SPECIAL if (token_id := wordpiece.id_of(token)) is not None}
        self.special_ids: Mapping[str, int] = MappingProxyType(known)
        self._hidden = frozenset(known.values())

    @classmethod
    def load(cls, folder: Path) -> EncoderTokenizer:
        """The tokenizer of a BERT folder. Raises InvalidModelError."""
        return cls(load_wordpiece(folder))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, marks included. Raises InvalidRequestError on lone surrogates, which no UTF-8 can hold."""
        check_text(text)
        return self._wordpiece.ids(text)

    def encode_pair(self, first: str, second: str) -> list[int]:
        """Ids of two texts that are read together, the second behind the first one's [SEP]."""
        check_text(first)
        check_text(second)
        return self._wordpiece.encode(first, second).ids

    def marked(self, ids: Sequence[int]) -> list[int]:
        """Ids of a text with [CLS] and [SEP] around them, also where they came without, so that ids and text are the same."""
        first, last = self.special_ids["[CLS]"], self.special_ids["[SEP]"]
        whole = list(ids)
        return [*([] if whole[:1] == [first] else [first]), *whole, *([] if whole[-1:] == [last] else [last])]

    def encode_prompts(self, prompts: Iterable[Iterable[str | int]]) -> list[list[int]]:
        """Ids of texts given in pieces, ids among them."""
        return [
            [i for piece in prompt for i in ([piece] if isinstance(piece, int) else self.encode(piece)[1:-1])]
            for prompt in prompts
        ]

    def token_bytes(self, token_id: int) -> bytes:
        """The text of a piece, with a space before those that begin a word; b"" for marks and for ids that no piece has."""
        piece = self._wordpiece.piece(token_id)
        if piece is None or token_id in self._hidden:
            return b""
        return piece[2:].encode() if piece.startswith("##") else f" {piece}".encode()

    def decode(self, ids: Iterable[int]) -> str:
        """The text that the pieces spell: in lower case and without accents where the tokenizer takes those away."""
        stream = self.stream()
        return "".join(map(stream.push, ids)) + stream.flush()

    def stream(self, *, continuing: bool = False) -> StreamDecoder:
        """A decoder, token by token."""
        return StreamDecoder(self, strip_leading_space=not continuing)

    def min_tokens_lower_bound(self, text: str) -> int:
        """A number of tokens that `text` certainly needs at least, found much faster than they are."""
        return _N_MARKS + sum(1 for _ in _PLAIN_WORD.finditer(text))
