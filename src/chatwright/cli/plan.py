"""`plan`: what a training run would take on this machine, and what it should reach; nothing is trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli import training_options as opt
from chatwright.cli.output import Output, read_settings
from chatwright.cli.train import recipe_text
from chatwright.i18n import _

if TYPE_CHECKING:
    from chatwright.training.plan import Plan


def plan(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The folder of a prepared dataset.")],
    size: opt.Size = None,
    minutes: opt.Minutes = None,
    arch: opt.Arch = "qwen3",
    cell: opt.Cell = None,
    positions: opt.Positions = None,
    tokenizer: opt.TokenizerFolder = None,
    vocab_size: opt.VocabSize = None,
    length: opt.Context = None,
    steps: opt.Steps = None,
    batch_tokens: opt.BatchTokens = None,
    micro_rows: opt.MicroRows = None,
    optimizer: opt.Optimizer = None,
    precision: opt.Precision = "auto",
    compile_: opt.Compile = False,
    dropout: opt.Dropout = None,
    fim: opt.FillInTheMiddle = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="RUN", help="Where the run would lie, for the room there.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what training would take here and reach, without training."""
    request = opt.build_request(
        size=size,
        minutes=minutes,
        arch=arch,
        cell=cell,
        positions=positions,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        context=length,
        steps=steps,
        batch_tokens=batch_tokens,
        micro_rows=micro_rows,
        optimizer=optimizer,
        precision=precision,
        compile_=compile_,
        dropout=dropout,
        fim=fim,
    )
    output: Output = context.obj
    settings = read_settings()
    from chatwright.machine import share_cores

    share_cores()
    from chatwright.engine.device import find_device
    from chatwright.text.dataset import Dataset
    from chatwright.training.plan import make_plan

    opened = Dataset.open(Path(dataset))
    device = find_device(settings.device)
    output.say(_("Measuring this machine and the text; a few seconds…"))
    made = make_plan(opened, request, device=device, n_threads=settings.n_threads, disk=_existing(out))
    if as_json:
        output.json(plan_json(made))
    else:
        output.data(plan_text(made))


def plan_text(plan: Plan) -> str:
    """The recipe with its reasons, then what it takes and reaches."""
    from chatwright.training.plan import shown_bytes

    machine, expectation, difficulty = plan.machine, plan.expectation, plan.difficulty
    rows = [
        (
            _("time"),
            duration(plan.training_s),
            _(
                "{step:.2f} s a step, measured; {held_out} for held-out text, {saving} for checkpoints; preparation comes before",
                step=plan.cost.step_seconds(plan.recipe.training),
                held_out=duration(plan.held_out_s),
                saving=duration(plan.saving_s),
            ),
        ),
        (
            _("memory"),
            shown_bytes(plan.memory_bytes),
            _("measured; {available} can be had", available=shown_bytes(plan.memory_available_bytes)),
        ),
        (_("disk"), shown_bytes(plan.disk_bytes), _("{free} are free", free=shown_bytes(plan.disk_free_bytes))),
        (
            _("machine"),
            f"{machine.device}, {machine.n_threads}",
            _(
                "threads; products of {fp32:.0f} GFLOP/s in fp32, {bf16:.0f} in bf16",
                fp32=machine.fp32_flops / 1e9,
                bf16=machine.bf16_flops / 1e9,
            ),
        ),
    ]
    if expectation is not None and difficulty is not None:
        value = _(
            "{value:.2f} bits per byte ({low:.2f} to {high:.2f})",
            value=expectation.bits_per_byte,
            low=expectation.low,
            high=expectation.high,
        )
        basis = _(
            "trigrams of tokens get {trigram:.2f} from {n} of this text; how far models get is a law of our own runs",
            trigram=difficulty.trigram,
            n=shown_bytes(difficulty.sample_bytes),
        )
        rows.append((_("to be expected"), value, basis))
    else:
        reason = _("not known: no held-out text, or a recurrent model")
        rows.append((_("to be expected"), "-", reason))
    lines = [f"  {label}: {value}  ({reason})" for label, value, reason in rows]
    return recipe_text(plan.recipe) + "\n" + "\n".join(lines)


def plan_json(plan: Plan) -> dict[str, Any]:
    """All figures; seconds and bytes."""
    recipe = plan.recipe
    return {
        "parameters": recipe.n_parameters,
        "arch": recipe.request.arch,
        "vocab_size": recipe.vocab_size,
        "context_length": recipe.context_length,
        "steps": recipe.training.n_steps,
        "tokens_per_step": recipe.tokens_per_step,
        "tokens": recipe.training.n_steps * recipe.tokens_per_step,
        "text_tokens": recipe.n_tokens,
        "bytes_per_token": round(recipe.bytes_per_token, 3),
        "epochs": round(recipe.epochs, 3),
        "training": recipe.training.to_dict(),
        "seconds": round(plan.training_s, 1),
        "step_seconds": plan.cost.step_seconds(recipe.training),
        "held_out_seconds": round(plan.held_out_s, 1),
        "saving_seconds": round(plan.saving_s, 1),
        "memory_bytes": plan.memory_bytes,
        "memory_available_bytes": plan.memory_available_bytes,
        "disk_bytes": plan.disk_bytes,
        "disk_free_bytes": plan.disk_free_bytes,
        "expected_bits_per_byte": asdict(plan.expectation) if plan.expectation else None,
        "basis": asdict(plan.difficulty) if plan.difficulty else None,
        "fp32_gflops": round(plan.machine.fp32_flops / 1e9, 1),
        "bf16_gflops": round(plan.machine.bf16_flops / 1e9, 1),
        "reasons": dict(recipe.reasons),
    }


def duration(seconds: float) -> str:
    """As a person says it."""
    if seconds < 90:
        return _("{n:.0f} s", n=seconds)
    if seconds < 5400:
        return _("{n:.1f} min", n=seconds / 60)
    return _("{n:.1f} h", n=seconds / 3600)


def _existing(out: str | None) -> Path:
    """The folder that is there already on the way to `out`."""
    path = Path.cwd() if out is None else Path(out).absolute()
    return next(each for each in (path, *path.parents) if each.exists())
