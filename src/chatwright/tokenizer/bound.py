"""How many tokens a text certainly needs, without tokenising it: lets a server refuse 20 MB at once."""

from __future__ import annotations

from collections.abc import Iterable

_ALNUM = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BLANK = b" \t\n\r\x0b\x0c"
_ASCII = bytes(range(128))


class TokenBound:
    """Bytes are counted by kind, as the longest tokens are runs of blanks or dashes, which no letters fit into."""

    def __init__(self, tokens: Iterable[bytes]) -> None:
        """tokens: the bytes of every token that text can become."""
        longest_first = sorted(tokens, key=len, reverse=True)
        # A tokenizer without a token for some byte drops that byte.
        self._dropped = bytes(set(range(256)) - {token[0] for token in longest_first if len(token) == 1})
        self._most = (0, 0, 0, 0)
        for token in longest_first:
            if len(token) <= min(self._most):
                break
            alnum, blank, other, beyond = map(max, self._most, self._counts(token))
            self._most = (alnum, blank, other, beyond)

    def at_least(self, data: bytes) -> int:
        """A number of tokens that the UTF-8 text `data` needs at least: each kind of byte, shared by the tokens richest in
        it. A few passes over the bytes.
        """
        return max(
            (-(-count // most) for count, most in zip(self._counts(data), self._most, strict=True) if most), default=0
        )

    def _counts(self, data: bytes) -> tuple[int, int, int, int]:
        """How many letters and digits, blanks, other ASCII characters, and bytes beyond ASCII are in `data`."""
        kept = data.translate(None, self._dropped)
        not_alnum = kept.translate(None, _ALNUM)
        other = not_alnum.translate(None, _BLANK)
        beyond = other.translate(None, _ASCII)
        return len(kept) - len(not_alnum), len(not_alnum) - len(other), len(other) - len(beyond), len(beyond)
