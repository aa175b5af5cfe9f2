"""The last pass: groups of blocks become shards of the dataset, by any worker in any order, and free their space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from chatwright.text.blocks import BEFORE_WHERE, Block, Blocks
from chatwright.text.dataset import ShardWriter, shard_name
from chatwright.text.decide import REASONS, Decision, Fate
from chatwright.text.manifest import KINDS, SPLITS, Contents, Kind, Split
from chatwright.text.work import Work

SHARD_BYTES = 64 << 20  # of blocks that become one shard a kind and split
ID_DIGITS = 20  # hexadecimal, of the 32 that the hash of a row has: two of 50 million collide once in 10⁹ datasets
_STEPS = {
    Fate.EXACT_DUPLICATE: "exact duplicates",
    Fate.NEAR_DUPLICATE: "near duplicates",
    Fate.NEAR_HELD_OUT: "split",
}


@dataclass(frozen=True)
class Group:
    """Some consecutive blocks: one work item. `shards`: the number of the shard of each kind and split that it has."""

    number: int
    folder: Path
    first_row: int
    blocks: tuple[Block, ...]
    shards: dict[tuple[Kind, Split], int]

    @property
    def name(self) -> str:
        """Of its files."""
        return f"group-{self.number:05d}"

    @property
    def size_bytes(self) -> int:
        """Of its blocks."""
        return sum(block.size_bytes for block in self.blocks)


def groups(blocks: Blocks, decision: Decision) -> list[Group]:
    """All groups, with their shards numbered through."""
    found: list[list[int]] = []
    size = SHARD_BYTES
    for index, block in enumerate(blocks.blocks):
        if size >= SHARD_BYTES:
            found.append([])
            size = 0
        found[-1].append(index)
        size += block.size_bytes
    next_number = {(kind, split): 0 for kind in KINDS for split in SPLITS}
    result = []
    for number, members in enumerate(found):
        first, last = int(blocks.offsets[members[0]]), int(blocks.offsets[members[-1] + 1])
        kinds = np.concatenate([blocks.blocks[index].column(blocks.folder, "kind") for index in members])
        shards = {}
        for key in _present(kinds, decision.fate[first:last]):
            shards[key] = next_number[key]
            next_number[key] += 1
        result.append(Group(number, blocks.folder, first, tuple(blocks.blocks[index] for index in members), shards))
    return result


def save_decision(folder: Path, blocks: Blocks, decision: Decision) -> None:
    """Leave the columns on disk for the workers. Raises OSError."""
    for name in ("fate", "cluster", "original"):
        np.save(folder / f"{name}.npy", getattr(decision, name))
    keys = np.lib.format.open_memmap(folder / "keys.npy", mode="w+", dtype=np.uint64, shape=(blocks.n_rows, 2))
    for offset, part in zip(blocks.offsets, blocks.column("key"), strict=False):
        keys[offset : offset + len(part)] = part
    keys.flush()


def run_group(group: Group) -> int:
    """Write the shards of a group; its bytes. Raises OSError."""
    work = Work(group.folder)
    result = group.folder / "result"
    columns = {
        name: np.load(group.folder / f"{name}.npy", mmap_mode="r") for name in ("fate", "cluster", "original", "keys")
    }
    writers = {key: ShardWriter(result, shard_name(*key, number), key[0]) for key, number in group.shards.items()}
    first = group.first_row
    with (group.folder / f"{group.name}.dropped").open("wb") as dropped:
        for block in group.blocks:
            _write_block(group.folder, block, first, columns, writers, dropped)
            first += block.rows
    contents = [[kind, split, writer.close().model_dump()] for (kind, split), writer in writers.items()]
    work.write(f"{group.name}.json", {"contents": contents})
    size_bytes = group.size_bytes
    for block in group.blocks:
        block.remove(group.folder)
    return size_bytes


def contents_of(markers: Sequence[dict[str, Any]]) -> dict[Kind, dict[Split, Contents]]:
    """What all finished groups wrote together."""
    merged: dict[tuple[Kind, Split], list[Contents]] = {}
    for marker in markers:
        for kind, split, contents in marker["contents"]:
            merged.setdefault((kind, split), []).append(Contents.model_validate(contents))
    kinds: dict[Kind, dict[Split, Contents]] = {}
    for kind in KINDS:
        for split in SPLITS:
            if parts := merged.get((kind, split)):
                kinds.setdefault(kind, {})[split] = _sum(parts)
    return kinds


def _sum(parts: Sequence[Contents]) -> Contents:
    languages: dict[str, int] = {}
    for part in parts:
        for language, n_bytes in part.languages.items():
            languages[language] = languages.get(language, 0) + n_bytes
    return Contents(
        rows=sum(part.rows for part in parts),
        bytes=sum(part.bytes for part in parts),
        languages=dict(sorted(languages.items())),
        shards=tuple(shard for part in parts for shard in part.shards),
    )


def _present(kinds: Any, fates: Any) -> Iterator[tuple[Kind, Split]]:
    for number, kind in enumerate(KINDS):
        own = fates[kinds == number]
        for fate, split in ((Fate.TRAIN, "train"), (Fate.HELD_OUT, "held_out")):
            if (own == fate).any():
                yield kind, split  # type: ignore[misc]


def _write_block(
    folder: Path,
    block: Block,
    first: int,
    columns: dict[str, Any],
    writers: dict[tuple[Kind, Split], ShardWriter],
    dropped: Any,
) -> None:
    rows = slice(first, first + block.rows)
    fates = columns["fate"][rows].tolist()
    clusters = columns["cluster"][rows].tolist()
    originals = columns["original"][rows]
    ids = _ids(columns["keys"][rows])
    duplicates = np.flatnonzero(originals >= 0)
    names = dict(zip(duplicates.tolist(), _ids(columns["keys"][originals[duplicates]]), strict=True))
    kinds = block.column(folder, "kind").tolist()
    languages = block.column(folder, "language").tolist()
    n_bytes = block.column(folder, "n_bytes").tolist()
    where_chars = block.column(folder, "where_chars").tolist()
    for number, line in enumerate(block.lines(folder)):
        fate = fates[number]
        if fate not in (Fate.TRAIN, Fate.HELD_OUT):
            source, where = _source_and_where(orjson.loads(line)["source"], where_chars[number])
            entry = {"source": source, "where": where, "step": _STEPS[fate], "reason": REASONS[fate], "detail": ""}
            if number in names:
                entry["duplicate_of"] = names[number]
            dropped.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
            continue
        writer = writers[KINDS[kinds[number]], SPLITS[fate]]
        head = b'{"id":"%s","cluster":%d,' % (ids[number].encode(), clusters[number])
        writer.write_line(head + line[1:], n_bytes[number], block.languages[languages[number]])


def _source_and_where(source: str, where_chars: int) -> tuple[str, str]:
    """Apart again, as the first pass names them: a source may hold ": " itself."""
    if not where_chars:
        return source, ""
    return source[: -where_chars - len(BEFORE_WHERE)], source[-where_chars:]


def _ids(keys: Any) -> list[str]:
    data = np.ascontiguousarray(keys).tobytes()
    return [data[at : at + 16].hex()[:ID_DIGITS] for at in range(0, len(data), 16)]
