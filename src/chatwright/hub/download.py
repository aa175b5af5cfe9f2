"""Resumable download of one file: HTTP ranges into a `.partial` file, and SHA-256 as the judge."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import httpx2

from chatwright.errors import PullError
from chatwright.hub.failures import network_error, status_error, writing_to
from chatwright.hub.progress import Progress

_ATTEMPTS = 5


def download(
    client: httpx2.Client,
    url: str,
    target: Path,
    *,
    size_bytes: int,
    sha256: str,
    progress: Progress,
) -> None:
    """Fetch `url` into `target`, continuing `target.partial` where an earlier try left it.

    `target` appears by one rename, only when size and SHA-256 are right. A broken connection is continued up to five
    times; after that, and on Ctrl-C, the partial file stays for the next try. Raises PullError, StorageError.
    """
    partial = target.with_name(target.name + ".partial")
    progress.begin(target.name, size_bytes, partial.stat().st_size if partial.exists() else 0)
    attempt = 0
    restarted = False
    while True:
        attempt += 1
        resumed = partial.exists() and partial.stat().st_size > 0
        try:
            _fetch(client, url, partial, size_bytes, progress)
            _check(partial, sha256)
            break
        except httpx2.TransportError as error:
            if attempt >= _ATTEMPTS or not isinstance(error, _PASSING):
                raise network_error(error, url) from error
        except _ServerBusyError as error:
            if attempt >= _ATTEMPTS:
                raise status_error(error.status, url) from error
        except _AlteredError as error:
            partial.unlink(missing_ok=True)
            if not resumed or restarted:
                raise PullError(
                    "{file} from {url} is not what it should be ({found}, expected {expected}): it was deleted. Try "
                    "again; "
                    "if it stays so, that address serves an altered file.",
                    file=target.name,
                    url=httpx2.URL(url).copy_with(userinfo=b"", fragment=None),
                    found=error.found,
                    expected=f"{size_bytes} bytes, SHA-256 {sha256[:16]}…",
                ) from error
            restarted = True  # the part kept from earlier may be of another file; the whole one deserves a try
            continue
        time.sleep(0.5 * 2 ** (attempt - 1))
    with writing_to(target.parent):
        partial.replace(target)
        _etag_file(partial).unlink(missing_ok=True)
    progress.end()


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _ServerBusyError(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class _AlteredError(Exception):
    def __init__(self, found: str) -> None:
        self.found = found


# What another request may well get over; a refused connection or an unknown host it will not.
_PASSING = (httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.TimeoutException)


def _check(partial: Path, sha256: str) -> None:
    found = file_sha256(partial)
    if found != sha256:
        raise _AlteredError(f"SHA-256 {found[:16]}…")


def _etag_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".etag")


def _fetch(client: httpx2.Client, url: str, partial: Path, size_bytes: int, progress: Progress) -> None:
    """One request; returns when the partial file has all `size_bytes`."""
    done = partial.stat().st_size if partial.exists() else 0
    if done == size_bytes:
        return
    if done > size_bytes:
        raise _AlteredError(f"{done} bytes")
    # No content coding: offsets must be those of the file itself.
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if _etag_file(partial).exists():
            headers["If-Range"] = _etag_file(partial).read_text(encoding="utf-8")
    with client.stream("GET", url, headers=headers, follow_redirects=True) as response:
        status = response.status_code
        if status == 416:  # the file there is shorter than what is here
            raise _AlteredError(response.headers.get("Content-Range", "HTTP 416"))
        if status in (500, 502, 503, 504):
            raise _ServerBusyError(status)
        if status >= 400:
            raise status_error(status, url)
        if done and not (status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")):
            done = 0
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and done + int(length) != size_bytes:
            raise _AlteredError(f"{done + int(length)} bytes")
        with writing_to(partial.parent):
            _remember_etag(partial, response.headers.get("ETag", ""))
            with partial.open("ab" if done else "wb") as file:
                for chunk in response.iter_bytes():
                    done += len(chunk)
                    if done > size_bytes:
                        raise _AlteredError(f"more than {size_bytes} bytes")
                    file.write(chunk)
                    progress.advance(done)
    if done < size_bytes:  # a server without Content-Length that closed early
        raise httpx2.RemoteProtocolError("the connection was closed early")


def _remember_etag(partial: Path, etag: str) -> None:
    """If-Range takes strong validators only (RFC 9110, 13.1.5)."""
    if etag and not etag.startswith("W/"):
        _etag_file(partial).write_text(etag, encoding="utf-8")
    else:
        _etag_file(partial).unlink(missing_ok=True)
