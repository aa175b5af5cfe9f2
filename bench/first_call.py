"""How often the first vector function of a process goes wrong in MKL (see `chatwright.model.first_call`).

`python -m bench.first_call --processes 3000 [--settled]`: forks so many processes that each compute a table of rotary positions as
their first work, in two threads, and counts the different tables. There should be one. Keep the machine busy meanwhile.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import Counter

import torch

from chatwright.model.first_call import settle_mkl


def table() -> bytes:
    """Cosines and sines of 512 positions of a head of 16 channels."""
    frequencies = 1.0 / 10_000.0 ** (torch.arange(0, 16, 2, dtype=torch.float32) / 16)
    angles = torch.arange(512)[:, None].float() * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=1).numpy().tobytes()


def in_a_new_process(settled: bool) -> str:
    """The digest of the table there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if settled:
                settle_mkl()
            os.write(writing, hashlib.sha256(table()).hexdigest().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        digest = pipe.read()
    os.waitpid(child, 0)
    return digest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=3000)
    parser.add_argument("--settled", action="store_true")
    options = parser.parse_args()
    found = Counter(in_a_new_process(options.settled) for _ in range(options.processes))
    figure = "tables of positions that differ from the usual one"
    value = options.processes - max(found.values())
    print(
        json.dumps(
            {
                "figure": figure,
                "value": value,
                "n": options.processes,
                "settled": options.settled,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
