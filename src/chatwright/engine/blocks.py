"""The KV cache as a pool of fixed blocks: who refers to which, and which full blocks hold a beginning that may come again.

A block is a number; what lies in it is the runner's affair. Full blocks are kept by what was computed into them, as in vLLM
(Kwon et al. 2023): the key of a block is a hash over the key of the block before it and its own token ids, so one key stands for
everything from the first token on. The chain starts with a salt, so those who do not share the salt never meet. A block that
nobody refers to keeps its contents until its place is needed: least recently used first.

Plain Python. No call walks over the pool: each costs what the blocks handed in cost.
"""

from __future__ import annotations

import secrets
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

BLOCK_TOKENS = 16
KEY_BYTES = 16


def blocks_for(n_tokens: int) -> int:
    """Blocks that hold `n_tokens`."""
    return -(-n_tokens // BLOCK_TOKENS)


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a full block holds: `tokens` (ids, packed) after everything that `parent` stands for. `key` stands for both."""

    key: bytes
    parent: bytes
    tokens: bytes


class BlockPool:
    """Blocks 0 … n_blocks - 1 with reference counts, and the prefixes that lie in them.

    A block is in use (somebody refers to it), idle (nobody does, but its prefix may come again) or free.
    """

    def __init__(self, n_blocks: int) -> None:
        self.n_blocks = n_blocks
        self._references = [0] * n_blocks
        # Handed out from the end, so the first are 0, 1, 2, …, and what was given back last comes next: memory that was
        # never touched stays so as long as possible.
        self._free = list(range(n_blocks - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._prefixes: list[Prefix | None] = [None] * n_blocks
        self._block_of: dict[bytes, int] = {}
        # Nobody outside can compute keys, so nobody can look for two prompts with the same one.
        self._secret = secrets.token_bytes(32)

    @property
    def n_available(self) -> int:
        """Blocks that `allocate` can hand out."""
        return len(self._free) + len(self._idle)

    @property
    def n_used(self) -> int:
        """Blocks that somebody refers to."""
        return self.n_blocks - self.n_available

    @property
    def n_idle(self) -> int:
        """Blocks that nobody refers to, kept for what they hold."""
        return len(self._idle)

    def allocate(self, n: int) -> list[int]:
        """`n` blocks with one reference each; what they held is gone. There must be as many (`n_available`)."""
        assert n <= self.n_available, "the scheduler makes room first"
        blocks = []
        for _ in range(n):
            if self._free:
                block = self._free.pop()
            else:
                block, _ = self._idle.popitem(last=False)
                self._forget(block)
            self._references[block] = 1
            blocks.append(block)
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """One more reference to each of these blocks, which `find` returned or somebody refers to."""
        for block in blocks:
            if not self._references[block]:
                del self._idle[block]
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """One reference less to each. The last of them will be reused first: without its beginning an end is worth nothing."""
        for block in reversed(blocks):
            assert self._references[block] > 0, "a block is given back twice"
            self._references[block] -= 1
            if self._references[block]:
                continue
            if self._prefixes[block] is None:
                self._free.append(block)
            else:
                self._idle[block] = None

    def root(self, salt: str) -> bytes:
        """The key that the chains of a salt start from."""
        return self._digest(b"salt", salt.encode("utf-8", "surrogatepass"))

    def prefix(self, parent: bytes, token_ids: Sequence[int]) -> Prefix:
        """The prefix that one block of ids makes after what `parent` stands for."""
        tokens = array("q", token_ids).tobytes()
        return Prefix(self._digest(parent, tokens), parent, tokens)

    def find(self, prefix: Prefix) -> int | None:
        """The block that holds exactly this. Tokens are compared too: even a collision of keys shows nobody foreign text."""
        block = self._block_of.get(prefix.key)
        return block if block is not None and self._prefixes[block] == prefix else None

    def keep(self, block: int, prefix: Prefix) -> None:
        """A block in use was computed in full and may be found from now on, unless another one with the same contents is."""
        assert self._references[block] > 0
        assert self._prefixes[block] is None
        if prefix.key not in self._block_of:
            self._block_of[prefix.key] = block
            self._prefixes[block] = prefix

    def forget(self, blocks: Iterable[int]) -> None:
        """What these blocks in use hold must not be found any more: it was computed wrongly."""
        for block in blocks:
            self._forget(block)

    def _forget(self, block: int) -> None:
        prefix = self._prefixes[block]
        if prefix is not None:
            del self._block_of[prefix.key]
            self._prefixes[block] = None

    def _digest(self, parent: bytes, contents: bytes) -> bytes:
        return blake2b(parent + contents, digest_size=KEY_BYTES, key=self._secret).digest()
