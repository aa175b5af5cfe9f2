"""Models from Hugging Face or a mirror of it, through `huggingface_hub` (HF_ENDPOINT, HF_TOKEN, HF_HOME respected)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from chatwright.errors import PullError
from chatwright.hub.download import file_sha256
from chatwright.hub.failures import host_of, need_space, network_error, status_error, storage_error
from chatwright.hub.manifest import Manifest
from chatwright.hub.names import is_name
from chatwright.hub.progress import Progress
from chatwright.hub.selection import select_files
from chatwright.hub.source import Source

_SPEC = re.compile(r"(?P<repo>[^@:]+)(?:@(?P<revision>[^:]+))?(?::(?P<file>.+))?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,120}", re.ASCII)


def parse_repository(spec: str, hub: str) -> tuple[str, str | None, str | None]:
    """(`ORG/NAME`, revision, GGUF choice) of `ORG/NAME[@REVISION][:FILE]`. Raises PullError."""
    match = _SPEC.fullmatch(spec)
    if match:
        repo, revision, file = match["repo"], match["revision"], match["file"]
        if (
            is_name(repo)
            and ":" not in repo
            and (revision is None or (_REVISION.fullmatch(revision) and ".." not in revision))
        ):
            return repo, revision, file
    raise PullError(
        "{spec} does not name a repository: write {hub}:ORG/NAME, {hub}:ORG/NAME@REVISION or {hub}:ORG/NAME:FILE.",
        spec=f"{hub}:{spec}"[:200],
        hub=hub,
    )


def repository_name(repo: str, file: str | None) -> str:
    """The model's name here: the repository's, with the chosen GGUF as its tag."""
    tag = re.sub(r"[^A-Za-z0-9._-]+", "-", (file or "").removesuffix(".gguf")).strip("-._")
    name = f"{repo}:{tag}" if tag else repo
    return name if is_name(name) else repo


def huggingface_source(spec: str, rename: str | None) -> Source:
    """`hf:ORG/NAME[@REVISION][:FILE]`."""
    repo, revision, file = parse_repository(spec, "hf")
    name = rename or repository_name(repo, file)

    def fetch(work: Path, folder: Path, progress: Progress) -> Manifest:
        return _fetch(repo, revision, file, work, folder, progress, name=name, source=f"hf:{spec}")

    return Source(name, f"hf:{spec}", fetch)


def _fetch(
    repo: str,
    revision: str | None,
    file: str | None,
    work: Path,
    folder: Path,
    progress: Progress,
    *,
    name: str,
    source: str,
) -> Manifest:
    from huggingface_hub import HfApi, hf_hub_download

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    url = f"{endpoint}/{repo}"
    with huggingface_failures(url, work):
        info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, files_metadata=True)
        known = {sibling.rfilename: sibling for sibling in info.siblings or []}
        chosen = select_files(known, file, source)
        total = sum(known[entry].size or 0 for entry in chosen)
        kept = sum(part.stat().st_size for part in work.rglob("*") if part.is_file())
        need_space(work, max(0, total - kept), shutil.disk_usage(work).free)
        store = (
            work / f"hf-{info.sha}"
        )  # another revision is another folder, so that no part of it is mistaken for this one
        for entry in chosen:
            progress.begin(entry, known[entry].size)
            path = Path(
                hf_hub_download(
                    repo,
                    entry,
                    revision=info.sha,
                    local_dir=store,
                    endpoint=endpoint,
                    tqdm_class=progress_bar(progress, known[entry].size),
                )
            )
            check_file(path, known[entry], url)
            progress.end()
    for entry in chosen:
        (folder / entry).parent.mkdir(exist_ok=True)
        (store / entry).rename(folder / entry)
    card: Any = info.card_data
    languages = (card.language if card else None) or ()
    return Manifest(
        name=name,
        source=source,
        revision=info.sha,
        license=card.license if card and isinstance(card.license, str) else None,
        languages=(languages,) if isinstance(languages, str) else tuple(str(language) for language in languages),
    )


@contextmanager
def huggingface_failures(url: str, work: Path) -> Iterator[None]:
    """Turns what huggingface_hub and its network library raise about `url` into PullError and StorageError."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise PullError("HF_HUB_OFFLINE is set, so nothing is fetched from Hugging Face: unset it to pull.") from error
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, httpx2.HTTPError):
            _refuse(error.__cause__, url)
        raise PullError(
            "{host} cannot be reached ({reason}): check the network connection, HTTPS_PROXY and HF_ENDPOINT.",
            host=host_of(url),
            reason=str(error).splitlines()[0],
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        _refuse(error, url)
    except OSError as error:
        raise storage_error(error, work) from error


def check_file(path: Path, sibling: Any, url: str) -> None:
    """Raises PullError, and deletes the file, when it is not what the repository's listing says."""
    lfs = sibling.lfs
    if path.stat().st_size != (sibling.size if sibling.size is not None else path.stat().st_size) or (
        lfs is not None and file_sha256(path) != lfs.sha256
    ):
        path.unlink()
        raise PullError(
            "{file} from {url} is not what the repository announces (wrong size or SHA-256): it was deleted. Try "
            "again.",
            file=path.name,
            url=url,
        )


def _refuse(error: Exception, url: str) -> NoReturn:
    """Turn the library's error into a sentence."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    host = host_of(url)
    if isinstance(error, GatedRepoError):
        raise PullError(
            "{url} is gated: accept its terms on that page, then set HF_TOKEN to a token of your account.", url=url
        ) from error
    if isinstance(error, RevisionNotFoundError):
        raise PullError("{url} has no such revision: look at its branches and tags on that page.", url=url) from error
    if isinstance(error, RepositoryNotFoundError):
        raise PullError(
            "{url} does not exist, or is private: check the spelling; for a private one set HF_TOKEN.", url=url
        ) from error
    if isinstance(error, DisabledRepoError):
        raise PullError("{url} has been disabled by {host}.", url=url, host=host) from error
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        raise status_error(error.response.status_code, url) from error
    raise network_error(error, url) from error  # type: ignore[arg-type]


def progress_bar(progress: Progress, size: int | None) -> Any:
    """A class that huggingface_hub takes for tqdm's and that tells our progress instead."""

    class Bar:
        def __init__(self, *_: Any, initial: int = 0, total: int | None = None, **__: Any) -> None:
            self.n = initial
            self.total = total or size
            progress.advance(self.n)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            progress.advance(self.n)

        def update_progress(self, n: float | None = 1) -> None:
            self.update(n)

        def close(self) -> None:
            """Nothing to close."""

        def refresh(self) -> None:
            """Drawn by `progress`."""

        def set_description(self, *_: object, **__: object) -> None:
            """Named by `progress`."""

    return Bar
