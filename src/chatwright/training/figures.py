"""What the figures of a run are called by people, in reports and on the command line; files and JSON keep their keys."""

from __future__ import annotations

from chatwright.i18n import _

BEFORE = "_before"  # a figure as it was before the first step


def figure_name(name: str) -> str:
    """In the user's language: `bits_per_byte_zh` → "bits per byte (zh)"."""
    if name.endswith(BEFORE):
        return _("{figure}, before training", figure=figure_name(name.removesuffix(BEFORE)))
    known = {
        "bits_per_byte": _("bits per byte"),
        "perplexity": _("perplexity"),
        "loss": _("loss"),
        "accuracy": _("accuracy"),
        "margin": _("margin of the chosen answer"),
        "macro_f1": _("macro F1"),
        "token_f1": _("token F1 of answers"),
        "f1": "F1",
        "precision": _("precision of what was found"),
        "recall": _("share of what was to be found"),
        "lr": _("learning rate"),
        "grad_norm": _("gradient norm"),
        "tokens_per_s": _("tokens a second"),
        "answer_tokens_per_s": _("tokens of answers a second"),
        "texts_per_s": _("texts a second"),
        "pairs_per_s": _("pairs a second"),
    }
    for key, shown in known.items():
        if name == key:
            return shown
        if name.startswith(f"{key}_") and len(name) - len(key) <= 4:  # a language
            return f"{shown} ({name[len(key) + 1 :]})"
    return name
