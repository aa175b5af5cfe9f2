"""The user's pip and uv settings decide where packages come from, as they would for pip and uv."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatwright.errors import PullError
from chatwright.hub.pipconfig import config_files, default_index, read_index_settings


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "xdg"), "PIP_CONFIG_FILE": os.devnull} | variables


def with_files(tmp_path: Path, **variables: str) -> dict[str, str]:
    base = environment(tmp_path, **variables)
    del base["PIP_CONFIG_FILE"]
    return base | variables


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_pypi_is_the_default(tmp_path: Path) -> None:
    settings = read_index_settings(environment(tmp_path))
    assert settings.indexes == (default_index(),)
    assert "pypi" in default_index()
    assert settings.find_links == ()


def test_environment_variables_of_pip(tmp_path: Path) -> None:
    settings = read_index_settings(
        environment(
            tmp_path,
            PIP_INDEX_URL="https://a/simple",
            PIP_EXTRA_INDEX_URL="https://b/simple  file:///c/simple",
            PIP_FIND_LINKS="/wheels",
            PIP_TRUSTED_HOST="a b:8080",
            PIP_PROXY="proxy:3128",
            PIP_DEFAULT_TIMEOUT="180",
            PIP_CERT="/ca.pem",
        )
    )
    assert settings.indexes == ("https://a/simple", "https://b/simple", "file:///c/simple")
    assert settings.find_links == ("/wheels",)
    assert settings.trusted_hosts == ("a", "b:8080")
    assert (settings.proxy, settings.timeout_s, settings.cert) == ("http://proxy:3128", 180, "/ca.pem")


def test_the_users_file_beats_the_global_one_and_the_environment_beats_both(tmp_path: Path) -> None:
    write(
        tmp_path / "xdg/pip/pip.conf",
        "[global]\nindex-url = https://global/simple\ntimeout = 5\nextra-index-url =\n  https://e1\n  https://e2\n",
    )
    write(tmp_path / ".config/pip/pip.conf", "[global]\nindex-url = https://user/simple\nproxy = http://p:1\n")
    settings = read_index_settings(with_files(tmp_path))
    assert settings.indexes == ("https://user/simple", "https://e1", "https://e2")
    assert (settings.timeout_s, settings.proxy) == (5, "http://p:1")
    assert read_index_settings(with_files(tmp_path, PIP_INDEX_URL="https://env")).indexes[0] == "https://env"


def test_the_section_of_the_command_beats_the_global_section(tmp_path: Path) -> None:
    file = write(
        tmp_path / "pip.conf",
        "[global]\nindex_url = https://g\n[download]\nindex-url = https://d\n[install]\nindex-url = https://i\n",
    )
    assert read_index_settings(environment(tmp_path, PIP_CONFIG_FILE=str(file))).indexes == ("https://d",)


def test_a_chosen_file_replaces_the_users_own(tmp_path: Path) -> None:
    write(tmp_path / ".pip/pip.conf", "[global]\nindex-url = https://user\n")
    chosen = write(tmp_path / "chosen.conf", "[global]\n")
    assert read_index_settings(with_files(tmp_path, PIP_CONFIG_FILE=str(chosen))).indexes[0] != "https://user"


def test_the_null_device_switches_all_files_off() -> None:
    assert list(config_files({"PIP_CONFIG_FILE": os.devnull})) == []


def test_no_index(tmp_path: Path) -> None:
    settings = read_index_settings(
        environment(tmp_path, PIP_NO_INDEX="true", PIP_INDEX_URL="https://a", PIP_FIND_LINKS="w")
    )
    assert settings.indexes == ()
    assert settings.find_links == ("w",)


def test_settings_of_uv(tmp_path: Path) -> None:
    settings = read_index_settings(
        environment(
            tmp_path, UV_DEFAULT_INDEX="https://main/simple", UV_INDEX="torch=https://t/whl https://u/simple?a=b"
        )
    )
    assert settings.indexes == ("https://main/simple", "https://t/whl", "https://u/simple?a=b")


def test_broken_settings_are_told_in_a_sentence(tmp_path: Path) -> None:
    file = write(tmp_path / "pip.conf", "index-url = x\n")
    with pytest.raises(PullError, match="cannot be read"):
        read_index_settings(environment(tmp_path, PIP_CONFIG_FILE=str(file)))
    with pytest.raises(PullError, match="not a number of seconds"):
        read_index_settings(environment(tmp_path, PIP_TIMEOUT="soon"))
