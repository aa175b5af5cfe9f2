"""The user's own package-index settings, as pip and uv would read them, also where neither is installed.

Sources: pip's environment variables and its configuration files at pip's standard places (pip documentation,
"Configuration"), uv's index variables. uv's TOML files are not read.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from unearth import PackageFinder

from chatwright.errors import PullError

_KEYS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "cert",
    "client-cert",
    "proxy",
    "trusted-host",
    "timeout",
)
_TRUE = {"1", "true", "yes", "on", "y", "t"}


@dataclass(frozen=True)
class IndexSettings:
    """Where packages come from and how to get there. `timeout_s` applies to every single read."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout_s: float = 30.0


def read_index_settings(environ: Mapping[str, str] | None = None) -> IndexSettings:
    """Read pip's and uv's settings. Raises PullError for a configuration file that cannot be parsed."""
    environ = os.environ if environ is None else environ
    pip: dict[str, str] = {}
    for path in config_files(environ):
        pip |= _read(path)
    for key in _KEYS:
        variables = (
            ("PIP_DEFAULT_TIMEOUT", "PIP_TIMEOUT") if key == "timeout" else ("PIP_" + key.upper().replace("-", "_"),)
        )
        for variable in variables:
            if value := environ.get(variable, "").strip():
                pip[key] = value

    primary = pip.get("index-url") or environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL") or default_index()
    extra = [*pip.get("extra-index-url", "").split(), *environ.get("UV_EXTRA_INDEX_URL", "").split()]
    extra += environ.get("UV_INDEX", "").split()
    find_links = [*pip.get("find-links", "").split(), *environ.get("UV_FIND_LINKS", "").replace(",", " ").split()]
    no_index = pip.get("no-index", "").lower() in _TRUE or environ.get("UV_NO_INDEX", "").lower() in _TRUE
    indexes = [] if no_index else [_without_label(url) for url in (primary, *extra)]
    return IndexSettings(
        indexes=tuple(dict.fromkeys(indexes)),
        find_links=tuple(dict.fromkeys(find_links)),
        trusted_hosts=tuple(pip.get("trusted-host", "").split()),
        cert=pip.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE"),
        client_cert=pip.get("client-cert"),
        proxy=_proxy_url(pip["proxy"]) if pip.get("proxy") else None,
        timeout_s=_seconds(pip.get("timeout", "")),
    )


def default_index() -> str:
    """PyPI's simple index, as the library that reads it knows it."""
    url: str = PackageFinder().sources[0]["url"]
    return url.rstrip("/")


def config_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """pip's configuration files, weakest first: global, user, site, PIP_CONFIG_FILE."""
    chosen = environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return
    home = Path(environ.get("HOME") or Path.home())
    if sys.platform == "win32":
        yield Path(environ.get("PROGRAMDATA", r"C:\ProgramData"), "pip", "pip.ini")
        user = [home / "pip" / "pip.ini", Path(environ.get("APPDATA", home), "pip", "pip.ini")]
        site = Path(sys.prefix, "pip.ini")
    else:
        folders = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        if sys.platform == "darwin":
            folders = "/Library/Application Support"
        yield from (Path(folder, "pip", "pip.conf") for folder in folders.split(os.pathsep) if folder)
        yield Path("/etc/pip.conf")
        user = [home / ".pip" / "pip.conf"]
        mac = home / "Library" / "Application Support" / "pip"
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "pip")
        user.append((mac if sys.platform == "darwin" and mac.is_dir() else config) / "pip.conf")
        site = Path(sys.prefix, "pip.conf")
    if not (chosen and Path(chosen).exists()):  # pip leaves out the user's own file then
        yield from user
    yield site
    if chosen:
        yield Path(chosen)


def _read(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise PullError(
            "pip's configuration file {path} cannot be read ({reason}): correct it.", path=path, reason=error
        ) from error
    values: dict[str, str] = {}
    for section in ("global", "download"):
        if parser.has_section(section):
            values |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    return {key: values[key] for key in _KEYS if values.get(key, "").strip()}


def _without_label(url: str) -> str:
    """uv writes `label=https://…`; the label is not part of the URL."""
    label, separator, rest = url.partition("=")
    return rest if separator and "://" in rest and "/" not in label else url


def _proxy_url(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _seconds(text: str) -> float:
    try:
        return max(1.0, float(text)) if text else 30.0
    except ValueError:
        raise PullError(
            "pip's timeout is set to {value!r}, which is not a number of seconds: correct it.", value=text
        ) from None
