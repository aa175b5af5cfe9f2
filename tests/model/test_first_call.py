"""The first vector function of a process is computed by one thread, whatever is built first (see `chatwright.model.first_call`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from chatwright.engine.kernels.library import Kernels, load_kernels
from chatwright.engine.kernels.runner import KernelRunner
from chatwright.model import first_call
from chatwright.model.checkpoint import open_checkpoint
from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.model.rnn import RNN
from chatwright.model.rnn_config import RNNConfig
from tests.server.tiny import make_model_folder

# Those of PyTorch that are MKL's on processors of Intel's kind.
FUNCTIONS = {"cos", "erf", "exp", "expm1", "log", "log1p", "log2", "sin", "sqrt", "tan", "tanh"}


class Watch(TorchDispatchMode):
    """Remembers how many numbers each of the functions was called on."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in FUNCTIONS and args[0].device.type == "cpu":
            self.sizes.append(args[0].numel())
        return func(*args, **(kwargs or {}))


def decoder(folder: Path) -> None:
    with torch.device("meta"):
        GPT(the_config(folder))
    GPT(the_config(folder)).eval()(torch.zeros(1, 512, dtype=torch.long))


def the_config(folder: Path) -> ModelConfig:
    return open_checkpoint(folder).config


def kernels(folder: Path) -> None:
    loaded = load_kernels()
    assert isinstance(loaded, Kernels), loaded
    KernelRunner.load(loaded, folder, "fp32", max_step_tokens=8, n_threads=1, store=None).allocate(32)


def recurrent(folder: Path) -> None:
    RNN(RNNConfig(cell="lstm", vocab_size=96, n_layer=1, d_model=32, context_length=64))
    torch.zeros(4096).tanh()


@pytest.mark.parametrize("build", [decoder, kernels, recurrent])
def test_whatever_is_built_first_settles_mkl(build: Callable[[Path], None], tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "tiny")
    first_call._call.cache_clear()  # as in a new process
    with Watch() as watch:
        build(folder)
    assert watch.sizes[0] == 1
    assert max(watch.sizes) > 2048, "from there on PyTorch uses several threads"
    assert watch.sizes.count(1) == 1
