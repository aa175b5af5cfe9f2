"""No name leads out of the models folder, on any operating system."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.errors import ModelNotFoundError
from chatwright.hub import ModelsFolder, check_name, is_name
from chatwright.hub.names import folder_of, name_from, name_of

GOOD = ["smollm2:135m", "gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct", "org/name:Q4_K_M", "a", "my_model.v2", "x" * 96,
        f"{'o' * 60}/{'n' * 60}:{'t' * 78}"]  # fmt: skip
EVIL = [
    "", ".", "..", "../x", "a/../b", "a/b/c", "/etc/passwd", "\\windows", "a\\b", "..\\x", "C:\\x", "C:", "c:/x", "//host/share",
    "%2e%2e", "%2e%2e%2fetc", "a%00", "a\0", "a\0.gguf", "\0", "a\n", "a\nb", "a b", " a", "a ", "~", "~root", "$HOME", "a*",
    "a?b", "-rf",
    ".hidden", "a.", "a./b", "a/.", "a/..", "a//b", "a:b:c", "a:", ":a", "a/", "/a", "CON", "con.txt", "nul",
    "org/COM1", "lpt9.gguf", "a:aux",
    "．．/x", "a／b", "ａ", "模型", "é", "\u202eabc", "a\u200b", "٣", "x" * 97, "a..b", "a+b", "a@b",
    f"{'o' * 60}/{'n' * 60}:{'t' * 79}",
    "\ud800", "a\r", "a\t", "file:a", "chatwright.json\x00",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name: str) -> None:
    assert check_name(name) == name
    assert name_of(folder_of(name)) == name


@pytest.mark.parametrize("name", [name for name in EVIL if name != "file:a"])
def test_evil_names_never_reach_the_file_system(
    name: str, models: ModelsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_name(name)

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("the file system was asked")

    for operation in ("exists", "is_file", "is_dir", "stat", "glob", "open", "read_bytes"):
        monkeypatch.setattr(Path, operation, touched)
    assert models.find(name) is None
    with pytest.raises(ModelNotFoundError):
        models.resolve(name, allow_path=False)
    with pytest.raises(ModelNotFoundError):
        models.remove(name)


@given(st.text() | st.from_regex(r"[A-Za-z0-9._:/\\%+@-]{1,40}", fullmatch=True))
def test_whatever_is_a_name_is_one_folder_inside(name: str) -> None:
    if not is_name(name):
        return
    folder = folder_of(name)
    for path in (PurePosixPath("/root") / folder, PureWindowsPath("C:/root") / folder):
        assert path.parent == type(path)("/root" if isinstance(path, PurePosixPath) else "C:/root")
        assert path.name == folder
    assert name_of(folder) == name


@given(st.text())
def test_a_name_made_from_a_file_is_a_name_or_nothing(text: str) -> None:
    made = name_from(text)
    assert made == "" or is_name(made)


def test_a_path_is_a_model_only_where_paths_are_allowed(models: ModelsFolder, tiny_folder: Path) -> None:
    assert models.resolve(str(tiny_folder), allow_path=True) == ("model", tiny_folder)
    with pytest.raises(ModelNotFoundError):
        models.resolve(str(tiny_folder), allow_path=False)
