"""What somebody says of a file that they send: its name, what it is for, how long it is kept."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import get_args

from openai.types import FilePurpose

from chatwright.errors import InvalidRequestError

LONGEST_NAME = 255
DAY_S = 86_400
SHORTEST_LIFE_S, LONGEST_LIFE_S = 3600, 30 * DAY_S
# As at OpenAI: what a batch has read is of no use any more.
LIFE_OF_PURPOSE_S = {"batch": 30 * DAY_S}

PURPOSES: tuple[str, ...] = tuple(get_args(FilePurpose))
# There is nothing here that looks at pictures.
UNSUPPORTED_PURPOSES = frozenset({"vision"})
# Files that the server makes, for whoever had it work.
RESULT_PURPOSES = frozenset({"fine-tune-results", "batch_output"})
# Files of lines of JSON: somebody's picture or spreadsheet is refused at once, a broken line when it is read.
PURPOSES_OF_LINES = frozenset({"fine-tune", "batch", "evals"})

# Of Unicode's control and format characters, which turn a name on a screen into another one.
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Description:
    """`lives_s`: seconds until the file is deleted; None: it stays."""

    purpose: str
    filename: str
    lives_s: int | None = None

    @classmethod
    def of_upload(cls, purpose: str | None, filename: str | None, lives_s: int | None) -> Description:
        """What a client said, checked. Raises InvalidRequestError."""
        if purpose is None:
            raise InvalidRequestError("Say what the file is for: the field purpose is missing.", param="purpose")
        if purpose not in PURPOSES:
            raise InvalidRequestError(
                "The purpose '{purpose}' is none that a file can have. Known: {purposes}.",
                purpose=purpose[:40],
                purposes=", ".join(sorted(set(PURPOSES) - UNSUPPORTED_PURPOSES)),
                param="purpose",
                code="invalid_value",
            )
        if purpose in UNSUPPORTED_PURPOSES:
            raise InvalidRequestError(
                "This server reads no pictures: files for the purpose '{purpose}' are of no use here.",
                purpose=purpose,
                param="purpose",
                code="unsupported_value",
            )
        if lives_s is not None and not SHORTEST_LIFE_S <= lives_s <= LONGEST_LIFE_S:
            raise InvalidRequestError(
                "A file expires after {shortest} to {longest} seconds.",
                shortest=SHORTEST_LIFE_S,
                longest=LONGEST_LIFE_S,
                param="expires_after",
                code="invalid_value",
            )
        return cls(purpose, clean_filename(filename or ""), lives_s or LIFE_OF_PURPOSE_S.get(purpose))


def clean_filename(name: str) -> str:
    """A name to be shown: without folders, control characters and what turns the direction of writing. It never reaches the file
    system of this machine; on the machine of whoever downloads the file it may."""
    last = re.split(r"[/\\]", UNFIT.sub("", name))[-1].strip()
    return last[:LONGEST_NAME] if last.strip(".") else "file"


def check_is_text(start: bytes, purpose: str, *, is_whole: bool) -> None:
    """Raise InvalidRequestError where a file that shall be lines of JSON cannot be, as its first bytes show. Broken lines are
    found, and named by their numbers, when the file is used."""
    if purpose not in PURPOSES_OF_LINES:
        return
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start, final=is_whole)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidRequestError(
            "A file for the purpose '{purpose}' is a text in UTF-8 with a JSON object on each line (JSONL). This one is not.",
            purpose=purpose,
            param="file",
            code="invalid_file_format",
        )
