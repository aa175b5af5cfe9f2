"""report.md and report.html of a dataset: what came in, what each step did, what was dropped and why, what is there now."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chatwright.i18n import _, detect_language, format_size
from chatwright.text.formats import shown_format
from chatwright.text.manifest import SPLITS, Manifest

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } tr { border-bottom: 1px solid #8884; }
"""


@dataclass(frozen=True)
class Table:
    """A table with a heading. Numbers are strings already; `bars`: a share in [0, 1] for each row, drawn as a bar."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Sequence[float] = ()


def step_names() -> dict[str, str]:
    """The steps of a preparation in the user's language."""
    return {
        "find": _("finding files"),
        "read": _("reading"),
        "repair": _("repair of mojibake"),
        "boilerplate": _("boilerplate"),
        "normalise": _("normalisation"),
        "check": _("checks"),
        "language": _("languages"),
        "quality": _("quality filters"),
        "personal data": _("personal data"),
        "exact duplicates": _("exact duplicates"),
        "near duplicates": _("near duplicates"),
        "split": _("split"),
    }


def tables(manifest: Manifest) -> Iterator[Table]:
    """The report as tables: for the terminal and for both files."""
    rows = [
        (_(kind), _(split), f"{contents.rows:,}", format_size(contents.bytes))
        for kind, splits in manifest.kinds.items()
        for split, contents in splits.items()
    ]
    yield Table(_("The dataset"), (_("kind"), _("split"), _("rows"), _("text")), rows)
    languages: dict[str, int] = {}
    for splits in manifest.kinds.values():
        for split in SPLITS:
            for language, n_bytes in splits[split].languages.items() if split in splits else ():
                languages[language] = languages.get(language, 0) + n_bytes
    total = max(1, sum(languages.values()))
    ordered = sorted(languages.items(), key=lambda item: -item[1])
    yield Table(
        _("Languages"),
        (_("language"), _("text"), _("share")),
        [(language, format_size(n), f"{n / total:.1%}") for language, n in ordered],
        [n / total for _language, n in ordered],
    )
    yield Table(
        _("Formats found"),
        (_("format"), _("rows")),
        [
            (shown_format(name), f"{count:,}")
            for name, count in sorted(manifest.sources.detected.items(), key=lambda item: -item[1])
        ],
    )
    names = step_names()
    steps = [
        (
            names.get(step.name, step.name),
            f"{step.rows_in:,}",
            f"{step.rows_out:,}",
            format_size(step.bytes_in),
            format_size(step.bytes_out),
            f"{step.changed:,}",
        )
        for step in manifest.steps
    ]
    headings = (_("step"), _("rows in"), _("rows out"), _("text in"), _("text out"), _("changed"))
    most = max([1, *(step.bytes_in for step in manifest.steps)])
    yield Table(_("Steps taken"), headings, steps, [step.bytes_out / most for step in manifest.steps])
    dropped = [
        (names.get(step.name, step.name), _(reason), f"{count:,}")
        for step in manifest.steps
        for reason, count in sorted(step.dropped.items(), key=lambda item: -item[1])
    ]
    yield Table(_("Dropped (each is named in dropped.jsonl)"), (_("step"), _("reason"), _("rows")), dropped)
    notes = [
        (names.get(step.name, step.name), _(note), f"{count:,}")
        for step in manifest.steps
        for note, count in step.notes.items()
    ]
    yield Table(_("Notes"), (_("step"), _("what"), _("count")), notes)


def write_reports(folder: Path, manifest: Manifest) -> None:
    """Both files into a dataset's folder, in the user's language. Raises OSError."""
    (folder / "report.md").write_text("\n".join(_markdown(manifest)) + "\n", encoding="utf-8")
    (folder / "report.html").write_text("\n".join(_html(manifest)) + "\n", encoding="utf-8")


def _lines_above(manifest: Manifest) -> Iterator[str]:
    sources = manifest.sources
    yield _(
        "{units:,} files or parts of files from {inputs}, {size} in all; made by {program}.",
        units=sources.units,
        inputs=", ".join(sources.inputs),
        size=format_size(sources.size_bytes),
        program=manifest.created_by,
    )
    if several := manifest.clusters.get("of_several_rows", 0):
        yield _(
            "{n:,} clusters of rows that are alike, ask the same or are parts of one document, {rows:,} rows in all; "
            "the largest has {largest:,}. None stands in both splits.",
            n=several,
            rows=manifest.clusters.get("rows_in_them", 0),
            largest=manifest.clusters.get("largest", 0),
        )
    else:
        yield _("No two rows are alike or ask the same.")
    if manifest.options.get("mask"):
        yield _("Personal data is masked where the detectors found some; the counts are under Notes.")
    else:
        yield _("Personal data was neither looked for nor masked: --mask does both.")
    yield _(
        "While it was made, {size} of temporary files lay beside it on the disk.",
        size=format_size(manifest.temporary_bytes),
    )


def _markdown(manifest: Manifest) -> Iterator[str]:
    yield "# " + _("Report of the dataset")
    yield ""
    for line in _lines_above(manifest):
        yield f"{line}\n"
    for table in tables(manifest):
        if table.rows:
            yield f"\n## {table.title}\n"
            yield "| " + " | ".join(table.headings) + " |"
            yield "| " + " | ".join("---" for _heading in table.headings) + " |"
            for row in table.rows:
                yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _html(manifest: Manifest) -> Iterator[str]:
    title = html.escape(_("Report of the dataset"))
    yield f'<!doctype html><html lang="{detect_language()}"><head><meta charset="utf-8"><title>{title}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
    for line in _lines_above(manifest):
        yield f"<p>{html.escape(line)}</p>"
    for table in tables(manifest):
        if not table.rows:
            continue
        yield f"<h2>{html.escape(table.title)}</h2><table><tr>"
        yield "".join(f"<th>{html.escape(heading)}</th>" for heading in table.headings) + "</tr>"
        for number, row in enumerate(table.rows):
            cells = "".join(f"<td{_numeric(cell)}>{html.escape(cell)}</td>" for cell in row)
            bar = f"<td>{_bar(table.bars[number])}</td>" if table.bars else ""
            yield f"<tr>{cells}{bar}</tr>"
        yield "</table>"
    yield "</body></html>"


def _bar(share: float) -> str:
    return (
        f'<svg width="180" height="10" role="img" aria-label="{share:.0%}"><rect width="180" height="10" fill="#8883"/>'
        f'<rect width="{180 * share:.1f}" height="10" fill="#4a90d9"/></svg>'
    )


def _numeric(cell: str) -> str:
    return ' class="n"' if cell[:1].isdigit() else ""
