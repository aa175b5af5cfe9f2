"""What becomes of every row: duplicate, train or held out, and in which cluster. Runs in the leading process, over columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chatwright.text.blocks import KIND_NUMBER, Blocks
from chatwright.text.components import Components
from chatwright.text.duplicates import (
    CLUSTER_THRESHOLD,
    NONE,
    QUESTION_THRESHOLD,
    Band,
    NearDuplicates,
    bands_of,
    find_candidates,
    first_of_equals,
    join_equal_texts,
    join_similar,
)
from chatwright.text.manifest import KINDS, Kind
from chatwright.text.options import PrepareOptions
from chatwright.text.split import held_out_clusters, target
from chatwright.text.tally import SET_STEPS, Tallies, new_tallies
from chatwright.text.work import Work

# Of the others a near duplicate is an example of its own: only a word may be another, and with it the label.
_DROPPED_WHEN_NEAR: tuple[Kind, ...] = ("documents", "conversations")
_MIN_DOCUMENTS = 20  # with fewer, the parts of one document may stand on both sides: nothing could be held out else


class Fate(IntEnum):
    """What becomes of a row."""

    TRAIN = 0
    HELD_OUT = 1
    EXACT_DUPLICATE = 2
    NEAR_DUPLICATE = 3
    NEAR_HELD_OUT = 4  # in a cluster with a row that the user wants held out


REASONS = {
    Fate.EXACT_DUPLICATE: "exact duplicate",
    Fate.NEAR_DUPLICATE: "near duplicate",
    Fate.NEAR_HELD_OUT: "too near to a held-out row",
}


@dataclass(frozen=True)
class Decision:
    """(rows,) columns, and the counts of the last steps."""

    fate: NDArray[np.uint8]
    cluster: NDArray[np.uint32]
    original: NDArray[np.int64]  # of a duplicate: the row that stays
    tallies: Tallies
    clusters: dict[str, int]


RunBands = Callable[[Iterable[tuple[Band, Path]]], None]


def decide(
    blocks: Blocks, options: PrepareOptions, work: Work, run_bands: RunBands, n_held_out: int | None = None
) -> Decision:
    """Decide over all rows. `run_bands` finds the candidates of bands that are not done yet.

    n_held_out: the first so many rows are the held-out ones; None: choose them. Raises OSError.
    """
    n_bytes = blocks.whole_column("n_bytes", np.int64)
    kind = blocks.whole_column("kind", np.uint8)
    original = first_of_equals(blocks)
    fate = np.full(blocks.n_rows, Fate.TRAIN, np.uint8)
    fate[original != NONE] = Fate.EXACT_DUPLICATE
    tallies = new_tallies(SET_STEPS)
    _count(tallies, "exact duplicates", fate, Fate.EXACT_DUPLICATE, n_bytes, np.ones(blocks.n_rows, np.bool_))

    alive_file = work.folder / "alive.npy"
    np.save(alive_file, original == NONE)
    bands = {name: bands_of(blocks, name) for name in ("text", "question")}
    run_bands((band, alive_file) for each in bands.values() for band in each if not band.file.exists())
    cluster = Components(blocks.n_rows)
    duplicates = None
    if options.near_duplicates is not None:
        droppable = np.isin(kind, [KIND_NUMBER[name] for name in _DROPPED_WHEN_NEAR])
        duplicates = NearDuplicates(options.near_duplicates, droppable, kind, original)
    before = fate != Fate.EXACT_DUPLICATE
    join_equal_texts(blocks, kind, before, cluster)
    join_similar(bands["text"], cluster, CLUSTER_THRESHOLD, duplicates)
    join_similar(bands["question"], cluster, QUESTION_THRESHOLD)
    fate[before & (original != NONE)] = Fate.NEAR_DUPLICATE
    exact = np.flatnonzero(~before)
    through = original[exact]
    original[exact] = np.where(fate[through] == Fate.NEAR_DUPLICATE, original[through], through)
    _count(tallies, "near duplicates", fate, Fate.NEAR_DUPLICATE, n_bytes, before)
    _join_parts(blocks, cluster, fate, tallies)
    return _split(blocks, options, n_held_out, cluster, fate, original, kind, n_bytes, tallies)


def pair_finder(item: tuple[Band, Path]) -> int:
    """`find_candidates` for a pool."""
    return find_candidates(*item)


def _join_parts(blocks: Blocks, cluster: Components, fate: NDArray[np.uint8], tallies: Tallies) -> None:
    """The parts of one long document belong together, unless there are hardly any other documents."""
    group = blocks.whole_column("group", np.uint64)
    parts = np.flatnonzero((group != 0) & (fate == Fate.TRAIN))
    n_whole = int(((group == 0) & (fate == Fate.TRAIN)).sum())
    order = parts[np.argsort(group[parts], kind="stable")]
    same = group[order][1:] == group[order][:-1] if len(order) else np.zeros(0, np.bool_)
    n_documents = n_whole + (len(order) - int(same.sum()))
    if n_documents >= _MIN_DOCUMENTS:
        cluster.join(order[:-1][same], order[1:][same])
    elif same.any():
        tallies["split"].notes["parts of one document may stand on both sides"] = len(parts)


def _split(
    blocks: Blocks,
    options: PrepareOptions,
    n_held_out: int | None,
    components: Components,
    fate: NDArray[np.uint8],
    original: NDArray[np.int64],
    kind: NDArray[np.uint8],
    n_bytes: NDArray[np.int64],
    tallies: Tallies,
) -> Decision:
    kept = fate == Fate.TRAIN
    labels = components.labels()
    roots, member = np.unique(
        labels[kept], return_inverse=True
    )  # a root is the first of its cluster, and never dropped
    cluster = np.zeros(blocks.n_rows, np.uint32)
    cluster[kept] = member
    rows_in = np.bincount(member, minlength=len(roots))
    held_out = np.zeros(len(roots), np.bool_)
    where = np.flatnonzero(kept)
    if n_held_out is None:
        held_out = _choose(blocks, options, roots.astype(np.int64), member, kind[kept], n_bytes[kept])
        fate[where[held_out[member]]] = Fate.HELD_OUT
    else:
        held_out[member[where < n_held_out]] = True
        fate[where[held_out[member]]] = Fate.NEAR_HELD_OUT
        fate[where[where < n_held_out]] = Fate.HELD_OUT
    _count(tallies, "split", fate, Fate.NEAR_HELD_OUT, n_bytes, kept)
    tallies["split"].notes["held out"] = int((fate == Fate.HELD_OUT).sum())
    clusters = {
        "clusters": len(roots),
        "of_several_rows": int((rows_in > 1).sum()),
        "rows_in_them": int(rows_in[rows_in > 1].sum()),
        "largest": int(rows_in.max(initial=0)),
    }
    return Decision(fate, cluster, original, tallies, clusters)


def _choose(
    blocks: Blocks,
    options: PrepareOptions,
    roots: NDArray[np.int64],
    member: NDArray[np.int64],
    kind: NDArray[np.uint8],
    n_bytes: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """(clusters,) which are held out, kind by kind. member, kind, n_bytes: of every row that is kept, its cluster first."""
    keys = _keys_of(blocks, roots)
    shares = [
        _share(KINDS[number], options, member, kind == number, n_bytes, len(roots))
        for number in np.flatnonzero(np.bincount(kind, minlength=len(KINDS)))
    ]
    too_large = np.zeros(len(roots), np.bool_)
    for sizes, wanted in shares:
        too_large |= sizes > wanted
    held_out = np.zeros(len(roots), np.bool_)
    for sizes, wanted in shares:
        own = np.flatnonzero(sizes)
        held_out[own] = held_out_clusters(sizes[own], keys[own], wanted, options.seed, held_out[own], too_large[own])
    return held_out


def _share(
    name: Kind,
    options: PrepareOptions,
    member: NDArray[np.int64],
    own: NDArray[np.bool_],
    n_bytes: NDArray[np.int64],
    n_clusters: int,
) -> tuple[NDArray[np.int64], float]:
    """((clusters,) how much of a kind is in each, how much of it to hold out), both in bytes or both in rows."""
    wanted, by_bytes = target(name, options.held_out, int(own.sum()), int(n_bytes.sum(where=own)))
    weights = own.astype(np.float64)
    if by_bytes:
        weights *= n_bytes
    return np.bincount(member, weights, n_clusters).astype(np.int64), wanted


def _keys_of(blocks: Blocks, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(len(rows), 2) the identity hashes of some sorted rows."""
    bounds = np.searchsorted(rows, blocks.offsets)
    parts = [
        key[rows[bounds[index] : bounds[index + 1]] - blocks.offsets[index]]
        for index, key in enumerate(blocks.column("key"))
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 2), np.uint64)


def _count(
    tallies: Tallies,
    step: str,
    fate: NDArray[np.uint8],
    gone: Fate,
    n_bytes: NDArray[np.int64],
    before: NDArray[np.bool_],
) -> None:
    tally = tallies[step]
    after = before & (fate != gone)
    tally.rows_in, tally.rows_out = int(before.sum()), int(after.sum())
    tally.bytes_in, tally.bytes_out = int(n_bytes[before].sum()), int(n_bytes[after].sum())
    if dropped := int((fate == gone).sum()):
        tally.dropped[REASONS[gone]] = dropped
