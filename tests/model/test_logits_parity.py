"""Whatever Transformers computes from a model, Chatwright computes too, and what Chatwright writes, Transformers reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration

from chatwright.model.checkpoint import open_checkpoint
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from chatwright.model.save import save_model
from tests.model.tiny_models import CASES, random_ids, randomise, reference

TOLERANCE = 1e-4


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers(case: str, tmp_path: Path) -> None:
    theirs = reference(case)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    for length in (1, 33, 512):
        ids = random_ids(2, length)
        with torch.no_grad():
            expected = theirs(ids).logits
        assert expected.std() > 0.5
        torch.testing.assert_close(ours(ids), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", CASES)
def test_padding_changes_no_logits(case: str, side: str, tmp_path: Path) -> None:
    theirs = reference(case)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    lengths = [50, 31, 3]
    mask = torch.zeros(3, 50, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, 50 - length :] = side == "left"
        mask[row, :length] |= side == "right"
    ids = random_ids(3, 50)
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long(), position_ids=positions).logits
    padded = ours(ids, mask_BT=mask)
    assert padded.isfinite().all()
    torch.testing.assert_close(padded[mask], expected[mask], atol=TOLERANCE, rtol=0)
    for row in range(3):
        alone = ours(ids[row][mask[row]][None])[0]
        torch.testing.assert_close(padded[row][mask[row]], alone, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_transformers_reads_what_is_written(case: str, tmp_path: Path) -> None:
    reference(case).save_pretrained(tmp_path / "theirs")
    config = open_checkpoint(tmp_path / "theirs").config
    ours = GPT(config).eval()
    randomise(ours, seed=5)
    save_model(ours, tmp_path / "ours", extra={"eos_token_id": 7})
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.config.eos_token_id == 7
    assert theirs.dtype == torch.float32
    ids = random_ids(2, 200)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs.eval()(ids).logits, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(load_model(tmp_path / "ours")(ids), ours(ids), atol=0, rtol=0)


def test_old_and_new_spelling_of_rotary_positions_mean_the_same(tmp_path: Path) -> None:
    reference("llama, llama3 rope").save_pretrained(tmp_path)
    new = open_checkpoint(tmp_path).config
    raw = json.loads((tmp_path / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope.pop("rope_theta")
    raw["rope_scaling"] = rope
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert open_checkpoint(tmp_path).config == new


def test_gpt2_as_openai_published_it_loads(tmp_path: Path) -> None:
    """Without the prefix `transformer.`, with the causal masks among the weights, with n_ctx."""
    from safetensors.torch import load_file, save_file

    theirs = reference("gpt2")
    theirs.save_pretrained(tmp_path)
    weights = {name.removeprefix("transformer."): w for name, w in load_file(tmp_path / "model.safetensors").items()}
    for layer in range(3):
        weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 512, 512)
    save_file(weights, tmp_path / "model.safetensors")
    ids = random_ids(1, 20)
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path)(ids), theirs(ids).logits, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_any_stored_precision_loads_into_the_one_asked_for(stored: torch.dtype, tmp_path: Path) -> None:
    reference("qwen3").to(stored).save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = random_ids(1, 20)
    ours = load_model(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=TOLERANCE, rtol=0)
    assert {parameter.dtype for parameter in load_model(tmp_path, dtype=torch.bfloat16).parameters()} == {
        torch.bfloat16
    }


@pytest.mark.parametrize("case", ["qwen3, tied, biases", "gpt2, untied, narrow, exact gelu"])
def test_a_large_model_is_written_and_read_in_shards(case: str, tmp_path: Path) -> None:
    theirs = reference(case)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    ours = load_model(tmp_path / "theirs")
    save_model(ours, tmp_path / "ours", max_shard_size="40KB")
    assert len(list((tmp_path / "ours").glob("model-*-of-*.safetensors"))) > 3
    ids = random_ids(1, 20)
    with torch.no_grad():
        for folder in ("theirs", "ours"):
            torch.testing.assert_close(load_model(tmp_path / folder)(ids), theirs(ids).logits, atol=TOLERANCE, rtol=0)
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
        torch.testing.assert_close(again(ids).logits, theirs(ids).logits, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("layout", ["of Transformers 5", "of Transformers 4"])
def test_the_decoder_of_a_model_of_text_and_images_is_read_alone(layout: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    vision = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 8,
    }  # fmt: skip
    config = Gemma3Config(text_config=CASES["gemma3"].to_dict(), vision_config=vision, mm_tokens_per_image=4)
    theirs = Gemma3ForConditionalGeneration(config)
    randomise(theirs)
    theirs.eval().save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert any("vision_tower" in name for name in stored)
    inside = {"of Transformers 4": "language_model.model.", "of Transformers 5": "model.language_model."}
    for prefix in inside.values():
        stored = {name.replace(prefix, inside[layout]): weight for name, weight in stored.items()}
    assert any(name.startswith(inside[layout]) for name in stored)
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ids = random_ids(2, 60)
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path)(ids), theirs(ids).logits, atol=TOLERANCE, rtol=0)
