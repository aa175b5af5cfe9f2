"""`complete`: one completion of a prompt, to standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, number, read_settings
from chatwright.errors import InvalidRequestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatwright.cli.adapters import Chosen
    from chatwright.engine.protocol import SamplingParams
    from chatwright.engine.text import TextModel
    from chatwright.settings import Settings

# A prompt beyond this never fits a context; reading on would only fill the memory.
_LONGEST_PROMPT_BYTES = 64 * 2**20
# Of an answer, where no --max-tokens is given and the context has room for it.
_USUAL_TOKENS = 128


def complete(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or a path.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue; - reads standard input.")],
    max_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="At most N tokens. Default: 128, or what the context leaves.", show_default=False
        ),
    ] = None,
    temperature: Annotated[
        str, typer.Option(metavar="T", help="0 always takes the likeliest token. Default: 0.2.")
    ] = "0.2",
    top_p: Annotated[
        str, typer.Option(metavar="P", help="Choose among the likeliest tokens up to P. Default: 0.9.")
    ] = "0.9",
    seed: Annotated[str | None, typer.Option(metavar="N", help="The same seed gives the same answer.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Stop before TEXT; may be given up to 16 times.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:0 or mps.")] = None,
) -> None:
    """Continue a text once, without a chat template."""
    import asyncio

    output: Output = context.obj
    limit = number(max_tokens, "--max-tokens", least=1, most=1_000_000, whole=True)
    options: dict[str, Any] = {
        "temperature": number(temperature, "--temperature", least=0, most=2),
        "top_p": number(top_p, "--top-p", least=0, most=1),
        "seed": number(seed, "--seed", least=-(2**63), most=2**63 - 1, whole=True),
    }
    if len(stop or []) > 16 or "" in (stop or []):
        raise UsageError("--stop takes a text that is not empty, and may be given up to 16 times.")
    text = read_prompt() if prompt == "-" else prompt
    if not text:
        raise UsageError("The prompt is empty: give the text to continue.")

    with loaded_model(model, device, output) as text_model:
        asyncio.run(_complete(text_model, text, limit, options, stop or []))


async def _complete(
    model: TextModel, prompt: str, limit: int | None, options: dict[str, Any], stop: Sequence[str]
) -> None:
    from contextlib import aclosing

    from chatwright.cli.terminal import printable
    from chatwright.engine.text import TextDelta, TextRequest

    show = printable if sys.stdout.isatty() else str
    try:
        try:
            ids = await model.encode(prompt)
            room = model.max_tokens_left(len(ids))
        except InvalidRequestError as error:
            if error.code != "context_length_exceeded":
                raise
            room = 0  # so surely that it is found out before a token is counted
        if room < 1:
            raise UsageError(
                "The prompt is as long as the {limit} tokens that the model can read, or longer: nothing is left for an answer."
                " Shorten the prompt.",
                limit=model.context_length,
            )
        if limit is None:
            limit = min(_USUAL_TOKENS, room)
        model.check_length(len(ids), limit, param="max_tokens")
        request = TextRequest(ids, sampling_params(limit, options), tuple(stop))
        async with aclosing(model.generate(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    sys.stdout.write(show(event.text))
                    sys.stdout.flush()
        sys.stdout.write("\n")
    finally:
        await model.close()


def sampling_params(max_tokens: int, options: dict[str, Any]) -> SamplingParams:
    """Sampling from options, those that are None left at their defaults; a fresh seed unless one is given."""
    from chatwright.engine.protocol import SamplingParams
    from chatwright.engine.text import random_seed

    given = {key: value for key, value in options.items() if value is not None}
    return SamplingParams(max_tokens=max_tokens, **{"seed": random_seed(), **given})


@contextmanager
def loaded_model(name: str | None, device: str | None, output: Output) -> Iterator[TextModel]:
    """A model by name or path, or the default one (pulled when missing), in this process; not removed meanwhile."""
    settings = read_settings({"device": device})
    with chosen_model(name, settings, output) as chosen:
        from chatwright.cli.serve import loading_sentence
        from chatwright.engine.load import load_text_model

        if sys.stderr.isatty():
            output.say(loading_sentence(chosen))
        yield load_text_model(chosen.path, chosen.name, settings, chosen.adapter)


@contextmanager
def chosen_model(name: str | None, settings: Settings, output: Output) -> Iterator[Chosen]:
    """Where the model of that name or path, or the default one (pulled when missing), lies; not removed meanwhile."""
    from chatwright.cli.adapters import Chosen, resolve_model
    from chatwright.cli.serve import default_model
    from chatwright.hub import ModelsFolder

    output.log_to_stderr(settings, warnings_only=True)
    folder = ModelsFolder(settings.models_dir)
    chosen = Chosen(*default_model(settings, folder, output)) if name is None else resolve_model(name, folder)
    held = folder.in_use(chosen.base or chosen.name, "chatwright " + " ".join(sys.argv[1:2]))
    with held if folder.owns(chosen.path) else nullcontext():
        yield chosen


def read_prompt() -> str:
    """All of standard input, as UTF-8. Raises UsageError."""
    data = sys.stdin.buffer.read(_LONGEST_PROMPT_BYTES + 1)
    if len(data) > _LONGEST_PROMPT_BYTES:
        raise UsageError("Standard input holds more than {limit} MB: no model can read that much at once.", limit=64)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("Standard input is not UTF-8 text (byte {position}).", position=error.start) from error
