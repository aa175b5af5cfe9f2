"""A PostgreSQL cluster of the test suite's own: temporary, without a network, run by a user that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 60.0


def binaries() -> Path | None:
    """Where initdb and postgres lie: Debian keeps them off the PATH."""
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    if found := shutil.which("initdb"):
        places.append(Path(found).resolve().parent)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


class Cluster:
    """A running server behind a socket."""

    def __init__(self, bin_folder: Path, folder: Path) -> None:
        self._bin = bin_folder
        self._folder = folder
        self._user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        if self._user:
            shutil.chown(self._folder, self._user)
        self._run(
            "initdb", "-D", str(self._folder / "data"), "-U", "chatwright", "-A", "trust", "-E", "UTF8", "--no-sync"
        )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """As after a reboot: connections of before are gone."""
        options = [("fsync", "off"), ("listen_addresses", ""), ("unix_socket_directories", str(self._folder))]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._bin / "postgres",
                    "-D",
                    self._folder / "data",
                    *(f"--{name}={value}" for name, value in options),
                ],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self._folder,
            )
        deadline = time.monotonic() + PATIENCE_S
        while self._process.poll() is None and not self._answers():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)
        assert self._process.poll() is None, (self._folder / "log").read_text()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """In good order, whoever is connected; with SIGQUIT at once, leaving a mess."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(PATIENCE_S)

    def sql(self, statement: str, database: str = "postgres") -> str:
        return self._run(
            "psql",
            "-h",
            str(self._folder),
            "-U",
            "chatwright",
            "-At",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            database,
        )

    def url(self, database: str) -> str:
        return f"postgresql://chatwright@/{database}?host={self._folder}"

    def _answers(self) -> bool:
        command = [self._bin / "pg_isready", "-q", "-h", self._folder, "-U", "chatwright"]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._bin / program, *arguments],
            capture_output=True,
            text=True,
            user=self._user,
            cwd=self._folder,
            check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _unprivileged() -> str | None:
    """Whom to run as: PostgreSQL refuses to be root. Debian's package makes a user for it."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise AssertionError("there is no user but root to run PostgreSQL")


@contextmanager
def running_cluster(bin_folder: Path) -> Iterator[Cluster]:
    """A cluster that is gone when the block ends."""
    # Not below pytest's folder: only root may enter that, and the socket's path would grow too long.
    with tempfile.TemporaryDirectory(prefix="cw-pg-", dir="/tmp") as folder:
        cluster = Cluster(bin_folder, Path(folder))
        cluster.create()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop(signal.SIGQUIT)
