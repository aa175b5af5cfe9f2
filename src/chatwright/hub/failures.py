"""Failures of network and disk, told as sentences: what went wrong, with which host or folder, and what to do."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from chatwright.errors import PullError, StorageError
from chatwright.i18n import format_size


def host_of(url: str) -> str:
    """The host (and port) of a URL, without credentials; the URL itself for file:// and the like."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or url


def network_error(error: httpx2.HTTPError, url: str, proxy: str | None = None) -> PullError:
    """The sentence for a connection that failed. `proxy`: the one in use, where not the environment's."""
    host = host_of(url)
    proxy = proxy or proxy_for(url)
    causes = list(_causes(error))
    if isinstance(error, httpx2.ProxyError):
        return PullError(
            "The proxy in your settings refused the connection to {host} ({reason}): check HTTPS_PROXY and pip's proxy "
            "setting.",
            host=host,
            reason=error,
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "certificate" in str(error).lower():
        return PullError(
            "The TLS connection to {host} failed ({reason}): if its certificate is a company proxy's, point pip's `cert` "
            "setting (PIP_CERT) or SSL_CERT_FILE at the CA file.",
            host=host,
            reason=error,
        )
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return PullError(
            "The name {host} cannot be resolved: check the network connection, or set HTTPS_PROXY, or name a "
            "source that you can reach (PIP_INDEX_URL for the default model, HF_ENDPOINT for hf:).",
            host=host,
        )
    if proxy and isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        return PullError(
            "The proxy {proxy} on the way to {host} cannot be reached ({reason}): correct HTTPS_PROXY or pip's proxy setting, "
            "or unset them.",
            proxy=host_of(proxy),
            host=host,
            reason=error,
        )
    if isinstance(error, httpx2.TimeoutException):
        return PullError(
            "{host} did not answer in time: try again; what has arrived so far is kept (PIP_DEFAULT_TIMEOUT raises "
            "the limit).",
            host=host,
        )
    return PullError(
        "The connection to {host} failed ({reason}): check the network connection and the proxy settings, then try "
        "again; "
        "what has arrived so far is kept.",
        host=host,
        reason=str(error) or type(error).__name__,
    )


def proxy_for(url: str) -> str | None:
    """The proxy that the environment (or the system) prescribes for a URL; None for a direct connection."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def status_error(status: int, url: str) -> PullError:
    """The sentence for an HTTP status that is no success."""
    host = host_of(url)
    if status == 407:
        return PullError(
            "The proxy on the way to {host} wants a user name and password: put them into HTTPS_PROXY.", host=host
        )
    if status in (401, 403):
        return PullError(
            "{host} refuses access (HTTP {status}): for a package index put the credentials into its URL or "
            "~/.netrc; on "
            "Hugging Face accept the model's terms on its page and set HF_TOKEN.",
            host=host,
            status=status,
        )
    if status in (404, 410):
        return PullError("{host} does not have it (HTTP {status}): check the name.", host=host, status=status)
    if status == 429:
        return PullError("{host} asks to slow down (HTTP 429): try again in a few minutes.", host=host)
    return PullError(
        "{host} failed (HTTP {status}): try again later; what has arrived so far is kept.", host=host, status=status
    )


def storage_error(error: OSError, path: Path) -> StorageError:
    """The sentence for a folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            "The disk of {path} is full: free some space and run the command again; it continues.", path=path
        )
    if error.errno == errno.EROFS:
        return StorageError(
            "{path} is on a read-only file system: choose another folder with CHATWRIGHT_HOME.", path=path
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StorageError(
            "{path} may not be written by you: correct its permissions, or set CHATWRIGHT_HOME.", path=path
        )
    return StorageError("{path} cannot be written ({reason}).", path=path, reason=error.strerror or error)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turns OSErrors of the block into StorageErrors about `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def need_space(folder: Path, needed_bytes: int, free_bytes: int) -> None:
    """Raises StorageError when `free_bytes` is not enough for `needed_bytes` and a little room."""
    if free_bytes < needed_bytes + 16 * 2**20:
        raise StorageError(
            "Not enough disk space in {path}: {needed} needed, {free} free. Free some, or choose another folder with "
            "CHATWRIGHT_HOME.",
            path=folder,
            needed=format_size(needed_bytes),
            free=format_size(free_bytes),
        )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
