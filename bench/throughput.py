"""Training throughput as a share of the machine's ceiling: our loop, the plain recipe's, and Transformers' Trainer.

    python -m bench.throughput DATASET [--size 12m --rounds 5 --steps 4]

Our loop's own steps (recipe, objective and Stepper as `train --size` has them, also with `--compile`), the plain recipe's loop and
the Trainer on GPT2LMHeadModel, both of a GPT-2 shape with about as many parameters, take turns; a product of 2048³ is timed in
every round.
Operations of a token: 6 for every number of a matrix that it is multiplied with, and 6 x layers x width x context for causal
attention. One JSON line a figure. Use a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.figures import report
from bench.plain_recipe import PlainGPT, Shape, plain_step, random_windows
from chatwright.machine import available_cores
from chatwright.model.config import ModelConfig
from chatwright.model.presets import parse_size
from chatwright.text.dataset import Dataset
from chatwright.training.compiling import compile_model
from chatwright.training.distributed import World
from chatwright.training.measure import random_objective
from chatwright.training.optimizer import Optimizers
from chatwright.training.pretraining import HeldOut
from chatwright.training.recipe import resolve
from chatwright.training.request import Request
from chatwright.training.speed import measure_machine
from chatwright.training.stats import text_stats
from chatwright.training.step import Stepper

CEILING_SIZE = 2048


def ceiling(dtype: torch.dtype) -> float:
    """Operations a second of a large product, the best of a few: a ceiling is what can be reached."""
    a, b = (torch.randn(CEILING_SIZE, CEILING_SIZE).to(dtype) for _ in range(2))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * CEILING_SIZE**3 / min(times)


def operations_per_token(matrices: int, n_layer: int, width: int, context: int) -> float:
    """See the module."""
    return 6 * matrices + 6 * n_layer * width * context


def timed_steps(step: Callable[[int], object], n: int, first: int) -> float:
    """Median seconds of a step."""
    times = []
    for number in range(first, first + n):
        start = time.perf_counter()
        step(number)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Ours:
    """The loop's steps with the settings of `train --size`, whose batch follows from all the tokens that the size wants."""

    def __init__(self, dataset: Dataset, size: int, precision: str, compiled: bool = False) -> None:
        device = torch.device("cpu")
        request = Request(size=size, precision=precision, compile=compiled, dropout=0.0)  # type: ignore[arg-type]
        recipe = resolve(text_stats(dataset), request, measure_machine(device, torch.get_num_threads()))
        assert isinstance(recipe.model, ModelConfig)
        self.precision = recipe.training.precision
        objective = random_objective(recipe.model, recipe.context_length, recipe.dropout, HeldOut([], [], 0, 0), device)
        objective.model.train()
        if compiled and (problem := compile_model(objective.model)):
            raise SystemExit(problem)
        training = recipe.training
        self.stepper = Stepper(objective, training, Optimizers(objective.model, training), World())
        self.tokens = recipe.tokens_per_step
        model = recipe.model
        matrices = sum(p.numel() for p in objective.model.parameters() if p.ndim == 2)
        self.parameters = recipe.n_parameters
        self.operations = operations_per_token(
            matrices, model.n_layer, model.n_head * model.head_dim, recipe.context_length
        )

    def seconds(self, n: int, first: int) -> float:
        return timed_steps(self.stepper.step, n, first)


class Plain:
    """The plain recipe's steps."""

    def __init__(self, shape: Shape, bf16: bool) -> None:
        self.model, self.bf16 = PlainGPT(shape), bf16
        self.optimizer = self.model.optimizer(1e-3)
        self.generator = np.random.default_rng(0)
        self.stream = self.generator.integers(shape.vocab_size, size=1 << 20).astype(np.uint16)
        self.tokens, self.shape = 16 * shape.context, shape
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.operations = gpt2_operations(shape)

    def seconds(self, n: int, first: int) -> float:
        def step(number: int) -> None:
            windows = random_windows(self.stream, self.generator, 16, self.shape.context)
            plain_step(self.model, self.optimizer, windows, self.bf16)

        return timed_steps(step, n, first)


