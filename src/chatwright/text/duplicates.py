"""Exact and near duplicates among the rows of all blocks, in memory that depends on a few bytes a row.

Exact ones by 128 bits of hash, sorted range by range. Near ones by LSH: per band, rows with equal hashes are candidates, each
beside the first of them; candidates of all bands are then compared by their signatures. Rows of two kinds are never duplicates of
each other, but they share a cluster: what is trained on are several kinds together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from chatwright.text.blocks import KIND_NUMBER, Blocks
from chatwright.text.components import Components
from chatwright.text.manifest import KINDS, Kind
from chatwright.text.shingles import N_BANDS, similarity

CLUSTER_THRESHOLD = 0.5  # from here on two rows must not stand on both sides of a split
QUESTION_THRESHOLD = 0.8  # of the questions alone: `the capital of France` and `of Spain` have 0.6
_RANGE_ROWS = 2_000_000  # sorted at once
_WHOLE: tuple[Kind, ...] = ("documents", "labelled", "tagged")  # the row is its one text
_CHUNK_PAIRS = 200_000  # compared at once: 256 bytes each
NONE = np.int64(-1)

Flags = NDArray[np.bool_]
Pairs = NDArray[np.uint64]  # the left row in the upper 32 bits, the right one in the lower
_KIND_SALTS = np.array([xxhash.xxh3_64_intdigest(kind.encode()) for kind in KINDS], np.uint64)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class NearDuplicates:
    """Which rows go because they are like an earlier one that stays.

    Not the chain counts but the pair: of A ~ B ~ C, B goes for A, and C stays unless it is like A too.
    """

    threshold: float
    droppable: Flags  # (rows,)
    kind: NDArray[np.uint8]  # (rows,) a row goes for one of its own kind only
    original: NDArray[np.int64]  # (rows,) the row that stays for a row that goes, else NONE; filled in here


@dataclass(frozen=True)
class Band:
    """One band of one set of signatures ("text" or "question"): a work item."""

    folder: Path
    blocks: Blocks
    kind: str
    number: int

    @property
    def file(self) -> Path:
        """Where its candidate pairs go: (pairs,) sorted `pair` numbers."""
        return self.folder / f"pairs-{self.kind}-{self.number:02d}.npy"


def first_of_equals(blocks: Blocks) -> NDArray[np.int64]:
    """(rows,) for each row the first one that is equal to it, −1 for the first itself."""
    first = np.full(blocks.n_rows, NONE)
    n_ranges = max(1, -(-blocks.n_rows // _RANGE_ROWS))
    for number in range(n_ranges):
        keys, rows = [], []
        for offset, block_keys in zip(blocks.offsets, blocks.column("key"), strict=False):
            inside = np.flatnonzero(_range_of(block_keys[:, 0], n_ranges) == number)
            keys.append(block_keys[inside])
            rows.append(inside + offset)
        if not keys:
            continue
        key, row = np.concatenate(keys), np.concatenate(rows)
        order = np.lexsort((row, key[:, 1], key[:, 0]))
        key, row = key[order], row[order]
        begins = np.ones(len(row), np.bool_)
        begins[1:] = (key[1:] != key[:-1]).any(axis=1)
        leader = row[np.flatnonzero(begins)][np.cumsum(begins) - 1]
        first[row[~begins]] = leader[~begins]
    return first


def join_equal_texts(blocks: Blocks, kind: NDArray[np.uint8], kept: Flags, cluster: Components) -> None:
    """Join the rows whose whole text is the same but for case and blanks, and those with a message that is this text.

    Not two conversations with one answer: many questions have the same. kind, kept: (rows,) columns.
    """
    whole = np.isin(kind, [KIND_NUMBER[name] for name in _WHOLE])
    if not whole.any() or (kind == KIND_NUMBER["documents"]).all():
        return  # equal documents are duplicates
    n_passages = sum(len(rows) for rows in blocks.column("passage_row"))
    n_ranges = max(1, -(-n_passages // _RANGE_ROWS))
    for number in range(n_ranges):
        hashes, rows = [], []
        for index, block in enumerate(blocks.blocks):
            value, row = block.columns(blocks.folder, "passage", "passage_row")
            row = row.astype(np.int64) + blocks.offsets[index]
            inside = (_range_of(value, n_ranges) == number) & kept[row]
            hashes.append(value[inside])
            rows.append(row[inside])
        value, row = np.concatenate(hashes), np.concatenate(rows)
        order = np.lexsort((row, ~whole[row], value))  # of equal ones a whole text is the first, if there is any
        value, row = value[order], row[order]
        begins = np.ones(len(value), np.bool_)
        begins[1:] = value[1:] != value[:-1]
        leader = row[np.flatnonzero(begins)][np.cumsum(begins) - 1] if len(row) else row
        follows = ~begins & whole[leader]
        cluster.join(leader[follows], row[follows])


def find_candidates(band: Band, alive: Path) -> int:
    """Write the candidate pairs of a band among the rows that are still there (`alive`: a .npy of flags); their number."""
    kept = np.load(alive, mmap_mode="r")
    n_ranges = max(1, -(-int(band.blocks.n_rows) // _RANGE_ROWS))
    found = [_candidates_in_range(band, kept, number, n_ranges) for number in range(n_ranges)]
    pairs = np.unique(np.concatenate(found))
    temporary = band.file.with_suffix(f".{os.getpid()}.npy")
    np.save(temporary, pairs)
    temporary.replace(band.file)
    return len(pairs)


def _candidates_in_range(band: Band, kept: Flags, number: int, n_ranges: int) -> Pairs:
    hashes, rows, kinds = [], [], []
    for index, block in enumerate(band.blocks.blocks):
        offset = band.blocks.offsets[index]
        which = "signed" if band.kind == "text" else "asked"
        own, usable, kind = block.columns(band.folder, f"{band.kind}-{band.number}", which, "kind")
        if band.kind == "text":
            usable = np.flatnonzero(usable)
            own = own[usable]
        inside = (_range_of(own, n_ranges) == number) & kept[usable + offset]
        hashes.append(own[inside])
        rows.append(usable[inside] + offset)
        kinds.append(kind[usable[inside]])
    if not hashes:
        return np.zeros(0, np.uint64)
    value, row, kind = np.concatenate(hashes), np.concatenate(rows), np.concatenate(kinds)
    pairs = _neighbours(value, row)
    if band.kind == "question" or (kind == kind[:1]).all():
        return pairs
    # Rows of another kind in between would keep apart two of one kind, of which one may have to go.
    return np.concatenate([pairs, _neighbours(value ^ _KIND_SALTS[kind], row)])


def _neighbours(value: NDArray[np.uint64], row: NDArray[np.int64]) -> Pairs:
    """Of the rows with an equal hash each beside the first one, and beside the one before it."""
    order = np.argsort(value, kind="stable")  # rows are in order already, and stay so within equal hashes
    value, row = value[order], row[order]
    begins = np.ones(len(row), np.bool_)
    begins[1:] = value[1:] != value[:-1]
    leader = row[np.flatnonzero(begins)][np.cumsum(begins) - 1] if len(row) else row
    follows = np.flatnonzero(~begins)
    row = row.astype(np.uint64)
    beside_first = (leader.astype(np.uint64)[follows] << _HALF) | row[follows]
    beside_previous = (row[follows - 1] << _HALF) | row[follows]
    return np.concatenate([beside_first, beside_previous])


def join_similar(
    bands: list[Band], cluster: Components, threshold: float, duplicates: NearDuplicates | None = None
) -> None:
    """Compare the candidates of all bands: join those that are similar enough in `cluster`, and fill in `duplicates`."""
    if not bands:
        return
    blocks, kind = bands[0].blocks, bands[0].kind
    if not blocks.n_rows:
        return
    files = [np.load(band.file, mmap_mode="r") for band in bands]
    positions = _signature_positions(blocks, kind)
    done = [0] * len(files)
    while any(start < len(file) for start, file in zip(done, files, strict=True)):
        end = _end_of_chunk(files, done)
        stops = [int(np.searchsorted(file, end)) for file in files]
        parts = [np.asarray(file[start:stop]) for file, start, stop in zip(files, done, stops, strict=True)]
        done = stops
        pairs = np.unique(np.concatenate(parts))
        left, right = (pairs >> _HALF).astype(np.int64), (pairs & _LOW).astype(np.int64)
        undecided = np.flatnonzero(_undecided(left, right, cluster, duplicates))
        for first in range(0, len(undecided), _CHUNK_PAIRS):
            some = undecided[first : first + _CHUNK_PAIRS]
            some = some[_undecided(left[some], right[some], cluster, duplicates)]  # by the pairs before
            if not len(some):
                continue
            ours, theirs = left[some], right[some]
            signatures = _signatures(blocks, kind, theirs, positions)
            alike = similarity(_signatures(blocks, kind, ours, positions), signatures)
            near = alike >= threshold
            cluster.join(ours[near], theirs[near])
            if duplicates is not None:
                same = (alike >= duplicates.threshold) & _may_go(ours, theirs, duplicates)
                _drop(ours[same], theirs[same], signatures[same], duplicates, blocks, kind, positions)


def _undecided(
    left: NDArray[np.int64], right: NDArray[np.int64], cluster: Components, duplicates: NearDuplicates | None
) -> Flags:
    """(pairs,) whether comparing them can change anything."""
    undecided = cluster.roots(left) != cluster.roots(right)
    if duplicates is not None:
        undecided |= _may_go(left, right, duplicates) & (duplicates.original[right] == NONE)
    return np.asarray(undecided)


def _may_go(left: NDArray[np.int64], right: NDArray[np.int64], duplicates: NearDuplicates) -> Flags:
    """(pairs,) whether the right row could go for the left one: a document that is like a labelled text is none."""
    return np.asarray(duplicates.droppable[right] & (duplicates.kind[left] == duplicates.kind[right]))


def _drop(
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    signatures: NDArray[np.uint8],
    duplicates: NearDuplicates,
    blocks: Blocks,
    kind: str,
    positions: list[NDArray[np.int64]] | None,
) -> None:
    """Decide over the right rows of similar pairs. `signatures`: of the right ones.

    The pairs come in the order of their left rows, so that all is known of these: every pair in which one is the right row came
    before. Where the left row went, the row that stays for it is compared instead; it is among the left ones, or was found out
    before them.
    """
    if not len(left):
        return
    original = duplicates.original
    gone = original[left]
    keepers = np.unique(np.concatenate([left, gone[gone != NONE]]))
    of_keepers = _signatures(blocks, kind, keepers, positions)
    for number, (ours, theirs) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        if original[theirs] != NONE:
            continue
        keeper = original[ours]
        if keeper == NONE:
            original[theirs] = ours
            continue
        of_keeper = of_keepers[np.searchsorted(keepers, keeper)]
        if similarity(of_keeper[None], signatures[number : number + 1])[0] >= duplicates.threshold:
            original[theirs] = keeper


def _end_of_chunk(files: list[Pairs], done: list[int]) -> np.uint64:
    """The pair before which the next ones end, so that these are few enough, and the same of all bands."""
    share = max(1, _CHUNK_PAIRS * 4 // len(files))
    unfinished = [(file, start) for file, start in zip(files, done, strict=True) if start < len(file)]
    return np.uint64(min(int(file[min(start + share, len(file)) - 1]) for file, start in unfinished) + 1)


def _signature_positions(blocks: Blocks, kind: str) -> list[NDArray[np.int64]] | None:
    """For questions, which rows of a block have a signature; for texts every row has one (None)."""
    return None if kind == "text" else list(blocks.column("asked"))


def _signatures(
    blocks: Blocks, kind: str, rows: NDArray[np.int64], asked: list[NDArray[np.int64]] | None
) -> NDArray[np.uint8]:
    """(len(rows), N_PERMUTATIONS) signatures, of rows in any order."""
    unique, inverse = np.unique(rows, return_inverse=True)
    bounds = np.searchsorted(unique, blocks.offsets)
    parts = []
    for index, block in enumerate(blocks.blocks):
        own = unique[bounds[index] : bounds[index + 1]] - blocks.offsets[index]
        if len(own):
            where = own if asked is None else np.searchsorted(asked[index], own)
            parts.append(block.column(blocks.folder, kind)[where])
    return np.concatenate(parts)[inverse]


def bands_of(blocks: Blocks, kind: str) -> list[Band]:
    """The work items of one set of signatures; none where nothing has such signatures."""
    if kind == "question" and not any(block.n_questions for block in blocks.blocks):
        return []
    return [Band(blocks.folder, blocks, kind, number) for number in range(N_BANDS)]


def _range_of(hashes: NDArray[np.uint64], n_ranges: int) -> NDArray[np.uint64]:
    """Which of n equal ranges of hashes each one lies in."""
    return (hashes >> np.uint64(32)) * np.uint64(n_ranges) >> np.uint64(32)
