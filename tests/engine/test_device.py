"""A GPU's memory and failures, on a machine that has none: PyTorch's answers about it are made up, ours to them are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from chatwright.engine import FinishEvent, GenerateRequest, SamplingParams
from chatwright.engine.device import free_bytes
from chatwright.engine.load import load_engine
from chatwright.errors import StorageError
from chatwright.settings import Settings
from tests.server.tiny import make_model_folder

from .conftest import MakeEngine, tiny_model

GREEDY = SamplingParams(max_tokens=4, temperature=0.0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One of 24 GB, of which 3 are free."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    return monkeypatch


@pytest.mark.parametrize(
    ("capability", "quantization", "dtype", "size"),
    [
        ((9, 0), "auto", torch.bfloat16, "1.2 MB"),
        ((7, 5), "auto", torch.float32, "2.4 MB"),
        ((9, 0), "fp32", torch.float32, "2.4 MB"),
        ((7, 5), "bf16", torch.bfloat16, "1.2 MB"),
    ],
)
def test_a_model_too_large_for_the_gpu_is_refused_with_numbers(
    gpu: pytest.MonkeyPatch,
    tmp_path: Path,
    capability: tuple[int, int],
    quantization: Any,
    dtype: torch.dtype,
    size: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = make_model_folder(tmp_path / "tiny")
    asked = []

    def load_model(path: Path, **options: Any) -> None:
        asked.append((options["device"].type, options["dtype"]))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    gpu.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu.setattr("chatwright.engine.runner.load_model", load_model)
    with pytest.raises(StorageError) as refused:
        load_engine(folder, "tiny", Settings(device="cuda", quantization=quantization))
    assert asked == [("cuda", dtype)]
    assert f"the memory of cuda: its weights alone take {size}, and 3.0 GB of 24.0 GB were free" in str(refused.value)
    assert "experimental" in caplog.text


def test_the_cache_comes_out_of_what_is_free_on_the_gpu(gpu: pytest.MonkeyPatch) -> None:
    assert free_bytes(torch.device("cuda")) == 3 * 10**9


async def test_out_of_memory_in_a_step_costs_that_request_only(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    hidden = model.hidden

    def too_long_for_it(ids_BT: torch.Tensor, *arguments: Any) -> torch.Tensor:
        if ids_BT.shape[1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return hidden(ids_BT, *arguments)

    monkeypatch.setattr(model, "hidden", too_long_for_it)
    engine = make_engine(model)
    ends = []
    for number, length in enumerate((4, 12, 5)):
        request = GenerateRequest(str(number), list(range(length)), GREEDY)
        ends += [event async for event in engine.generate(request) if isinstance(event, FinishEvent)]
    assert [end.reason for end in ends] == ["length", "error", "length"]
    assert ends[1].error == "OutOfMemoryError in the model's forward pass"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_lost_gpu_ends_the_engine_so_that_a_new_process_is_started(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error of CUDA every later call fails too: an engine that stayed would fail everybody for ever."""
    model = tiny_model()

    def lost(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with …")

    monkeypatch.setattr(model, "hidden", lost)
    engine = make_engine(model)
    request = GenerateRequest("a", [1, 2], GREEDY)
    [end] = [event async for event in engine.generate(request) if isinstance(event, FinishEvent)]
    assert end.reason == "error"
    engine._thread.join()
    assert not engine.stats().alive
