"""From files to a dataset: find, clean, compare, split, write. Deterministic, parallel, resumable, all or nothing.

Three passes over work items: the first reads and cleans (`firstpass`), then all rows are compared by their columns (`decide`), the
last writes the shards (`lastpass`). The dataset appears by one rename at the end.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from chatwright import __version__
from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.i18n import _
from chatwright.machine import available_cores, memory_limit_bytes
from chatwright.text.blocks import COLUMNS_VERSION, Blocks
from chatwright.text.dataset import Dataset
from chatwright.text.decide import decide, pair_finder
from chatwright.text.duplicates import Band
from chatwright.text.firstpass import (
    Batch,
    FirstPass,
    batches,
    blocks_of,
    is_done,
    run_batch,
    stop_if_asked,
    tallies_of,
)
from chatwright.text.lastpass import Group, contents_of, groups, run_group, save_decision
from chatwright.text.manifest import MANIFEST_FILE, Manifest, Sources, Step, fingerprint
from chatwright.text.options import DEFAULT_DOCUMENT_BYTES, PrepareOptions
from chatwright.text.pool import Pool
from chatwright.text.progress import Progress, Silent
from chatwright.text.readers import Input, Limits, Skipped, Unit, find_units
from chatwright.text.readers.names import shown
from chatwright.text.reasons import from_json
from chatwright.text.reasons import shown as shown_detail
from chatwright.text.report import write_reports
from chatwright.text.tally import ROW_STEPS, SET_STEPS, Tally, new_tallies
from chatwright.text.work import Work, lock_file, locked, need_space, storage_error, sync_folder, work_folder

_WORKER_BYTES = 400 << 20  # with its libraries and the window in work
_SPLIT_BYTES = 4 << 20
_FEW_FILES = 20
_SMALL_DOCUMENT_BYTES = 4_000
# Temporary files and dataset at their worst moment, for a byte of input: rows, columns (as much as short rows), one shard in work.
_SPACE_FACTOR = 2.5
_PACKED_FACTOR = 5  # compressed text and parquet, for a byte on disk


def prepare(
    inputs: Sequence[str | Path | Input],
    out: str | Path,
    options: PrepareOptions | None = None,
    *,
    held_out: Sequence[str | Path | Input] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Make the dataset `out` from files and folders.

    held_out: inputs whose rows are the held-out split; rows of `inputs` in a cluster with one of them are dropped. Without,
    `options` says how much is held out.

    The result depends on the input and `options` alone, but for report.md and report.html, which are in the user's language.
    Killed at any moment, the same call goes on from the items that are finished, to the same bytes. Raises UsageError,
    InvalidDatasetError (nothing is left, or a bad row), StorageError, InUseError.
    """
    out, options, progress = Path(out).absolute(), options or PrepareOptions(), progress or Silent()
    with locked(out):
        work = Work(work_folder(out))
        if out.exists() or out.is_symlink():
            if (marker := work.read("renaming.json")) is not None:  # killed between the last two steps
                shutil.rmtree(work.folder, ignore_errors=True)
                dataset = Dataset.open(out)
                if dataset.fingerprint == marker["fingerprint"]:
                    return dataset
            raise UsageError("{path} exists already: choose another folder, or remove it first.", path=out)
        try:
            return _Preparation(work, out, options, progress, workers).run(inputs, held_out)
        except OSError as error:
            raise storage_error(error, out.parent) from error


