"""English and Chinese manuals out of Debian's packages, as a folder for `chatwright prepare`; nothing is installed.

    python -m examples.manuals FOLDER [--small]

`apt-get download` fetches the packages by name from whatever mirror the machine is set up for, `dpkg-deb` unpacks them into a
temporary folder, and the pages in the two languages are kept: html as it is, manual pages as plain text. About 75 MB are
downloaded; 28 MB of text come out, a third of it Chinese. `--small` takes the four smallest packages (2 MB, 0.6 MB of
text). The licences are the packages' own (GPL, GFDL, MPL, CC-BY-SA): FOLDER/licences holds them.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.roff import roff_to_text


@dataclass(frozen=True)
class Manual:
    """What to take out of a package: all html below `pages`, or all manual pages when that is a folder of them."""

    package: str
    language: str
    pages: str


SMALL = (
    Manual("debian-faq", "en", "usr/share/doc/debian/FAQ"),
    Manual("debian-faq-zh-cn", "zh", "usr/share/doc/debian/FAQ/zh-cn"),
    Manual("maint-guide", "en", "usr/share/doc/maint-guide/html"),
    Manual("maint-guide-zh-cn", "zh", "usr/share/doc/maint-guide-zh-cn/html"),
)
MANUALS = (
    *SMALL,
    Manual("debian-reference-en", "en", "usr/share/debian-reference"),
    Manual("debian-reference-zh-cn", "zh", "usr/share/debian-reference"),
    Manual("debian-handbook", "en", "usr/share/doc/debian-handbook/html/en-US"),
    Manual("debian-handbook", "zh", "usr/share/doc/debian-handbook/html/zh-CN"),
    Manual("installation-guide-amd64", "en", "usr/share/doc/installation-guide-amd64/en"),
    Manual("installation-guide-amd64", "zh", "usr/share/doc/installation-guide-amd64/zh_CN"),
    Manual("libreoffice-help-en-us", "en", "usr/share/libreoffice/help/en-US/text"),
    Manual("libreoffice-help-zh-cn", "zh", "usr/share/libreoffice/help/zh-CN/text"),
    Manual("aptitude-doc-en", "en", "usr/share/doc/aptitude/html/en"),
    Manual("developers-reference", "en", "usr/share/developers-reference"),
    Manual("git-doc", "en", "usr/share/doc/git-doc"),
    Manual("sqlite3-doc", "en", "usr/share/doc/sqlite3"),
    Manual("manpages", "en", "usr/share/man"),
    Manual("manpages-zh", "zh", "usr/share/man/zh_CN"),
)


class UnavailableError(Exception):
    """The packages can not be had on this machine; the message says what to do."""


def download(packages: Sequence[str], folder: Path) -> dict[str, Path]:
    """The packages' .deb files, by package."""
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise UnavailableError(
            f"{' and '.join(missing)} not found: these manuals come from Debian's and Ubuntu's packages. Elsewhere, give "
            "`chatwright prepare` any folder of documents of your own."
        )
    # apt's sandbox user may not write here; root's own rights are enough for a download.
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *packages]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise UnavailableError(f"apt-get download failed. Try `apt-get update` first. It said: {done.stderr.strip()}")
    return {file.name.partition("_")[0]: file for file in folder.glob("*.deb")}


def pages(root: Path, manual: Manual) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a manual's pages in an unpacked package."""
    top = root / manual.pages
    for path in sorted(top.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = "_".join(path.relative_to(top).parts)
        if path.suffix == ".html":
            yield name, path.read_bytes()
        elif path.suffix == ".gz" and "share/man" in manual.pages:
            text = roff_to_text(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
            if text.strip():
                yield f"{name.removesuffix('.gz')}.txt", text.encode()


def collect(folder: Path, manuals: Sequence[Manual] = MANUALS) -> int:
    """Fill FOLDER/en, FOLDER/zh and FOLDER/licences; returns the number of pages."""
    n_pages = 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        work = Path(temporary)
        files = download(sorted({manual.package for manual in manuals}), work)
        for manual in manuals:
            unpacked = work / manual.package
            if not unpacked.exists():
                subprocess.run(["dpkg-deb", "-x", files[manual.package], unpacked], check=True)
            into = work / "out" / manual.language / manual.package
            into.mkdir(parents=True)
            for name, content in pages(unpacked, manual):
                (into / name).write_bytes(content)
                n_pages += 1
            licence = work / "out" / "licences" / manual.package
            licence.parent.mkdir(exist_ok=True)
            shutil.copyfile(unpacked / "usr/share/doc" / manual.package / "copyright", licence)
        (work / "out").rename(folder)
    return n_pages


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.manuals", description="Manuals in English and Chinese.")
    parser.add_argument("folder", type=Path, help="the folder to make")
    parser.add_argument("--small", action="store_true", help="only the four smallest packages")
    chosen = parser.parse_args(arguments)
    if chosen.folder.exists():
        sys.exit(f"{chosen.folder} exists already: remove it, or name another folder.")
    try:
        n_pages = collect(chosen.folder.resolve(), SMALL if chosen.small else MANUALS)
    except UnavailableError as error:
        sys.exit(str(error))
    print(f"{n_pages} pages in {chosen.folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
