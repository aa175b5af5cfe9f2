"""report.html: what a run was asked, what happened and what came out, in one file that needs nothing else to be read."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chatwright.errors import StorageError
from chatwright.i18n import _, detect_language
from chatwright.text.work import write_atomically
from chatwright.training.curves import curves_svg
from chatwright.training.environment import read_environment
from chatwright.training.figures import figure_name
from chatwright.training.fold_report import fold_tables
from chatwright.training.fold_state import FoldState
from chatwright.training.history import History, status_name
from chatwright.training.run import REPORT, SAMPLES, Run

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --muted: #777; }
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
tr { border-bottom: 1px solid var(--line); } .why { color: var(--muted); }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
svg { width: 100%; } figure { margin: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); padding: .6rem; border-radius: .3rem; }
"""
_EVENTS_SHOWN = 60


def write_report(run: Run) -> Path:
    """Writes report.html anew from the files of the run, in the user's language, and returns its path. Raises StorageError."""
    path = run.path / REPORT
    try:
        write_atomically(path, "\n".join(_page(run)).encode())
    except OSError as error:
        raise StorageError("{path} cannot be written: {reason}", path=path, reason=error.strerror) from error
    return path


def _page(run: Run) -> Iterator[str]:
    history = History.read(run)
    title = html.escape(f"Chatwright · {run.path.resolve().name}")
    yield f'<!doctype html><html lang="{detect_language()}"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
    yield _table([(label, _shown(value), "") for label, value in _summary(run, history)])
    yield from fold_tables(run)
    if history.series:
        yield f"<h2>{_('Curves')}</h2><div class=curves>"
        yield from curves_svg(history)
        yield "</div>"
    reasons = run.reasons()
    for name, section in run.config.items():
        if isinstance(section, Mapping):
            yield f"<h2>{html.escape(name)}</h2>"
            why = reasons.get(name, {})
            yield _table([(str(key), _shown(value), why.get(key, "")) for key, value in section.items()])
    yield from _samples(run)
    environment = read_environment(run.path)
    if environment:
        yield f"<h2>{_('Environment')}</h2>"
        yield _table([(key, _shown(value), "") for key, value in environment.items()])
    yield f"<h2>{_('Events')}</h2>"
    events = [entry for entry in history.events if entry.get("event") != "checkpoint"][-_EVENTS_SHOWN:]
    yield _table([(str(e.pop("time", "")), str(e.pop("event", "")), _shown(e)) for e in map(dict, events)])
    yield "</body></html>"


def _summary(run: Run, history: History) -> list[tuple[str, Any]]:
    n_steps = run.config.get("training", {}).get("n_steps")
    steps = f"{history.step:,} / {n_steps:,}" if isinstance(n_steps, int) else f"{history.step:,}"
    folds = FoldState.of(run, history)
    rows = [
        (_("State"), status_name(folds.status if folds else history.status)),
        (_("Folds"), folds.shown()) if folds else (_("Steps"), steps),
        (_("Dataset"), run.config.get("dataset", {}).get("path")),
    ]
    rows += [(figure_name(name), f"{value:.4f}") for name, value in history.final.items()]
    return [(label, value) for label, value in rows if value not in (None, "")]


def _samples(run: Run) -> Iterator[str]:
    files = sorted((run.path / SAMPLES).glob("step-*.md"), key=lambda file: (len(file.name), file.name))
    if not files:
        return
    yield f"<h2>{_('Samples')}</h2>"
    shown = dict.fromkeys([files[0], files[len(files) // 2], files[-1]])  # the first, one half-way, the last
    for file in shown:
        yield f"<pre>{html.escape(file.read_text(encoding='utf-8', errors='replace'))}</pre>"


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    cells = (
        f"<tr><td>{html.escape(a)}</td><td>{html.escape(b)}</td><td class=why>{html.escape(c)}</td></tr>"
        for a, b, c in rows
    )
    return "<table>" + "".join(cells) + "</table>"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)
