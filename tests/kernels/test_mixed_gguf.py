"""GGUF mixtures such as Q4_K_M, in which q, k and v have block formats of their own, run on the kernels as on PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from chatwright.engine.scheduler import Chunk
from chatwright.model.load import load_model
from tests.kernels.test_runner import ids_for, runner_of, sequence_of
from tests.model.tiny_models import reference, write_gguf

# As llama.cpp has it for Gemma 3 270M, whose rows are too short for its own 6-bit blocks.
Q4_K_M = {"v_proj": Type.Q8_0, "o_proj": Type.Q4_0, "down_proj": Type.Q5_1, "embed_tokens": Type.Q8_0}


@pytest.mark.parametrize("case", ["gemma3", "qwen2"])
def test_parts_of_one_product_may_have_blocks_of_their_own(case: str, tmp_path: Path) -> None:
    write_gguf(reference(case), tmp_path / "model.gguf", lambda name: Q4_K_M.get(name.split(".")[-2], Type.Q5_0))
    ids = ids_for(60, 96)
    with torch.inference_mode():
        expected = load_model(tmp_path)(torch.tensor([ids]))[0].numpy()
    [exact] = runner_of(tmp_path / "model.gguf", "fp32").step([Chunk(sequence_of(ids), 0, 60)])
    assert np.abs(exact - expected).max() < 1e-4 * np.abs(expected).max()
    [rounded] = runner_of(tmp_path / "model.gguf", "auto").step([Chunk(sequence_of(ids), 0, 60)])
    assert np.corrcoef(rounded.ravel(), expected.ravel())[0, 1] > 0.99
