"""Data sets of Hugging Face and ModelScope: their files of text, fetched once into a folder, under the name of the data set."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from filelock import FileLock

from chatwright.errors import PullError
from chatwright.hub.download import file_sha256
from chatwright.hub.failures import need_space, writing_to
from chatwright.hub.huggingface import check_file, huggingface_failures, parse_repository, progress_bar
from chatwright.hub.modelscope import modelscope_failures, need_client
from chatwright.hub.progress import Progress, Silent
from chatwright.i18n import _
from chatwright.text.readers import Input

_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".conll", ".zip")
_COMPRESSED = (".gz", ".xz", ".bz2", ".zst")
# About the data set, not part of it.
_ABOUT = re.compile(
    r"(?i)(dataset_infos?|state|metadata|configuration)\.json|(readme|license|licence|requirements|citation).*"
)


def resolve_dataset(spec: str, folder: Path, progress: Progress | None = None) -> Input:
    """The files of `hf:ORG/NAME[@REVISION][:PART]` or `modelscope:…`, under `folder`, fetched unless they are there.

    PART is a folder or file of the repository ("zh", "data/train"), for those that hold several data sets. What is there is
    taken as it is, without the network: another revision is asked for with @. Raises PullError, StorageError.
    """
    progress = progress or Silent()
    hub, _colon, rest = spec.partition(":")
    repo, revision, part = parse_repository(rest, hub)
    key = re.sub(
        r"[^A-Za-z0-9._@+-]", lambda match: f"%{ord(match[0]):02x}", spec.replace(":", "@", 1).replace("/", "+")
    )
    final = folder / key
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / f".{key}.lock"):
            if final.is_dir():
                progress.say(_("{name} is already here.", name=spec))
                return Input(final, spec)
            work = folder / f".{key}"
            work.mkdir(exist_ok=True, mode=0o700)
            fetch = _fetch_huggingface if hub == "hf" else _fetch_modelscope
            store, files = fetch(repo, revision, part, work, progress, spec)
            complete = work / "complete"
            shutil.rmtree(complete, ignore_errors=True)
            for file in files:
                target = complete / file
                target.parent.mkdir(parents=True, exist_ok=True)
                (store / file).rename(target)
            complete.rename(final)
            shutil.rmtree(work, ignore_errors=True)
    return Input(final, spec)


def select_data_files(files: Collection[str], part: str | None, where: str) -> list[str]:
    """The files of text out of `files` (paths inside a repository, which may be anything). Raises PullError."""
    wanted = part.strip("/") if part else ""
    chosen = [name for name in sorted(files) if _is_data(name) and _belongs(name, wanted)]
    if chosen:
        return chosen
    folders = sorted({name.partition("/")[0] for name in files if _is_data(name)})
    if wanted and folders:
        raise PullError(
            "{where} has no data under {part}: it has {choices}.", where=where, part=wanted, choices=", ".join(folders)
        )
    raise PullError(
        "{where} holds no files of text that can be read (parquet, jsonl, json, csv, tsv, txt): data sets that are made by a "
        "script are not run here.",
        where=where,
    )


def _belongs(name: str, part: str) -> bool:
    """Whether a file is, lies in, or (train-00000-of-00002.parquet, train.csv) is a piece of the wanted part."""
    rest = name[len(part) :]
    return name.startswith(part) and (not part or rest[:1] in ("", "/") or (rest[0] in ".-" and "/" not in rest))


def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or "\\" in name or "\0" in name or any(step.startswith(".") for step in path.parts):
        return False
    base = path.name.lower()
    for suffix in _COMPRESSED:
        base = base.removesuffix(suffix)
    return base.endswith(_SUFFIXES) and not _ABOUT.fullmatch(path.name)


def _fetch_huggingface(
    repo: str, revision: str | None, part: str | None, work: Path, progress: Progress, spec: str
) -> tuple[Path, list[str]]:
    """(folder, files in it)."""
    from huggingface_hub import HfApi, hf_hub_download

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    url = f"{endpoint}/datasets/{repo}"
    with huggingface_failures(url, work):
        info = HfApi(endpoint=endpoint).dataset_info(repo, revision=revision, files_metadata=True)
        known = {sibling.rfilename: sibling for sibling in info.siblings or []}
        chosen = select_data_files(known, part, spec)
        _need_space(work, sum(known[file].size or 0 for file in chosen))
        store = work / f"hf-{info.sha}"  # what was fetched of another revision is not taken for this one's
        for file in chosen:
            progress.begin(file, known[file].size)
            path = hf_hub_download(
                repo,
                file,
                repo_type="dataset",
                revision=info.sha,
                local_dir=store,
                endpoint=endpoint,
                tqdm_class=progress_bar(progress, known[file].size),
            )
            check_file(Path(path), known[file], url)
            progress.end()
    return store, chosen


def _fetch_modelscope(
    repo: str, revision: str | None, part: str | None, work: Path, progress: Progress, spec: str
) -> tuple[Path, list[str]]:
    """(folder, files in it)."""
    need_client()
    from modelscope.hub.snapshot_download import dataset_snapshot_download
    from modelscope_hub import HubApi

    endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or None
    with modelscope_failures(spec, work):
        listing = HubApi(endpoint=endpoint).list_repo_files(repo, "dataset", revision=revision)
        known = {str(entry.path): entry for entry in listing}
        chosen = select_data_files(known, part, spec)
        _need_space(work, sum(known[file].size or 0 for file in chosen))
        store = work / "modelscope" / (revision or "default").replace("/", "--")
        for file in chosen:
            progress.begin(file, known[file].size)
            dataset_snapshot_download(
                repo, revision=revision, local_dir=str(store), allow_patterns=[file], endpoint=endpoint, max_workers=1
            )
            path = store / file
            expected = getattr(known[file], "sha256", None)
            if not path.is_file() or (expected and file_sha256(path) != expected):
                path.unlink(missing_ok=True)
                raise PullError(
                    "{file} from {url} is not what the repository announces (wrong size or SHA-256): it was deleted. "
                    "Try again.",
                    file=file,
                    url=spec,
                )
            progress.advance(path.stat().st_size)
            progress.end()
    return store, chosen


def _need_space(work: Path, n_bytes: int) -> None:
    kept = sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    need_space(work, max(0, n_bytes - kept), shutil.disk_usage(work).free)
