"""One call of MKL before all others, because its first one must not be made by two threads at once.

PyTorch computes cos, exp, log, tanh and their like with MKL's vector functions, long arrays in parallel. At the first call of a
process MKL finds out which processor it runs on (`mkl_vml_serv_cpu_detect`), and writes the answer down twice: first by a number of
its own, then, an instruction later, by the number of a column of its table of functions. A thread that comes between the two reads
the table one row too far, where the functions of low accuracy are: half of an array then has 1.5e-4 of error instead of 1e-7, in
one of some thousand processes of a busy machine, and never again in the same one. `python -m bench.first_call` counts them.

It was found as a table of rotary positions that made an adapter answer in another token until its engine was started again; in
training it would be another model from the same seed.
"""

from __future__ import annotations

import threading
from functools import cache

import torch

_one_at_a_time = threading.Lock()


def settle_mkl() -> None:
    """Whoever computes with PyTorch calls this first. Building one of our models does; later calls cost a microsecond."""
    with _one_at_a_time:
        _call()


@cache
def _call() -> None:
    # One number is computed by the thread that asks. The device is named: models are also built on "meta".
    torch.zeros(1, device="cpu").cos()