class _Preparation:
    """One run through all passes."""

    def __init__(self, work: Work, out: Path, options: PrepareOptions, progress: Progress, workers: int | None) -> None:
        self.n_held_out: int | None = None  # batches, the first ones
        self.work, self.out, self.options, self.progress = work, out, options, progress
        fitting = max(1, memory_limit_bytes() // (2 * _WORKER_BYTES))
        self.n_workers = workers or min(available_cores(), fitting)

    def run(self, inputs: Sequence[str | Path | Input], held_out: Sequence[str | Path | Input]) -> Dataset:
        self.progress.begin(_("Looking for files"), 0, 0)
        _refuse_own_work(self.work.folder, [*held_out, *inputs])
        limits = Limits(split_bytes=_SPLIT_BYTES)
        n_held_out = len(find_units(held_out, limits)[0]) if held_out else 0
        units, skipped = find_units([*held_out, *inputs], limits)  # together: a file in both is read once, and held out
        own = (work_folder(self.out).name, lock_file(self.out).name)  # where --out lies inside an input
        skipped = [each for each in skipped if each.source.rpartition("/")[2] not in own]
        for each in skipped:
            stop_if_asked(each, self.options)
        self.progress.end()
        if len(units) == n_held_out:
            raise _nothing_found(inputs, skipped)
        if held_out and not n_held_out:
            raise _nothing_found(held_out, skipped)
        limits = replace(limits, max_document_bytes=_document_bytes(self.options, units))
        names = [
            each.name if isinstance(each, Input) else shown(Path(each).name or each) for each in [*held_out, *inputs]
        ]
        held = batches(units[:n_held_out])
        items = [*held, *batches(units[n_held_out:], len(held))]
        self.n_held_out = len(held) if held_out else None
        if self.work.open(_plan(units, skipped, names, limits, self.options)):
            self.progress.say(_("Going on with what an interrupted run has finished."))
        self._check_space(units)
        plan = FirstPass(self.work.folder, self.options, limits)
        with Pool(min(self.n_workers, len(items))) as pool:
            decided = self.work.read("decided.json")
            if decided is not None and not self._groups_are_whole(items):
                decided = None
            if decided is None:
                self._read_and_clean(plan, items, pool)
                self._decide(items, skipped, pool)
            self._write_shards(items, pool)
        return self._finish(items, skipped, names)

    def _read_and_clean(self, plan: FirstPass, items: list[Batch], pool: Pool) -> None:
        todo = [batch for batch in items if not is_done(self.work, batch)]
        total = sum(batch.size_bytes for batch in items)
        self.progress.begin(_("Reading and cleaning"), total, total - sum(batch.size_bytes for batch in todo))
        for n_bytes in pool.run(_BatchRunner(plan), todo):
            self.progress.advance(n_bytes)
        self.progress.end()

    def _decide(self, items: list[Batch], skipped: list[Skipped], pool: Pool) -> None:
        blocks = self._blocks(items)
        if not blocks.n_rows:
            raise self._nothing_left(items, skipped)

        def run_bands(bands: Iterable[tuple[Band, Path]]) -> None:
            todo = list(bands)
            self.progress.begin(_("Looking for duplicates"), len(todo), 0)
            for _n_pairs in pool.run(pair_finder, todo):
                self.progress.advance(1)
            self.progress.end()

        held_out = None if self.n_held_out is None else self._blocks(items[: self.n_held_out]).n_rows
        decision = decide(blocks, self.options, self.work, run_bands, held_out)
        save_decision(self.work.folder, blocks, decision)
        steps = [decision.tallies[name].as_step(name).model_dump() for name in SET_STEPS]
        shards = [
            [[kind, split, number] for (kind, split), number in group.shards.items()]
            for group in groups(blocks, decision)
        ]
        sizes = [len(group.blocks) for group in groups(blocks, decision)]
        shutil.rmtree(self.work.folder / "result", ignore_errors=True)
        self.work.write(
            "decided.json", {"steps": steps, "clusters": decision.clusters, "shards": shards, "blocks": sizes}
        )

    def _groups(self, items: list[Batch]) -> list[Group]:
        decided = self._marker("decided.json")
        blocks = self._blocks(items)
        result = []
        first = 0
        for number, (shards, n_blocks) in enumerate(zip(decided["shards"], decided["blocks"], strict=True)):
            members = tuple(blocks.blocks[first : first + n_blocks])
            keys = {(kind, split): shard for kind, split, shard in shards}
            result.append(Group(number, self.work.folder, int(blocks.offsets[first]), members, keys))
            first += n_blocks
        return result

    def _groups_are_whole(self, items: list[Batch]) -> bool:
        """Whether every group is finished or can be: a power cut may have cut blocks off."""
        try:
            found = self._groups(items)
        except (KeyError, TypeError):
            return False
        return all(
            self.work.read(f"{group.name}.json") is not None
            or all(block.is_whole(self.work.folder) for block in group.blocks)
            for group in found
        )

    def _write_shards(self, items: list[Batch], pool: Pool) -> None:
        found = self._groups(items)
        todo = [group for group in found if self.work.read(f"{group.name}.json") is None]
        total = sum(group.size_bytes for group in found)
        self.progress.begin(_("Writing the dataset"), total, total - sum(group.size_bytes for group in todo))
        (self.work.folder / "result").mkdir(exist_ok=True)
        for n_bytes in pool.run(run_group, todo):
            self.progress.advance(n_bytes)
        self.progress.end()

    def _finish(self, items: list[Batch], skipped: list[Skipped], names: list[str]) -> Dataset:
        result = self.work.folder / "result"
        markers = [self._marker(f"{batch.name}.json") for batch in items]
        groups_found = self._groups(items)
        kinds = contents_of([self._marker(f"{group.name}.json") for group in groups_found])
        decided = self._marker("decided.json")
        sources = _write_sources(result, markers, names)
        self._write_dropped(result, items, groups_found, skipped)
        manifest = Manifest(
            created_by=f"chatwright {__version__}",
            fingerprint=fingerprint(kinds),
            kinds=kinds,
            options=self.options.as_json(),
            sources=sources,
            steps=(*_row_steps(markers, skipped), *(Step.model_validate(step) for step in decided["steps"])),
            clusters=decided["clusters"],
            temporary_bytes=sum(block["size_bytes"] for marker in markers for block in marker["blocks"]),
        )
        (result / MANIFEST_FILE).write_bytes(manifest.to_json())
        write_reports(result, manifest)
        sync_folder(result)
        self.work.write("renaming.json", {"fingerprint": manifest.fingerprint})
        result.rename(self.out)
        shutil.rmtree(self.work.folder, ignore_errors=True)
        return Dataset.open(self.out)

    def _write_dropped(
        self, result: Path, items: list[Batch], groups_found: list[Group], skipped: list[Skipped]
    ) -> None:
        with (result / "dropped.jsonl").open("wb") as stream:
            for each in skipped:
                entry = {
                    "source": each.source,
                    "where": each.where,
                    "step": "find",
                    "reason": each.reason,
                    "detail": each.detail,
                }
                stream.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
            for name in [*(batch.name for batch in items), *(group.name for group in groups_found)]:
                with (self.work.folder / f"{name}.dropped").open("rb") as part:
                    shutil.copyfileobj(part, stream)

    def _blocks(self, items: list[Batch]) -> Blocks:
        return Blocks(
            self.work.folder, [block for batch in items for block in blocks_of(self._marker(f"{batch.name}.json"))]
        )

    def _marker(self, name: str) -> dict[str, Any]:
        marker = self.work.read(name)
        assert marker is not None, name
        return marker

    def _check_space(self, units: Sequence[Unit]) -> None:
        existing = sum(path.stat().st_size for path in self.work.folder.rglob("*") if path.is_file())
        text = sum(
            unit.size_bytes * (_PACKED_FACTOR if unit.compression or unit.format in ("parquet", "docx") else 1)
            for unit in units
        )
        need_space(self.work.folder, int(_SPACE_FACTOR * text) + (32 << 20) - existing)

    def _nothing_left(self, items: list[Batch], skipped: list[Skipped]) -> InvalidDatasetError:
        markers = [self._marker(f"{batch.name}.json") for batch in items]
        steps = _row_steps(markers, skipped)
        reasons = _reasons(steps, _details(skipped, markers))
        shutil.rmtree(self.work.folder, ignore_errors=True)
        if any(step.dropped for step in steps if step.name in ("language", "quality")):
            return InvalidDatasetError(
                "Nothing is left of the input for {path}. Dropped: {reasons}. Give other files, or loosen --languages, "
                "--min-chars or the filters (--no-filter).",
                path=self.out,
                reasons=reasons,
            )
        return InvalidDatasetError(
            "Nothing is left of the input for {path}. Dropped: {reasons}. Correct these files, or give others.",
            path=self.out,
            reasons=reasons,
        )


class _BatchRunner:
    """`run_batch` with its plan, for a pool."""

    def __init__(self, plan: FirstPass) -> None:
        self.plan = plan

    def __call__(self, batch: Batch) -> int:
        return run_batch(self.plan, batch)


def _refuse_own_work(folder: Path, inputs: Iterable[str | Path | Input]) -> None:
    """Raises UsageError where an input lies in what an interrupted run has left of this dataset: `.*` names hidden folders too."""
    own = folder.resolve()
    for each in inputs:
        path = (each.path if isinstance(each, Input) else Path(each)).expanduser()
        if "\0" not in str(path) and path.resolve().is_relative_to(own):
            raise UsageError(
                "{path} is what an interrupted run has made of the dataset so far: leave it out, it is gone on with by itself.",
                path=shown(path),
            )


def _document_bytes(options: PrepareOptions, units: Sequence[Unit]) -> int:
    """Where documents are cut: smaller where a few files are all there is, so that something can be held out."""
    if options.max_document is not None:
        return options.max_document
    if len(units) >= _FEW_FILES:
        return DEFAULT_DOCUMENT_BYTES
    total = sum(unit.size_bytes for unit in units)
    return min(max(total // 40, _SMALL_DOCUMENT_BYTES), DEFAULT_DOCUMENT_BYTES)


def _plan(
    units: Sequence[Unit], skipped: Sequence[Skipped], names: Sequence[str], limits: Limits, options: PrepareOptions
) -> dict[str, Any]:
    """What an interrupted run must have been doing to be gone on with: the same files, unchanged, and the same options."""
    digest = hashlib.sha256(repr((limits, list(names), list(skipped))).encode("utf-8", "surrogateescape"))
    for unit in units:
        digest.update(repr((unit, unit.path.stat().st_mtime_ns)).encode("utf-8", "surrogateescape"))
    return {
        "version": __version__,
        "columns": COLUMNS_VERSION,
        "options": options.as_json(),
        "units": len(units),
        "input": digest.hexdigest(),
    }


def _row_steps(markers: Sequence[dict[str, Any]], skipped: Sequence[Skipped]) -> list[Step]:
    tallies = new_tallies()
    for marker in markers:
        for name, tally in tallies_of(marker).items():
            tallies[name].add(tally)
    found = Tally()
    for each in skipped:
        found.dropped[each.reason] += 1
    return [found.as_step("find"), *(tallies[name].as_step(name) for name in ROW_STEPS)]


def _write_sources(result: Path, markers: Sequence[dict[str, Any]], names: Sequence[str]) -> Sources:
    """Write sources.jsonl, a line a unit, and sum it up."""
    digest = hashlib.sha256()
    detected: dict[str, int] = {}
    n_units = size_bytes = 0
    with (result / "sources.jsonl").open("wb") as stream:
        for marker in markers:
            for source in marker["sources"]:
                line = orjson.dumps(source, option=orjson.OPT_APPEND_NEWLINE)
                stream.write(line)
                digest.update(line)
                n_units += 1
                size_bytes += source["size_bytes"]
                for name, count in source["detected"].items():
                    detected[name] = detected.get(name, 0) + count
    ordered = dict(sorted(detected.items(), key=lambda item: (-item[1], item[0])))
    return Sources(
        inputs=tuple(names), units=n_units, size_bytes=size_bytes, detected=ordered, sha256=digest.hexdigest()
    )


def _nothing_found(inputs: Sequence[str | Path | Input], skipped: Sequence[Skipped]) -> InvalidDatasetError:
    names = ", ".join(each.name if isinstance(each, Input) else shown(each) for each in inputs)
    if not skipped:
        return InvalidDatasetError("{names} holds no files: name a folder or a file with text in it.", names=names)
    found = Tally()
    for each in skipped:
        found.dropped[each.reason] += 1
    return InvalidDatasetError(
        "{names} holds no file that can be read. Left out: {reasons}.",
        names=names,
        reasons=_reasons([found.as_step("find")], _details(skipped, ())),
    )


def _details(skipped: Sequence[Skipped], markers: Sequence[dict[str, Any]]) -> dict[str, str]:
    """For each reason the first sentence that says more: what to do about it, often."""
    details: dict[str, str] = {}
    for each in skipped:
        if each.detail:
            details.setdefault(each.reason, each.detail)
    for marker in markers:
        for reason, detail in marker["details"].items():
            details.setdefault(reason, from_json(detail))
    return details


def _reasons(steps: Sequence[Step], details: Mapping[str, str]) -> str:
    counts: dict[str, int] = {}
    for step in steps:
        for reason, count in step.dropped.items():
            counts[reason] = counts.get(reason, 0) + count
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    said = [
        f"{_(reason)} ({count}): {shown_detail(details[reason])}" if reason in details else f"{_(reason)} ({count})"
        for reason, count in ordered[:8]
    ]
    return "; ".join(said) or _("nothing, the files are empty")
