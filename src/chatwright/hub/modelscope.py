"""Models from ModelScope, through its own client (the optional package `modelscope`)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chatwright.errors import PullError
from chatwright.hub.download import file_sha256
from chatwright.hub.failures import need_space, storage_error
from chatwright.hub.huggingface import parse_repository, repository_name
from chatwright.hub.manifest import Manifest
from chatwright.hub.progress import Progress
from chatwright.hub.selection import select_files
from chatwright.hub.source import Source


def modelscope_source(spec: str, rename: str | None) -> Source:
    """`modelscope:ORG/NAME[@REVISION][:FILE]`. Raises PullError when the client is not installed."""
    repo, revision, file = parse_repository(spec, "modelscope")
    name = rename or repository_name(repo, file)

    def fetch(work: Path, folder: Path, progress: Progress) -> Manifest:
        need_client()
        return _fetch(repo, revision, file, work, folder, progress, name=name, source=f"modelscope:{spec}")

    return Source(name, f"modelscope:{spec}", fetch)


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
    from modelscope.hub.api import HubApi
    from modelscope.hub.snapshot_download import snapshot_download

    endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or None
    with modelscope_failures(source, work):
        listing: list[dict[str, Any]] = HubApi(endpoint=endpoint).get_model_files(
            repo, revision=revision, recursive=False
        )
        known = {str(entry["Path"]): entry for entry in listing if entry.get("Type") != "tree"}
        chosen = select_files(known, file, source)
        sizes = {entry: int(known[entry].get("Size") or 0) for entry in chosen}
        kept = sum(part.stat().st_size for part in work.rglob("*") if part.is_file())
        need_space(work, max(0, sum(sizes.values()) - kept), shutil.disk_usage(work).free)
        # By revision: what was fetched of another one must not be taken for this one's.
        store = work / "modelscope" / (revision or "default").replace("/", "--")
        for entry in chosen:
            progress.begin(entry, sizes[entry])
            snapshot_download(
                repo, revision=revision, local_dir=str(store), allow_patterns=[entry], endpoint=endpoint,
                progress_callbacks=[progress_callback(progress)],
            )  # fmt: skip
            path = store / entry
            expected = known[entry].get("Sha256")
            if not path.is_file() or (expected and file_sha256(path) != expected):
                path.unlink(missing_ok=True)
                raise PullError(
                    "{file} from {url} is not what the repository announces (wrong size or SHA-256): it was deleted. "
                    "Try again.",
                    file=entry,
                    url=source,
                )
            progress.end()
    for entry in chosen:
        (folder / entry).parent.mkdir(exist_ok=True)
        (store / entry).rename(folder / entry)
    return Manifest(name=name, source=source, revision=revision)


@contextmanager
def modelscope_failures(source: str, work: Path) -> Iterator[None]:
    """Turns what ModelScope's client raises about `source` into PullError and StorageError."""
    from modelscope_hub.errors import AuthenticationError, HubError, NotExistError, PermissionDeniedError
    from requests import RequestException

    try:
        yield
    except NotExistError as error:
        raise PullError("{source} does not exist, or is private: check the spelling.", source=source) from error
    except (AuthenticationError, PermissionDeniedError) as error:
        raise PullError(
            "ModelScope refuses access to {source}: log in with `modelscope login`.", source=source
        ) from error
    except (HubError, RequestException) as error:
        raise PullError(
            "ModelScope cannot be reached ({reason}): check the network connection and HTTPS_PROXY, then try again.",
            reason=str(error).partition(": ")[0] or type(error).__name__,
        ) from error
    except OSError as error:
        raise storage_error(error, work) from error


def need_client() -> None:
    """Raises PullError when ModelScope's client is not installed."""
    if importlib.util.find_spec("modelscope") is None:
        raise PullError(
            "Pulling from ModelScope needs its client: install it with `{python} -m pip install modelscope`.",
            python=sys.executable,
        )


def progress_callback(progress: Progress) -> Any:
    from modelscope.hub.callback import ProgressCallback

    class Callback(ProgressCallback):  # type: ignore[misc]
        def __init__(self, filename: str, file_size: int) -> None:
            super().__init__(filename, file_size)
            self.done = 0

        def update(self, size: int) -> None:
            self.done += size
            progress.advance(self.done)

        def end(self) -> None:
            """Ended by the caller, after the check."""

    return Callback
