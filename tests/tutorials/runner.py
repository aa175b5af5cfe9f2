"""Runs a tutorial's commands as a reader types them, in short: the same words, with the long dials turned down."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from examples.tutorial import ROOT
from tests.serving import free_port

COMMAND_TIMEOUT_S = 900.0
START_TIMEOUT_S = 90


class CommandFailedError(AssertionError):
    """A command of the page did not do what the page says."""


@dataclass
class Shell:
    """A shell in a folder of its own, in which `chatwright` and `python` are this environment's.

    `said`: command, as it stands on the page → what it printed.
    """

    folder: Path
    home: Path
    language: str = "en"
    said: dict[str, str] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _address: str = "127.0.0.1:8000"

    def run(self, commands: Sequence[str], shorter: Mapping[str, str]) -> None:
        """Run the commands in order. `shorter`: regular expression → what stands in its place.

        A server runs until the next one, or the end. Raises CommandFailedError with what a command said.
        """
        for command in commands:
            short = command
            for long, replacement in shorter.items():
                short = re.sub(long, replacement, short)
            if short.startswith("chatwright serve"):
                self._serve(short)
            else:
                self.said[command] = self._run(short.replace("127.0.0.1:8000", self._address))

    def close(self) -> None:
        """Stop the server."""
        self._stack.close()

    def environment(self) -> dict[str, str]:
        """The reader's: none of the test's own settings, and the home folder of the test."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("CHATWRIGHT_", "OPENAI_"))
        }
        return {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CHATWRIGHT_HOME": str(self.home),
            "CHATWRIGHT_LANGUAGE": self.language,
            "PYTHONIOENCODING": "utf-8",
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def _run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=COMMAND_TIMEOUT_S,
        )
        if done.returncode:
            raise CommandFailedError(f"{command}\n{done.stdout}")
        return done.stdout

    def _serve(self, command: str) -> None:
        self._stack.close()
        port = free_port()
        log = self._stack.enter_context((self.folder / "server.log").open("w+"))
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command} --port {port}"],
            cwd=self.folder,
            env=self.environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self._stack.callback(server.wait, 60)
        self._stack.callback(server.terminate)
        self._address = f"127.0.0.1:{port}"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            said = (self.folder / "server.log").read_text()
            if server.poll() is not None or time.monotonic() > deadline:
                raise CommandFailedError(f"{command}\n{said}")
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://{self._address}/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False
