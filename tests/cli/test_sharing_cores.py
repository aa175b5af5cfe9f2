"""Threads that wait for each other leave the cores to others: set before libgomp reads it, never over what the user has set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatwright.machine import SPIN_COUNT, share_cores

# Ends where the command sets it.
PROGRAM = """
import sys
from chatwright import machine
from chatwright.cli.app import app

def look():
    print("torch" in sys.modules)
    sys.exit(0)

machine.share_cores = look
app(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "command",
    [
        "train DATA --out RUN",
        "tune MODEL DATA --out RUN",
        "plan DATA",
        "runs resume RUN",
        "quantize MODEL --to int8 --out RUN",
        "prune MODEL --ratio 0.25 --calibration DATA --out RUN",
        "distill MODEL MODEL DATA --out RUN",
    ],
)
def test_it_is_set_before_torch_is_there(command: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", PROGRAM, *command.split()]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"GOMP_SPINCOUNT": str(SPIN_COUNT)}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"WORLD_SIZE": "2"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ({"WORLD_SIZE": "2", "OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_what_the_user_set_stays(
    before: dict[str, str], after: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "WORLD_SIZE")
    for name in names:
        monkeypatch.setenv(name, "")  # put back afterwards, also where the function sets it
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    share_cores()
    assert {name: os.environ[name] for name in names[:2] if name in os.environ} == after
