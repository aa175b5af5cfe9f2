"""LoRA: only the factors learn, PEFT reads ours and we read PEFT's with equal logits, and merging changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from chatwright.errors import InvalidModelError, ModelNotFoundError, UsageError
from chatwright.model.adapter import open_adapter
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from chatwright.model.lora import (
    TARGETS,
    LoraConfig,
    add_lora,
    load_adapter,
    lora_layers,
    merge_lora,
    save_adapter,
)
from chatwright.model.save import save_model
from tests.model.tiny_models import factors, random_ids, reference, write_gguf

FAMILIES = ["qwen3", "llama, one key head, biases", "mistral, window of 20", "gpt2", "qwen2", "gemma3"]
TARGETS_OF_PEFT = {"gpt2": ["c_attn", "c_proj", "c_fc"]}
IDS = random_ids(2, 30)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("bases")

    def base(case: str) -> Path:
        if not (root / case).exists():
            reference(case).save_pretrained(root / case)
        return root / case

    return base


def randomise_factors(model: nn.Module, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def logits_of_peft(base: Path, adapter: Path) -> torch.Tensor:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


def adapted(base: Path, **changes: Any) -> tuple[GPT, LoraConfig]:
    config = LoraConfig(**{"r": 4, "alpha": 6.0} | changes)
    model = load_model(base)
    add_lora(model, config, seed=0)
    randomise_factors(model)
    return model, config


def targets_of(model: GPT) -> tuple[str, ...]:
    """GPT-2 has no gate."""
    return tuple(t for t in TARGETS if any(name.endswith(f".{t}") for name in lora_layers(model)))


@pytest.mark.parametrize("case", FAMILIES)
def test_peft_loads_what_is_written(case: str, bases: Callable[[str], Path], tmp_path: Path) -> None:
    model, config = adapted(bases(case))
    save_adapter(model, config, tmp_path / "adapter", "the-base", card="---\nbase_model: the-base\n---\n")
    with torch.no_grad():
        ours, plain = model(IDS), load_model(bases(case))(IDS)
    assert (ours - plain).abs().max() > 0.5
    torch.testing.assert_close(logits_of_peft(bases(case), tmp_path / "adapter"), ours, atol=1e-4, rtol=0)
    again = load_model(bases(case))
    assert load_adapter(again, tmp_path / "adapter") == replace(config, targets=targets_of(model))
    with torch.no_grad():
        torch.testing.assert_close(again(IDS), ours, atol=1e-5, rtol=0)
    assert open_adapter(tmp_path / "adapter").base_name == "the-base"


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"alpha_pattern": {"1.mlp.up_proj": 2, "q_proj": 9}}])
@pytest.mark.parametrize("case", FAMILIES)
def test_what_peft_writes_is_loaded(
    case: str, options: dict[str, Any], bases: Callable[[str], Path], tmp_path: Path
) -> None:
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(bases(case)),
        PeftConfig(
            r=5,
            lora_alpha=7,
            target_modules=TARGETS_OF_PEFT.get(case, "all-linear"),
            fan_in_fan_out=case == "gpt2",
            task_type="CAUSAL_LM",
            rank_pattern={"mlp.down_proj": 3},
            **options,
        ),
    ).eval()
    randomise_factors(theirs)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(IDS).logits
    ours = load_model(bases(case))
    load_adapter(ours, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS), expected, atol=1e-4, rtol=0)
        merge_lora(ours)
        torch.testing.assert_close(ours(IDS), expected, atol=1e-4, rtol=0)
    save_model(ours, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(merged(IDS).logits, expected, atol=1e-4, rtol=0)


def test_an_adapter_of_peft_goes_through_us_and_back(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """Its layers have their own ranks and scales, and not every layer is adapted."""
    for case, targets in (("qwen3", ["q_proj", "down_proj"]), ("gpt2", ["c_attn"])):
        theirs = get_peft_model(
            AutoModelForCausalLM.from_pretrained(bases(case)),
            PeftConfig(
                r=5,
                lora_alpha=7,
                target_modules=targets,
                fan_in_fan_out=case == "gpt2",
                layers_to_transform=[0, 2],
                rank_pattern={"0.self_attn.q_proj": 2, "h.0.attn.c_attn": 6},
            ),
        )
        randomise_factors(theirs)
        theirs.save_pretrained(tmp_path / case)
        ours = load_model(bases(case))
        config = load_adapter(ours, tmp_path / case, trainable=True)
        save_adapter(ours, config, tmp_path / f"{case} again", "base")
        expected = logits_of_peft(bases(case), tmp_path / case)
        torch.testing.assert_close(logits_of_peft(bases(case), tmp_path / f"{case} again"), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("targets", [("q",), ("q", "v", "down"), ("k", "out")])
@pytest.mark.parametrize("case", ["qwen3", "gpt2"])
def test_some_of_the_layers_can_be_adapted(
    case: str, targets: tuple[str, ...], bases: Callable[[str], Path], tmp_path: Path
) -> None:
    model, config = adapted(bases(case), targets=targets)
    assert {name.rsplit(".", 1)[-1] for name in lora_layers(model)} == set(targets)
    save_adapter(model, config, tmp_path / "adapter", "base")
    with torch.no_grad():
        torch.testing.assert_close(logits_of_peft(bases(case), tmp_path / "adapter"), model(IDS), atol=1e-4, rtol=0)
    again = load_model(bases(case))
    load_adapter(again, tmp_path / "adapter")
    assert lora_layers(again).keys() == lora_layers(model).keys()
    for name, layer in lora_layers(model).items():
        assert torch.equal(layer.lora_a, lora_layers(again)[name].lora_a)


@pytest.mark.parametrize("case", FAMILIES)
def test_only_the_factors_learn(case: str, bases: Callable[[str], Path]) -> None:
    model = load_model(bases(case), trainable=True)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    add_lora(model, LoraConfig(r=2), seed=1)
    with torch.no_grad():
        plain = load_model(bases(case))(IDS)
        assert torch.equal(model(IDS), plain)  # B is zero: nothing has changed yet
    optimizer = torch.optim.SGD(factors(model), lr=1.0)
    for _ in range(2):
        model(IDS).logsumexp(-1).mean().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".lora_" in name)
        if ".lora_" not in name:
            assert torch.equal(parameter, before[name])
    with torch.no_grad():
        assert not torch.allclose(model(IDS), plain)


def test_a_seed_decides_the_factors(bases: Callable[[str], Path]) -> None:
    drawn = []
    for seed in (1, 1, 2):
        model = load_model(bases("qwen3"))
        add_lora(model, LoraConfig(r=2), seed=seed)
        drawn.append(factors(model)[0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_dropout_is_of_the_factors_only(bases: Callable[[str], Path]) -> None:
    model, _ = adapted(bases("qwen3"), dropout=0.5)
    with torch.no_grad():
        model.train()
        assert not torch.equal(model(IDS), model(IDS))
        model.eval()
        assert torch.equal(model(IDS), model(IDS))
        model.train()
        for layer in lora_layers(model).values():
            layer.lora_b.zero_()
        assert torch.equal(model(IDS), model(IDS))


def test_factors_stay_exact_beside_a_base_in_half_precision(bases: Callable[[str], Path]) -> None:
    model = load_model(bases("qwen3"), dtype=torch.bfloat16)
    add_lora(model, LoraConfig(r=2), seed=1)
    assert {p.dtype for p in factors(model)} == {torch.float32}
    assert model(IDS).dtype == torch.bfloat16


def test_a_gguf_can_be_the_base(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """llama.cpp keeps Llama's q and k with other rows; the adapter is in Transformers' order all the same."""
    case = "llama, tied"
    write_gguf(reference(case), tmp_path / "base.gguf")
    config = LoraConfig(r=3)
    model = load_model(tmp_path / "base.gguf")
    add_lora(model, config, seed=0)
    randomise_factors(model)
    save_adapter(model, config, tmp_path / "adapter", "base.gguf")
    with torch.no_grad():
        torch.testing.assert_close(logits_of_peft(bases(case), tmp_path / "adapter"), model(IDS), atol=1e-4, rtol=0)


def test_a_model_with_factors_is_not_written_as_a_plain_one(bases: Callable[[str], Path], tmp_path: Path) -> None:
    model, _ = adapted(bases("qwen3"))
    with pytest.raises(AssertionError, match="merge_lora"):
        save_model(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_lora_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot adapt q, embed"):
        LoraConfig(targets=("q", "embed"))
    with pytest.raises(UsageError, match="rank from 1"):
        LoraConfig(r=0)


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        raw = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(raw | changes))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        weights = load_file(folder / "adapter_model.safetensors")
        change(weights)
        save_file(weights, folder / "adapter_model.safetensors")

    return changed


def only_a_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


UP = "base_model.model.model.layers.0.mlp.up_proj"
REFUSALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
    "a pickle": (only_a_pickle, "only as a pickle"),
    "another kind": (change_config(peft_type="IA3"), "of the kind 'IA3'"),
    "no kind": (change_config(peft_type=None), "of the kind None"),
    "DoRA": (change_config(use_dora=True), "'use_dora' to True"),
    "biases": (change_config(bias="all"), "'bias' to 'all'"),
    "whole modules": (change_config(modules_to_save=["lm_head"]), "'modules_to_save' to"),
    "PiSSA": (change_config(init_lora_weights="pissa"), "'init_lora_weights' to 'pissa'"),
    "an option from the future": (change_config(use_magic=True), "'use_magic' to True"),
    "a pattern": (change_config(rank_pattern={"(a+)+$": 4}), "no patterns"),
    "a rank that is text": (change_config(r="4"), "sets r to '4'"),
    "a rank of nothing": (change_config(r=0), "sets r to 0"),
    "another rank": (change_config(r=5), "do not have the rank 5"),
    "an alpha that is no number": (change_config(lora_alpha=[1]), "sets lora_alpha to [1]"),
    "broken JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "not valid JSON"),
    "broken weights": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x"), "not a valid safetensors"),
    "one factor": (change_weights(lambda w: w.pop(f"{UP}.lora_B.weight")), "do not have the rank"),
    "nothing": (change_weights(lambda w: w.clear()), "is empty"),
    "a strange tensor": (change_weights(lambda w: w.update({f"{UP}.weight": torch.ones(2, 2)})), "not a LoRA factor"),
    "another width": (
        change_weights(lambda w: w.update({f"{UP}.lora_A.weight": torch.ones(4, 99)})),
        "does not fit this model",
    ),
    "a layer too many": (
        change_weights(
            lambda w: w.update(
                {f"{UP.replace('0', '9')}.lora_{x}.weight": w[f"{UP}.lora_{x}.weight"].clone() for x in "AB"}
            )
        ),
        "layers.9.mlp.up_proj', which this model does not have",
    ),
    "the embedding": (
        change_weights(
            lambda w: w.update(
                {
                    "base_model.model.model.embed_tokens.lora_A.weight": torch.ones(4, 64),
                    "base_model.model.model.embed_tokens.lora_B.weight": torch.ones(96, 4),
                }
            )
        ),
        "cannot be adapted here",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_with_the_reason(case: str, bases: Callable[[str], Path], tmp_path: Path) -> None:
    change, reason = REFUSALS[case]
    model, config = adapted(bases("qwen3"))
    save_adapter(model, config, tmp_path / "adapter", "the-base")
    change(tmp_path / "adapter")
    base = load_model(bases("qwen3"))
    with pytest.raises(InvalidModelError) as caught:
        load_adapter(base, tmp_path / "adapter")
    assert reason in str(caught.value)
    assert not lora_layers(base)


def test_an_adapter_of_another_base_is_refused_by_name(bases: Callable[[str], Path], tmp_path: Path) -> None:
    model, config = adapted(bases("gpt2"))
    save_adapter(model, config, tmp_path / "adapter", "my-gpt2")
    with pytest.raises(InvalidModelError, match="made for 'my-gpt2'"):
        load_adapter(load_model(bases("qwen3")), tmp_path / "adapter")
    with pytest.raises(ModelNotFoundError, match="no adapter at"):
        open_adapter(tmp_path / "nothing")


def test_an_adapter_is_found_in_its_run(bases: Callable[[str], Path], tmp_path: Path) -> None:
    model, config = adapted(bases("qwen3"))
    save_adapter(model, config, tmp_path / "adapter", "base")
    assert open_adapter(tmp_path).path == tmp_path / "adapter"
