"""Names of models: what a name may look like, and which folder it means.

A name is `NAME`, `NAME:TAG`, `ORG/NAME` or `ORG/NAME:TAG`, in ASCII. No path out of the models folder can be
written that way, on any operating system (CVE-2024-37032 and its kin), so a name from a request never is a path.
"""

from __future__ import annotations

import re

from chatwright.errors import ModelNotFoundError

# What the tables of the store hold, PostgreSQL's to the letter, and what requests may say.
LONGEST_NAME = 200
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_NAME = re.compile(rf"(?:(?P<org>{_PART})/)?(?P<name>{_PART})(?::(?P<tag>{_PART}))?", re.ASCII)
# Windows gives these names to devices, whatever their extension.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE | re.ASCII)


def is_name(text: str) -> bool:
    """Whether `text` is a well-formed model name. Nothing is looked up."""
    match = _NAME.fullmatch(text)
    return (
        match is not None
        and len(text) <= LONGEST_NAME
        and not any(".." in part or _DEVICES.fullmatch(part) for part in match.groups() if part is not None)
    )


def check_name(text: str) -> str:
    """`text` itself. Raises ModelNotFoundError when it is not a well-formed name."""
    if not is_name(text):
        raise ModelNotFoundError(
            "{name!r} is not a model name: names look like smollm2:135m or ORG/NAME, in letters, digits, dots, dashes "
            "and underscores.",
            name=text[:200],
        )
    return text


def folder_of(name: str) -> str:
    """The folder of a name: '/' and ':' become '+' and '@', which names do not contain, so it can be undone."""
    return check_name(name).replace("/", "+").replace(":", "@")


def name_of(folder: str) -> str | None:
    """The name whose folder this is; None for a folder that is no model's (hidden, or strangely named)."""
    name = folder.replace("+", "/", 1).replace("@", ":", 1)
    return name if is_name(name) else None


def name_from(text: str) -> str:
    """A well-formed name made from a file's or folder's name, for models pulled from a path; '' if nothing is left."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:96]
    name = re.sub(r"\.{2,}", ".", name).strip("-._")
    return name if is_name(name) else ""
