"""Two sides asked the same: token ids, logits, greedy tokens; and what the differences are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from chatwright.compression.progress import Progress, Silent
from chatwright.compression.source import Source
from chatwright.compression.verify.files import compare_files
from chatwright.compression.verify.measure import (
    LADDER,
    Difference,
    by_half,
    coarseness,
    difference,
    figures,
    of_one_token,
    yardsticks,
)
from chatwright.compression.verify.report import Compared, Finding, Greedy, Report, finding, first_difference, parted
from chatwright.compression.verify.side import Logits, Precision, Side, likeliest, precision_of
from chatwright.compression.verify.texts import CHATS, CONTROL, TEXTS
from chatwright.errors import InvalidRequestError, UsageError
from chatwright.i18n import _

# Of the reference's own spread of logits: below this both computed the same in float32.
SAME = 2e-4
# A difference is called rounding up to so many times what the model differs from itself by in that format.
_ROOM = 3.0
# Share of one token's logit in all difference from which on it alone is meant.
_ONE_TOKEN = 0.5
# Vocabularies that agree in less than this share of their tokens are of different models.
_SAME_VOCABULARY = 0.9
# A side's own steps may differ from its own prompt by so many times what both sides differ by.
_CACHE_ROOM = 4.0
_GREEDY_TEXTS = ("en", "zh", "code")


def compare_sides(
    a: Side,
    b: Side,
    sources: tuple[Source | None, Source | None] = (None, None),
    *,
    n_greedy: int = 24,
    tie: float = 0.1,
    progress: Progress | None = None,
) -> Report:
    """A is the reference. `sources`: their files, where they have some, which explain what differs. `tie`: tokens whose logits are
    less apart than this may change places by rounding.

    Raises UsageError for different vocabularies.
    """
    progress = progress or Silent()
    report = Report(a.label, b.label, "logits")
    _check_vocabularies(a, b, report)
    prompts = _texts(a, b, report)
    chat = _chats(a, b, report)
    _template_texts(sources, report)
    if chat is not None:
        prompts["chat"] = chat
    room = min(a.context_length, b.context_length)
    prompts = {name: ids[: max(1, room - 1)] for name, ids in prompts.items() if ids}
    begun = {name: ids[: max(1, room - n_greedy)] for name, ids in prompts.items() if name in (*_GREEDY_TEXTS, "chat")}

    progress.begin(_("comparing logits"), len(prompts))
    differences = _logits(a, b, prompts, report, progress)
    explained = _files(sources)
    report.findings += explained
    allowed = False
    if differences:
        report.by_text = {name: figures([each]) for name, each in differences.items()}
        report.figures = figures(list(differences.values()))
        judged = _judge(a, b, list(differences.values()), sources, prompts, explained)
        report.findings += judged
        allowed = not any(found.real for found in judged)
    coarse = _coarsest(a, b, sources) in ("int8", "int4")
    progress.begin(_("comparing greedy tokens"), len(begun))
    for done, (name, ids) in enumerate(begun.items(), 1):
        _greedy(a, b, name, ids, n_greedy, tie, allowed and coarse, report)
        progress.advance(done)
    return report


def _check_vocabularies(a: Side, b: Side, report: Report) -> None:
    if a.vocab_size != b.vocab_size:
        raise UsageError(
            "{a} and {b} have different vocabularies ({n_a} and {n_b} tokens), so their logits cannot be compared. Compare a model"
            " with a copy of itself.",
            a=a.label,
            b=b.label,
            n_a=a.vocab_size,
            n_b=b.vocab_size,
        )
    both = [(i, x, y) for i, (x, y) in enumerate(zip(a.pieces(), b.pieces(), strict=True)) if x and y]
    different = [(i, x, y) for i, x, y in both if x != y]
    if len(different) > (1 - _SAME_VOCABULARY) * len(both):
        raise UsageError(
            "{a} and {b} have different vocabularies ({n} of {total} tokens are other texts), so their logits cannot be compared."
            " Compare a model with a copy of itself.",
            a=a.label,
            b=b.label,
            n=len(different),
            total=len(both),
        )
    if different:
        i, x, y = different[0]
        report.findings.append(
            finding(
                "tokenizer",
                True,
                "The tokenizers differ: {n} tokens stand for other texts, the first is {id}: {x} and {y}.",
                n=len(different),
                id=i,
                x=_shown(x),
                y=_shown(y),
            )
        )


def _texts(a: Side, b: Side, report: Report) -> dict[str, list[int]]:
    prompts: dict[str, list[int]] = {}
    pieces = a.pieces()
    for name, text in TEXTS.items():
        ids_a, ids_b = a.encode(text), b.encode(text)
        first = first_difference(ids_a, ids_b)
        report.texts.append(Compared(name, len(ids_a), first))
        prompts[name] = ids_a
        if first is None:
            continue
        if name == CONTROL:
            report.findings.append(_control(a, b, ids_a, ids_b))
        elif not any(found.kind == "tokenizer" and "place" in found.params for found in report.findings):
            report.findings.append(
                finding(
                    "tokenizer",
                    True,
                    "The tokenizers differ: of the text {name!r}, token {place} is {x} and {y}.",
                    name=name,
                    place=first,
                    x=_at(ids_a, first, pieces),
                    y=_at(ids_b, first, pieces),
                )
            )
    return prompts


def _chats(a: Side, b: Side, report: Report) -> list[int] | None:
    """The ids of the first conversation, as A has them."""
    if not (a.has_template and b.has_template):
        if a.has_template or b.has_template:
            side = b.label if a.has_template else a.label
            report.findings.append(
                finding(
                    "left out", False, "{side} has no chat template that can be seen, so none was compared.", side=side
                )
            )
        return _encode_chat(a, "en") if a.has_template else None
    tokenizers_differ = any(found.kind == "tokenizer" for found in report.findings)
    pieces = a.pieces()
    for name in CHATS:
        ids_a, ids_b = _encode_chat(a, name), _encode_chat(b, name)
        if ids_a is None or ids_b is None:
            if ids_a != ids_b and not _found(report, "template"):
                report.findings.append(
                    finding(
                        "template",
                        True,
                        "The chat templates differ: only one of them takes the conversation {name!r}.",
                        name=name,
                    )
                )
            continue
        first = first_difference(ids_a, ids_b)
        report.chats.append(Compared(name, len(ids_a), first))
        if first is None or tokenizers_differ:
            continue
        if name == CONTROL:
            if not _found(report, "template") and not _found(report, "control"):
                report.findings.append(_control(a, b, ids_a, ids_b))
        elif not _found(report, "template"):
            report.findings.append(
                finding(
                    "template",
                    True,
                    "The chat templates differ: of the conversation {name!r}, token {place} is {x} and {y}.",
                    name=name,
                    place=first,
                    x=_at(ids_a, first, pieces),
                    y=_at(ids_b, first, pieces),
                )
            )
    return _encode_chat(a, "en") or _encode_chat(a, "zh")


def _template_texts(sources: tuple[Source | None, Source | None], report: Report) -> None:
    """Templates that wrote all conversations alike may still differ in what was not tried: tools, reasoning."""
    a, b = (source.template if source is not None else None for source in sources)
    if a is not None and b is not None and a.source.strip() != b.source.strip() and not _found(report, "template"):
        report.findings.append(
            finding(
                "template",
                False,
                "The texts of the chat templates differ, though they write these conversations alike; tools were not tried.",
            )
        )


def _encode_chat(side: Side, name: str) -> list[int] | None:
    try:
        return side.encode_chat(CHATS[name])
    except InvalidRequestError:  # a template that refuses system messages
        return None


def _control(a: Side, b: Side, ids_a: Sequence[int], ids_b: Sequence[int]) -> Finding:
    """One token where the other has the letters."""
    takes, spells = (a, b) if len(ids_a) < len(ids_b) else (b, a)
    return finding(
        "control",
        False,
        "Not the models, the programs differ here: where a user writes the text of a control token, {takes} takes it for the token"
        " itself, {spells} for ordinary text. Let nobody you do not trust write to {takes} directly.",
        takes=takes.label,
        spells=spells.label,
    )


def _logits(
    a: Side, b: Side, prompts: Mapping[str, Sequence[int]], report: Report, progress: Progress
) -> dict[str, Difference]:
    found: dict[str, Difference] = {}
    for done, (name, ids) in enumerate(prompts.items(), 1):
        logits = a.logits(ids), b.logits(ids)
        each = difference(*logits, normalised=a.normalised or b.normalised)
        if each is not None:
            found[name] = each
        for side, rows in zip((a, b), logits, strict=True):
            if not _finite(rows) and not _found(report, "not finite"):
                report.findings.append(
                    finding(
                        "not finite",
                        True,
                        "{side}: logits of the text {name!r} are not numbers.",
                        side=side.label,
                        name=name,
                    )
                )
        progress.advance(done)
    return found


def _finite(rows: Logits) -> bool:
    asked = rows[~np.isnan(rows).all(1)]
    return bool(len(asked)) and bool(np.isfinite(asked).all())


def _files(sources: tuple[Source | None, Source | None]) -> list[Finding]:
    a, b = sources
    if a is None or b is None:
        return []
    return compare_files(a, b)


def _judge(
    a: Side,
    b: Side,
    differences: list[Difference],
    sources: tuple[Source | None, Source | None],
    prompts: Mapping[str, Sequence[int]],
    explained: list[Finding],
) -> list[Finding]:
    """What the logits alone say; why is the files' to say."""
    total = figures(differences)
    if total.relative <= SAME:
        return []
    named = any(found.real for found in explained)
    first, early, late = by_half(differences)
    found: list[Finding] = []
    token, share = of_one_token(differences)
    if share > _ONE_TOKEN:
        found.append(
            finding(
                "weights",
                True,
                "{percent:.0f} % of the difference is in the logit of one token, {token} ({piece}): as if its row of the head were"
                " damaged.",
                percent=100 * share,
                token=token,
                piece=_shown(a.pieces()[token]),
            )
        )
    if first < 0.05 * late:
        found.append(
            finding(
                "positions",
                True,
                "The logits agree at the first token (rms {first:.2g}), then differ with the distance ({early:.2g} in the first"
                " half of the texts, {late:.2g} in the second): as if positions were told apart differently (rope base or scaling,"
                " window), or queries and keys were.",
                first=first,
                early=early,
                late=late,
            )
        )
    if found:
        return found
    if named:  # the files have said it better
        return []
    source = sources[0] or sources[1]
    if source is None:
        return [finding("logits", True, "The logits differ; without files it is not known by how much rounding would.")]
    normalised = a.normalised or b.normalised
    sticks = yardsticks(source, dict(list(prompts.items())[:2]), normalised=normalised, until=total.rms / _ROOM)
    like = next((kind for kind in LADDER if sticks.get(kind, 0.0) * _ROOM >= total.rms), None)
    coarsest = _coarsest(a, b, sources)
    if like is None or coarseness(like) > max(coarseness(coarsest), coarseness("bf16")):
        if like is None:
            stick = sticks[LADDER[-1]]
            return [
                finding(
                    "logits",
                    True,
                    "The logits differ (rms {rms:.2g}) by more than rounding explains ({stick:.2g} in {like}).",
                    rms=total.rms,
                    stick=stick,
                    like=LADDER[-1],
                )
            ]
        return [
            finding(
                "logits",
                True,
                "The logits differ (rms {rms:.2g}) as rounding to {like} would, but neither side is said to be that coarse.",
                rms=total.rms,
                like=like,
            )
        ]
    return [
        finding(
            "rounding",
            False,
            "The logits differ as rounding would (rms {rms:.2g}; the model differs from itself by {stick:.2g} in {like}).",
            rms=total.rms,
            stick=sticks[like],
            like=like,
        )
    ]


