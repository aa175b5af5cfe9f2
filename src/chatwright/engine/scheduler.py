"""Which tokens the next step computes: continuous batching with chunked prefill over a paged cache.

Plain Python, no torch. Each step takes one token of every choice that is decoding and adds chunks of prompts, no more than lets
the step stay short, so that a long prompt never stops the others. Blocks of the cache are handed out as tokens need them; when
there are none left, the choice that came last gives its own back and goes on later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from chatwright.engine.blocks import BLOCK_TOKENS, BlockPool, Prefix, blocks_for
from chatwright.engine.fair_queue import FairQueue
from chatwright.engine.pacing import Pacer
from chatwright.engine.protocol import BACKGROUND
from chatwright.engine.sequence import Group, Sequence

# Steps in a row in which background work stands still, before it comes forward by one.
MOST_STILL = 8


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute tokens `start`..`end` of a sequence, whose `blocks` cover them and hold all before them."""

    sequence: Sequence
    start: int
    end: int

    @property
    def reaches_end(self) -> bool:
        """Whether the last token's logits choose the next one."""
        return self.end == len(self.sequence.token_ids)


class Scheduler:
    """`waiting` and `running` choices, and the blocks of the cache.

    max_batch: choices that run at the same time. max_step_tokens: prompt tokens of one step. cache_tokens: what the cache holds,
    in whole blocks of BLOCK_TOKENS. prefix_cache: whether a beginning that was computed before is found again; off for runners
    that keep no blocks. pacer: makes it fewer prompt tokens where answers are under way; None where nobody waits for tokens.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        max_step_tokens: int,
        cache_tokens: int,
        prefix_cache: bool = True,
        pacer: Pacer | None = None,
    ) -> None:
        self.max_batch = max_batch
        self.max_step_tokens = max_step_tokens
        self.pool = BlockPool(cache_tokens // BLOCK_TOKENS)
        self.prefix_cache = prefix_cache
        self.pacer = pacer
        self.waiting = FairQueue()
        self.running: list[Sequence] = []
        self.n_reused_tokens = 0
        self.n_preempted = 0
        self._step = 0
        self._n_still = 0
        # Whether the next in the queue did not fit: it is looked at again when somebody has ended, not in every step.
        self._blocked = False

    @property
    def cache_tokens(self) -> int:
        """Tokens that the whole cache holds: the longest that one choice can be."""
        return self.pool.n_blocks * BLOCK_TOKENS

    def add(self, group: Group) -> None:
        """Queue all choices of a request."""
        for sequence in group.sequences:
            self.waiting.add(sequence)

    def has_work(self) -> bool:
        """Whether `schedule` would return anything."""
        return bool(self.running or len(self.waiting))

    def cached_tokens(self) -> int:
        """Tokens of running choices that are in the cache or about to be."""
        return sum(len(s.token_ids) for s in self.running)

    def schedule(self) -> tuple[list[Chunk], list[Sequence]]:
        """The chunks of the next step, and the choices that were preempted: what a runner keeps for them must be dropped first."""
        chunks: list[Chunk] = []
        preempted: list[Sequence] = []
        self._step += 1
        still = self._background_stands_still()
        self._fill(chunks, preempted, still)
        if still and not chunks:  # the others could not be helped either
            self._n_still = 0
            self._fill(chunks, preempted, still=False)
        return chunks, preempted

    def observe(self, chunks: list[Chunk], seconds: float) -> None:
        """A step with these chunks took so long."""
        if self.pacer is not None:
            n_decoding = sum(chunk.end - chunk.start == 1 for chunk in chunks)
            n_tokens = sum(chunk.end - chunk.start for chunk in chunks)
            self.pacer.observe(n_decoding, n_tokens - n_decoding, seconds)

    def advance(self, chunk: Chunk) -> None:
        """The chunk was computed: its full blocks can be found from now on."""
        sequence = chunk.sequence
        sequence.n_cached = chunk.end
        if self.prefix_cache:
            for i in range(sequence.n_kept, chunk.end // BLOCK_TOKENS):
                self.pool.keep(sequence.blocks[i], self._prefix(sequence, i))
                sequence.n_kept = i + 1

    def remove(self, sequence: Sequence, *, spoilt: bool = False) -> None:
        """The choice is over, for whatever reason. `spoilt`: what was computed for it is wrong, and nobody may find it."""
        if spoilt:
            self.pool.forget(sequence.blocks)
        sequence.finished = True
        if sequence.running:
            self.running.remove(sequence)
            self._give_back(sequence)
        else:
            self.waiting.remove(sequence)
        self._blocked = False

    def _fill(self, chunks: list[Chunk], preempted: list[Sequence], still: bool) -> None:
        # The list gets shorter from its end when there are too few blocks.
        for sequence in self.running:
            if still and _is_background(sequence):
                continue
            if _n_missing(sequence) == 1 and self._cover(sequence, len(sequence.token_ids), preempted):
                chunks.append(Chunk(sequence, sequence.n_cached, len(sequence.token_ids)))
        self._add_prompts(chunks, preempted, still)

    def _background_stands_still(self) -> bool:
        """Whether somebody else's prompt is to be computed: nobody waits for the next token of a batch, many do for their first.
        Not where that prompt waits for room, which the background may be taking."""
        can_start = len(self.running) < self.max_batch and not self._blocked
        waits = any(_n_missing(s) > 1 and not _is_background(s) for s in self.running) or (
            can_start and any(not _is_background(s) for s in self.waiting)
        )
        self._n_still = self._n_still + 1 if waits and self._n_still < MOST_STILL else 0
        return self._n_still > 0

    def _add_prompts(self, chunks: list[Chunk], preempted: list[Sequence], still: bool) -> None:
        """Fill the step up with parts of prompts. Owners take turns, step by step, so that nobody's short prompt waits for
        another's long one; those of one owner are computed one after the other, so that the next finds what they share."""
        budget = self.max_step_tokens
        if self.pacer is not None:
            budget = min(budget, self.pacer.budget(len(chunks)))
        busy = {chunk.sequence for chunk in chunks}
        # owner → the step in which a prompt of his was computed last
        turns: dict[str, int] = {}
        for sequence in self.running:
            turns[_owner(sequence)] = max(sequence.prompt_step, turns.get(_owner(sequence), -1))
        waiting_for = (s for s in self.running if s not in busy and not (still and _is_background(s)))
        prompts = deque(sorted(waiting_for, key=lambda s: turns[_owner(s)]))
        resting = {_owner(s) for s in self.waiting if _is_background(s)} if still else set()
        while budget:
            newcomer = None if preempted else self._next(resting | {_owner(sequence) for sequence in prompts})
            if newcomer and prompts and turns.get(_owner(newcomer), -1) >= turns[_owner(prompts[0])]:
                newcomer = None
            if newcomer:
                chunk = self._admit(newcomer, budget)
                if chunk is None:
                    self._blocked = True
                    continue
            elif prompts:
                sequence = prompts.popleft()
                n_tokens = min(_n_missing(sequence), budget)
                if not sequence.running or not self._cover(sequence, sequence.n_cached + n_tokens, preempted, busy):
                    continue
                chunk = Chunk(sequence, sequence.n_cached, sequence.n_cached + n_tokens)
            else:
                break
            chunks.append(chunk)
            busy.add(chunk.sequence)
            budget -= chunk.end - chunk.start
            chunk.sequence.prompt_step = turns[_owner(chunk.sequence)] = self._step

    def _next(self, busy_owners: Collection[str]) -> Sequence | None:
        """Who may be admitted, if anybody: not those whose owner has a prompt under way that this step has not come to yet."""
        return self.waiting.next(busy_owners) if len(self.running) < self.max_batch and not self._blocked else None

    def _cover(
        self, sequence: Sequence, n_tokens: int, preempted: list[Sequence], busy: Collection[Sequence] = ()
    ) -> bool:
        """See that the sequence's blocks hold `n_tokens`. Those that came last give theirs back until there are enough; False
        where the last is the sequence itself, which then gives up its own, or one of the `busy`, whose chunk is made already: then
        the sequence waits. One alone always fits: longer ones are refused early."""
        n_new = blocks_for(n_tokens) - len(sequence.blocks)
        if n_new <= 0:
            return True
        while n_new > self.pool.n_available:
            last = self.running[-1]
            if last in busy:
                return False
            assert len(self.running) > 1, "a choice that does not fit into the cache alone was let in"
            self.running.pop()
            self._give_back(last)
            self.waiting.put_back(last)
            self.n_preempted += 1
            preempted.append(last)
            if last is sequence:
                return False
        sequence.blocks += self.pool.allocate(n_new)
        return True

    def _give_back(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.n_cached = sequence.n_kept = 0
        sequence.running = False

    def _admit(self, sequence: Sequence, budget: int) -> Chunk | None:
        """Start a waiting choice behind what the cache has of it; None where it does not fit beside those that run."""
        blocks = self._find(sequence)
        self.pool.share(blocks)
        if self.running:
            # Everybody, also the newcomer, keeps room for one more token, lest the next step preempt it again.
            n_promised = sum(blocks_for(len(s.token_ids) + 1) - len(s.blocks) for s in self.running)
            n_new = blocks_for(len(sequence.token_ids) + 1) - len(blocks)
            if n_promised + n_new > self.pool.n_available:
                self.pool.release(blocks)
                return None
        self.waiting.take(sequence)
        self.running.append(sequence)
        sequence.running = True
        sequence.blocks = blocks
        sequence.n_kept = len(blocks)
        sequence.n_cached = len(blocks) * BLOCK_TOKENS
        if sequence.n_reused is None:
            sequence.n_reused = sequence.n_cached
            self.n_reused_tokens += sequence.n_cached
        end = min(len(sequence.token_ids), sequence.n_cached + budget)
        sequence.blocks += self.pool.allocate(blocks_for(end) - len(sequence.blocks))
        return Chunk(sequence, sequence.n_cached, end)

    def _find(self, sequence: Sequence) -> list[int]:
        """The blocks of the longest beginning that was computed before."""
        # A prompt to be scored is computed in full: its scores are not kept.
        if not self.prefix_cache or (sequence.wants_prompt_scores and sequence.n_scored < sequence.n_prompt):
            return []
        blocks = []
        # Without the last token: its logits are needed, and they are not kept either.
        for i in range((len(sequence.token_ids) - 1) // BLOCK_TOKENS):
            block = self.pool.find(self._prefix(sequence, i))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _prefix(self, sequence: Sequence, i: int) -> Prefix:
        """What block `i` of a sequence holds once it is full. Those before it are known, or this one is the next."""
        prefixes = sequence.prefixes
        if not prefixes and sequence.index:
            # the prompt's are the same for all choices
            prefixes.extend(sequence.group.sequences[0].prefixes[: sequence.n_prompt // BLOCK_TOKENS])
        if i == len(prefixes):
            if prefixes:
                parent = prefixes[-1].key
            else:
                request = sequence.group.request
                parent = self.pool.root(repr((request.owner, request.adapter)))
            prefixes.append(self.pool.prefix(parent, sequence.token_ids[i * BLOCK_TOKENS : (i + 1) * BLOCK_TOKENS]))
        return prefixes[i]


def _n_missing(sequence: Sequence) -> int:
    """Tokens that must still be computed: one in decoding, more in a prompt."""
    return len(sequence.token_ids) - sequence.n_cached


def _owner(sequence: Sequence) -> str:
    return sequence.group.request.owner


def _is_background(sequence: Sequence) -> bool:
    return _owner(sequence).startswith(BACKGROUND)
