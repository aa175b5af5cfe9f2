"""Each trained parameter is in exactly one group, of the right kind, and the updates are what they are called."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from chatwright.model.gpt import GPT
from chatwright.model.heads import TextClassifier
from chatwright.model.lora import LoraConfig, add_lora
from chatwright.model.presets import config_for_size, rnn_config_for_size
from chatwright.model.rnn import RNN
from chatwright.training.config import TrainingConfig
from chatwright.training.muon import Muon
from chatwright.training.optimizer import Optimizers, split_parameters
from tests.training.toy import Toy, weights


def models() -> dict[str, nn.Module]:
    qwen3 = config_for_size(60_000, 300, 32, "qwen3")
    gpt2 = config_for_size(60_000, 300, 32, "gpt2")
    adapted = GPT(qwen3)
    add_lora(adapted, LoraConfig(r=2, alpha=4), 0)
    return {
        "qwen3": GPT(qwen3),
        "gpt2": GPT(gpt2),
        "lstm": RNN(rnn_config_for_size(60_000, 300, "lstm")),
        "classifier": TextClassifier(GPT(gpt2), ("a", "b"), pad_id=0),
        "lora": adapted,
    }


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "lstm", "classifier", "lora"])
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_trained_parameter_is_in_one_group(name: str, kind: str) -> None:
    model = models()[name]
    optimizers = Optimizers(model, TrainingConfig(n_steps=1, batch_rows=1, micro_rows=1, optimizer=kind))  # type: ignore[arg-type]
    grouped = [p for each in optimizers.optimizers.values() for group in each.param_groups for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    hidden, rest = split_parameters(model)
    outside = [name for name in hidden if "embed" in name or "head" in name or "classifier" in name or "score" in name]
    assert outside == []
    assert [name for name in rest if "layers." in name and name.endswith(("q.weight", "down.weight"))] == []


@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (32, 96)])
def test_muon_moves_all_directions_alike(shape: tuple[int, int]) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    module = nn.Module()
    module.layer = nn.Linear(1, 1, bias=False)
    module.layer.weight = weight
    config = TrainingConfig(n_steps=1, batch_rows=1, micro_rows=1, optimizer="muon", muon_lr=1.0, weight_decay=0.0)
    optimizers = Optimizers(module, config)
    weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    optimizers.step(0)
    values = torch.linalg.svdvals(weight.detach()) / max(1, shape[0] / shape[1]) ** 0.5
    # five iterations do not reach the few directions of a square matrix that were next to nothing
    assert float(values.quantile(0.1)) > 0.6
    assert float(values.max()) < 1.3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_muon_is_pytorchs(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(48, 32), (32, 48), (48, 32), (32, 32)]
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = [
        Muon(ours, lr=0.02, momentum=0.95, dtype=dtype),
        torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.0),
    ]
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        for each in optimizers:
            each.step()
    atol = 1e-6 if dtype == torch.bfloat16 else 4e-3  # theirs rounds to bfloat16
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=atol)


def test_only_matrices_of_hidden_layers_decay() -> None:
    toy = Toy()
    before = weights(toy.model)
    config = TrainingConfig(n_steps=10, batch_rows=1, micro_rows=1, optimizer="adamw", lr=1e-4, weight_decay=100)
    optimizers = Optimizers(toy.model, config)
    for parameter in toy.model.parameters():
        parameter.grad = torch.ones_like(parameter)  # every weight is moved down
    optimizers.step(0)
    hidden, rest = split_parameters(toy.model)
    for name, parameter in toy.model.named_parameters():
        old, new = before[name], parameter.detach()
        if name in rest:
            torch.testing.assert_close(new, old, rtol=1e-4, atol=1.1e-4)
        else:
            torch.testing.assert_close(new, old * 0.99, rtol=1e-4, atol=1.1e-4)
    assert hidden


def test_state_goes_back_where_it_was() -> None:
    config = TrainingConfig(n_steps=10, batch_rows=1, micro_rows=1, optimizer="muon")
    first, second = Toy(), Toy()
    optimizers = Optimizers(first.model, config)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        for parameter in first.model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizers.step(0)
    again = Optimizers(second.model, config)
    with torch.no_grad():
        for mine, theirs in zip(second.model.parameters(), first.model.parameters(), strict=True):
            mine.copy_(theirs)
    again.load_state({name: tensor.clone() for name, tensor in optimizers.state().items()})
    for each in (optimizers, again):
        for name, parameter in each.parameters.items():
            parameter.grad = torch.full_like(parameter, len(name))
        each.step(1)
    for mine, theirs in zip(second.model.parameters(), first.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