def _coarsest(a: Side, b: Side, sources: tuple[Source | None, Source | None]) -> Precision:
    """How coarse one of the sides is said to be: by what it computes in, and where the files keep numbers in different formats, by
    those too. Where both keep the same, theirs are the same numbers."""
    kept = {source.info.quantization for source in sources if source is not None}
    of_files = [precision_of(kind) for kind in kept] if len(kept) > 1 else []
    return max((a.precision, b.precision, *of_files), key=coarseness)


def _greedy(
    a: Side,
    b: Side,
    name: str,
    ids: Sequence[int],
    n: int,
    tie: float,
    allowed: bool,
    report: Report,
) -> None:
    tokens_a, tokens_b = a.greedy(ids, n), b.greedy(ids, n)
    place = first_difference(tokens_a, tokens_b)
    if place is None or place >= min(len(tokens_a), len(tokens_b)):  # one may stop at an end of text
        report.greedy.append(Greedy(name, min(len(tokens_a), len(tokens_b)), min(len(tokens_a), len(tokens_b))))
        return
    context = [*ids, *tokens_a[:place]]
    row_a, row_b = a.logits(context)[-1], b.logits(context)[-1]
    # of the two that were taken: what stands between them may be close to the best, and says nothing of them
    gap = float(row_a.max() - min(row_a[tokens_a[place]], row_a[tokens_b[place]]))
    report.greedy.append(Greedy(name, n, place, gap))
    # products of one row and of many are rounded differently, with weights of four bits by a lot
    noise = max(tie, _CACHE_ROOM * report.figures.rms if report.figures else 0.0)
    for side, row, token in ((a, row_a, tokens_a[place]), (b, row_b, tokens_b[place])):
        if float(row.max() - row[token]) > noise and likeliest(row) != token:
            report.findings.append(
                finding(
                    "cache",
                    True,
                    "{side} answers with {token} where its own logits, computed at once, prefer {best} by {gap:.2g}: its cache or"
                    " its steps are wrong.",
                    side=side.label,
                    token=_shown(a.pieces()[token]),
                    best=_shown(a.pieces()[likeliest(row)]),
                    gap=float(row.max() - row[token]),
                )
            )
            return
    # two logits, each off by the most that was seen
    explained = allowed and report.figures is not None and gap <= 2 * report.figures.max_abs
    report.findings.append(parted(not explained, name=name, place=place, gap=gap, tie=tie))


def _found(report: Report, kind: str) -> bool:
    return any(found.kind == kind for found in report.findings)


def _at(ids: Sequence[int], place: int, pieces: Sequence[bytes]) -> str:
    if place >= len(ids):
        return _("nothing")
    return f"{ids[place]} {_shown(pieces[ids[place]])}"


def _shown(piece: bytes) -> str:
    return repr(piece.decode("utf-8", errors="replace"))