class Trainer:
    """Transformers' own loop on the same shape and batch."""

    def __init__(self, shape: Shape, bf16: bool) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=shape.context,
            n_embd=shape.d_model,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
        self.model, self.bf16 = GPT2LMHeadModel(config), bf16
        self.rows = torch.randint(shape.vocab_size, (256, shape.context))
        self.tokens = 16 * shape.context
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.operations = gpt2_operations(shape)

    def seconds(self, n: int, first: int) -> float:
        import transformers

        times: list[float] = []

        class Clock(transformers.TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                self.start = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                times.append(time.perf_counter() - self.start)

        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=16,
                max_steps=n,
                learning_rate=1e-3,
                weight_decay=0.1,
                adam_beta2=0.95,
                max_grad_norm=1.0,
                use_cpu=True,
                bf16=self.bf16,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            data = [{"input_ids": row, "labels": row} for row in self.rows]
            trainer = transformers.Trainer(self.model, arguments, train_dataset=data, callbacks=[Clock()])
            trainer.remove_callback(transformers.PrinterCallback)  # standard output is for figures
            trainer.train()
        return statistics.median(times)


def gpt2_operations(shape: Shape) -> float:
    """Of the GPT-2 shape, whose positions are looked up and not multiplied."""
    matrices = 12 * shape.n_layer * shape.d_model**2 + shape.vocab_size * shape.d_model
    return operations_per_token(matrices, shape.n_layer, shape.d_model, shape.context)


def throughput(arguments: argparse.Namespace) -> None:
    """All of them in turn, every round."""
    dataset, size = Dataset.open(arguments.dataset), parse_size(arguments.size)
    # the plain recipe's shape, widened to the size: 12 L d² + V d
    shape = min(
        (Shape(n_layer=6, n_head=d // 64, d_model=d) for d in range(256, 1025, 64)),
        key=lambda s: abs(12 * s.n_layer * s.d_model**2 + s.vocab_size * s.d_model - size),
    )
    contenders: dict[str, Ours | Plain | Trainer] = {
        f"ours, {precision}{', compiled' * compiled}": Ours(dataset, size, precision, compiled)
        for precision in arguments.precisions.split(",")
        for compiled in (False, True)
    }
    for name in arguments.precisions.split(","):
        bf16 = name == "bf16"
        contenders |= {f"plain recipe, {name}": Plain(shape, bf16), f"Trainer, {name}": Trainer(shape, bf16)}
    for contender in contenders.values():
        contender.seconds(2, 0)  # warm up
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    shares: dict[str, list[float]] = {name: [] for name in contenders}
    ceilings: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for round_number in range(arguments.rounds):
        fp32, bf16_rate = ceiling(torch.float32), ceiling(torch.bfloat16)
        ceilings["fp32"].append(fp32)
        ceilings["bf16"].append(bf16_rate)
        for name, contender in contenders.items():
            seconds = contender.seconds(arguments.steps, 2 + round_number * arguments.steps)
            rate = contender.tokens / seconds
            rates[name].append(rate)
            shares[name].append(rate * contender.operations / fp32)
    for name, values in ceilings.items():
        report(
            f"ceiling, product of 2048³, {name}", round(statistics.median(values) / 1e9, 1), "GFLOP/s", n=len(values)
        )
    for name, contender in contenders.items():
        report(
            f"pretraining throughput, {name}",
            round(statistics.median(rates[name])),
            "tokens/s",
            share_of_fp32_ceiling=round(statistics.median(shares[name]), 3),
            share_range=[round(min(shares[name]), 3), round(max(shares[name]), 3)],
            parameters=contender.parameters,
            tokens_per_step=contender.tokens,
            n=arguments.rounds,
        )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--size", default="12m")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps of each a round")
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    throughput(arguments)


if __name__ == "__main__":
    main()
