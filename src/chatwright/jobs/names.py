"""What results are called: `ft:BASE:ORGANIZATION:SUFFIX:ID`, and `…:ckpt-step-N` for a checkpoint of it."""

from __future__ import annotations

import re
import unicodedata

from chatwright.hub.names import LONGEST_NAME as LONGEST_SERVED_NAME
from chatwright.store.ids import random_text

PREFIX = "ft:"
ID_LETTERS = 8
LONGEST_SUFFIX = 64
# Longer than any that is made here, and than those that were made once.
LONGEST_NAME = 400
# The longest ending of a checkpoint, see below.
_LONGEST_STEP = len(":ckpt-step-") + 9
_CHECKPOINT = re.compile(r"(?P<model>ft:.+):ckpt-step-(?P<step>0|[1-9]\d{0,8})", re.ASCII)


def new_model_name(base: str, organization: str, suffix: str) -> str:
    """A name that no other result has. `suffix`: see `clean_suffix`. Its checkpoints' names are no longer than names of models may
    be: where there is not room enough the suffix is cut, then the base's name. The job knows both."""
    room = LONGEST_SERVED_NAME - len(f"{PREFIX}:{organization}::") - ID_LETTERS - _LONGEST_STEP
    base = base[:room]
    suffix = suffix[: room - len(base)].rstrip("-")
    return f"{PREFIX}{base}:{organization}:{suffix}:{random_text(ID_LETTERS)}"


def clean_suffix(text: str) -> str:
    """What of a suffix can stand in a name: letters and digits of any script; everything between them becomes a dash."""
    return re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", text)).strip("-")[:LONGEST_SUFFIX]


def is_result_name(name: str) -> bool:
    """Whether it looks like the name of a result. Nothing is looked up."""
    # PostgreSQL fails on some texts instead of finding nothing.
    return name.startswith(PREFIX) and len(name) <= LONGEST_NAME and name.isprintable()


def split_checkpoint(name: str) -> tuple[str, int | None]:
    """(name of the result, step of the checkpoint); no step where it is the result itself."""
    match = _CHECKPOINT.fullmatch(name)
    return (match["model"], int(match["step"])) if match else (name, None)


def checkpoint_model(model: str, step: int) -> str:
    """The name of a checkpoint."""
    return f"{model}:ckpt-step-{step}"
