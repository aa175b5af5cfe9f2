"""`explain`: what a model expected, where it looked, and what it would have said layer by layer, for one prompt."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatwright.cli.complete import read_prompt
from chatwright.cli.output import Output, choice, number, read_settings
from chatwright.errors import UsageError
from chatwright.i18n import _, detect_language

if TYPE_CHECKING:
    from chatwright.inspection.explain import Explanation

_DEFAULT_TOKENS = "16"


def explain(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or a path.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to look at; - reads standard input.")],
    answer: Annotated[
        str | None, typer.Option(metavar="TEXT", help="An answer to look at, instead of the model's.")
    ] = None,
    max_tokens: Annotated[
        str | None,
        typer.Option(metavar="N", help="Let the model answer with at most N tokens; 0: the prompt alone. Default: 16."),
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="The prompt is a message in a conversation.")] = False,
    attribution: Annotated[
        str, typer.Option(metavar="METHOD", help="How input tokens are weighed: occlusion or gradient.")
    ] = "occlusion",
    top: Annotated[str, typer.Option(metavar="N", help="Alternatives and neighbours of each token. Default: 5.")] = "5",
    token: Annotated[
        str | None,
        typer.Option(metavar="N", help="The place of the token to show closely. Default: the answer's first."),
    ] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:0 or mps.")] = None,
) -> None:
    """Look inside a model: probabilities, attention, layers, attribution, embeddings."""
    output: Output = context.obj
    if answer is not None and max_tokens is not None:
        raise UsageError("Give either --answer or --max-tokens: an answer that is given is not written by the model.")
    n_answer = number(max_tokens or _DEFAULT_TOKENS, "--max-tokens", least=0, most=512, whole=True)
    n_top = number(top, "--top", least=1, most=50, whole=True)
    method = choice(attribution, "--attribution", "occlusion", "gradient")
    place = number(token, "--token", least=0, most=1 << 31, whole=True)
    page = Path(html).expanduser() if html is not None else None
    if page is not None:
        from chatwright.inspection.page import check_page_path

        check_page_path(page)
    text = read_prompt() if prompt == "-" else prompt
    if not text:
        raise UsageError("The prompt is empty: give a text to look at.")

    from chatwright.cli.adapters import resolve_model
    from chatwright.hub import ModelsFolder

    settings = read_settings({"device": device})
    output.log_to_stderr(settings, warnings_only=True)
    folder = ModelsFolder(settings.models_dir)
    chosen = resolve_model(model, folder)

    from chatwright.engine.device import find_device
    from chatwright.inspection import explain as inspection
    from chatwright.inspection.subject import open_subject

    held = folder.in_use(chosen.base or chosen.name, "chatwright explain")
    with held if folder.owns(chosen.path) else nullcontext():
        output.say(_("Loading {name} in float32…", name=chosen.name))
        subject = open_subject(chosen.path, chosen.name, settings, chosen.adapter, find_device(settings.device))
        explanation = inspection.explain(
            subject, text, answer=answer, max_tokens=n_answer, chat=chat, method=method, top=n_top
        )
    if place is not None and place >= len(explanation.tokens):
        raise UsageError(
            "There is no token {n}: the text has {count}, counted from 0, so that the last is {last}.",
            n=place,
            count=len(explanation.tokens),
            last=len(explanation.tokens) - 1,
        )
    if page is not None:
        from chatwright.inspection.page import write_page

        write_page(explanation, page, detect_language())
    if as_json:
        output.json(explanation.to_json())
    else:
        _print(explanation, place)
    if page is not None:
        output.say(_("The page is in {path}: open it in a browser.", path=page))


def _print(explanation: Explanation, place: int | None) -> None:
    from chatwright.cli.explain_text import print_explanation
    from chatwright.cli.output import stdout_console

    print_explanation(explanation, stdout_console(), place)
