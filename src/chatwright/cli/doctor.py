"""`doctor`: looks at everything Chatwright depends on, and says what to do about what is wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from chatwright.cli.output import Output, stdout_console
from chatwright.i18n import _

_MARKS = {"ok": ("ok", "green"), "warn": ("!", "yellow"), "fail": ("x", "red")}


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this installation; the output is meant for bug reports and holds no secrets."""
    from dataclasses import asdict

    from rich.text import Text

    from chatwright.cli.checkup import check_all

    output: Output = context.obj
    findings = check_all()
    if as_json:
        output.json([asdict(finding) for finding in findings])
    else:
        console = stdout_console()
        width = max(len(finding.topic) for finding in findings)
        for finding in findings:
            mark, colour = _MARKS[finding.level]
            line = Text.assemble((f"{mark:>2}", colour), f"  {finding.topic:<{width}}  {finding.text}")
            if finding.advice:
                line.append(f"\n{'':{width + 6}}→ {finding.advice}", style=colour)
            console.print(line)
    n_failed = sum(finding.level == "fail" for finding in findings)
    if n_failed:
        output.say(_("{n} checks failed.", n=n_failed))
        raise typer.Exit(1)
