"""The models folder: what lies there is listed, what is used is not removed, what is removed is gone at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chatwright.errors import InUseError, InvalidModelError, ModelNotFoundError, PullError
from chatwright.hub import ModelsFolder, pull


@pytest.fixture
def installed(models: ModelsFolder, tiny_folder: Path) -> str:
    return pull(str(tiny_folder), models, name="org/tiny:v1").name


def test_a_pulled_folder_is_listed_under_its_name(models: ModelsFolder, installed: str) -> None:
    (model,) = models.list()
    assert model.name == "org/tiny:v1"
    assert model.size_bytes > 1000


def test_a_folder_put_there_by_hand_is_a_model(models: ModelsFolder, tiny_folder: Path) -> None:
    models.root.mkdir(parents=True)
    (models.root / "mine").symlink_to(tiny_folder)
    assert [model.name for model in models.list()] == ["mine"]


def test_other_things_in_the_folder_are_no_models(models: ModelsFolder) -> None:
    for name in ("empty", ".hidden", "no name"):
        (models.root / name).mkdir(parents=True)
    (models.root / "file").write_text("x")
    assert models.list() == []


def test_no_folder_means_no_models(models: ModelsFolder) -> None:
    assert models.list() == []
    assert not models.root.exists()


def test_a_path_into_the_folder_means_the_model_there(models: ModelsFolder, installed: str) -> None:
    model = models.list()[0]
    assert models.resolve(str(model.folder), allow_path=True) == (installed, model.path)


def test_a_damaged_manifest_is_told_in_a_sentence(models: ModelsFolder, installed: str) -> None:
    (models.list()[0].folder / "chatwright.json").write_text("{")
    with pytest.raises(InvalidModelError, match="is damaged"):
        models.list()


def test_a_removed_model_is_gone(models: ModelsFolder, installed: str) -> None:
    models.remove(installed)
    assert models.list() == []
    assert not list(models.work.glob("removed-*"))
    with pytest.raises(ModelNotFoundError):
        models.remove(installed)


def test_an_interrupted_removal_is_finished_by_the_next_one(models: ModelsFolder, installed: str) -> None:
    (models.work / "removed-x").mkdir()
    models.remove(installed)
    assert not list(models.work.glob("removed-*"))


def test_a_model_in_use_is_not_removed_and_the_holder_is_named(models: ModelsFolder, installed: str) -> None:
    program = (
        "import sys; from pathlib import Path; from chatwright.hub import ModelsFolder\n"
        f"with ModelsFolder(Path({str(models.root)!r})).in_use({installed!r}, 'http://127.0.0.1:8000'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InUseError, match=rf"process {holder.pid} \(http://127.0.0.1:8000\)"):
        models.remove(installed)
    holder.kill()
    holder.communicate()
    models.remove(installed)  # what a killed process held is free
    assert models.list() == []


def test_a_model_may_be_used_twice_at_once(models: ModelsFolder, installed: str) -> None:
    with models.in_use(installed, "one"):
        with models.in_use(installed, "two"):
            pass
        with pytest.raises(InUseError, match="one"):
            models.remove(installed)
    models.remove(installed)


def test_a_model_that_has_just_been_removed_cannot_be_used(models: ModelsFolder) -> None:
    with pytest.raises(ModelNotFoundError), models.in_use("gone", "test"):
        pass


def test_symlinks_are_copied_as_files(models: ModelsFolder, tiny_folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for file in tiny_folder.iterdir():
        (linked / file.name).symlink_to(file)
    model = pull(str(linked), models)
    assert not any(file.is_symlink() for file in model.folder.iterdir())
    assert model.name == "snapshot"


def test_a_folder_with_only_pickles_is_refused(models: ModelsFolder, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(PullError, match="pickle"):
        pull(str(folder), models)
    assert models.list() == []


def test_pickles_and_code_beside_safetensors_are_left_behind(
    models: ModelsFolder, tiny_files: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, data in tiny_files.items():
        (folder / name).write_bytes(data)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    model = pull(str(folder), models)
    assert {file.suffix for file in model.folder.iterdir()}.isdisjoint({".bin", ".py"})


def test_a_file_that_is_no_model_is_refused(models: ModelsFolder, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 60)
    with pytest.raises(InvalidModelError):
        pull(str(broken), models)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(PullError, match="is not a model"):
        pull(str(tmp_path / "notes.txt"), models)
    assert models.list() == []
