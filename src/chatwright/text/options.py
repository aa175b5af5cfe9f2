"""The options of a preparation: what is kept, dropped and held out. Equal options and inputs give equal datasets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from chatwright.errors import UsageError

DEFAULT_DOCUMENT_BYTES = 100_000
MIN_DOCUMENT_BYTES = 2_000
MAX_DOCUMENT_BYTES = 4_000_000
MIN_THRESHOLD = 0.5


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare` does. Raises UsageError for values out of range.

    held_out: share of the text; None: 5 %, and no more than 20 MB or less than a few rows (see `split`).
    languages: keep only these; empty: all. near_duplicates: estimated Jaccard similarity from which a row goes; None: keep them.
    max_document: bytes of UTF-8 above which a document is cut into parts; None: 100 kB, less for small corpora.
    """

    held_out: float | None = None
    seed: int = 0
    languages: tuple[str, ...] = ()
    near_duplicates: float | None = 0.8
    min_chars: int = 20
    max_document: int | None = None
    filters: bool = True
    mask: bool = False
    on_bad_row: Literal["skip", "stop"] = "skip"

    def __post_init__(self) -> None:
        _check("--held-out", self.held_out, 0.0, 0.9)
        _check("--near-duplicates", self.near_duplicates, MIN_THRESHOLD, 1.0)
        _check("--min-chars", self.min_chars, 0, 1_000_000)
        _check("--max-document", self.max_document, MIN_DOCUMENT_BYTES, MAX_DOCUMENT_BYTES)
        _check("--seed", self.seed, 0, 2**63 - 1)
        for language in self.languages:
            if not (language.isascii() and language.isalpha() and language.islower() and 2 <= len(language) <= 3):
                raise UsageError(
                    "--languages takes codes such as en or zh with commas between them, not {value!r}.", value=language
                )

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self) | {"languages": list(self.languages)}


def _check(option: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise UsageError(
            "{option} takes a number from {least} to {most}, not {value!r}.",
            option=option,
            least=least,
            most=most,
            value=value,
        )
