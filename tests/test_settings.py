"""Settings: which layer wins, where a value came from, and that nothing wrong is ever ignored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from chatwright.errors import StorageError, UsageError
from chatwright.machine import available_cores, available_memory_bytes, cpu_quota, memory_limit_bytes
from chatwright.settings import Settings, load_settings, make_private_folder, variable


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, and a working directory without `.env`."""
    for name in list(os.environ):
        if name.startswith("CHATWRIGHT_"):
            monkeypatch.delenv(name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("CHATWRIGHT_HOME", str(home))
    return home


def test_defaults_are_safe(home: Path) -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.api_key) == ("127.0.0.1", 8000, None)
    assert settings.home == home
    assert settings.models_dir == home / "models"
    assert settings.n_threads == available_cores()


def test_each_layer_beats_the_ones_below(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def port_and_origin(flags: dict[str, object]) -> tuple[int, str, str]:
        settings = load_settings(flags)
        origin = settings.origins()["port"]
        return settings.port, origin.layer, origin.where

    assert port_and_origin({}) == (8000, "default", "")
    (home / "config.toml").write_text("port = 8001\n")
    assert port_and_origin({}) == (8001, "file", str(home / "config.toml"))
    Path(".env").write_text("CHATWRIGHT_PORT=8002\nOTHER_PROGRAM=x\n")
    assert port_and_origin({}) == (8002, ".env", "CHATWRIGHT_PORT")
    monkeypatch.setenv("CHATWRIGHT_PORT", "8003")
    assert port_and_origin({}) == (8003, "environment", "CHATWRIGHT_PORT")
    assert port_and_origin({"port": "8004"}) == (8004, "flag", "--port")
    assert port_and_origin({"port": None})[0] == 8003


def test_home_moves_the_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.toml").write_text("port = 8009\n")
    assert load_settings({"home": tmp_path / "other"}).port == 8009


def test_settings_made_directly_read_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHATWRIGHT_PORT", "9999")
    assert Settings(home=tmp_path).port == 8000


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings(home=tmp_path).port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "abc", r'port = "abc" \(from CHATWRIGHT_PORT\) must be a number'),
        ("PORT", "70000", r"port = 70000 \(from CHATWRIGHT_PORT\) is out of range: it must be ≤ 65535"),
        ("MAX_QUEUE", "-1", "out of range"),
        ("READ_TIMEOUT_S", "0", "must be > 0"),
        ("READ_TIMEOUT_S", "nan", "out of range"),
        ("QUANTIZATION", "int3", "not one of the choices: auto, int8, int4, bf16, fp32"),
        ("DEVICE", "tpu", "not one of the choices: auto, cpu, cuda"),
        ("LANGUAGE", "fr", "not one of the choices: en, zh"),
        ("HSOT", "x", r"CHATWRIGHT_HSOT \(in the environment\) is not a setting. Did you mean CHATWRIGHT_HOST\?"),
        ("MEMORY_LIMIT", "much", r'memory_limit = "much" \(from CHATWRIGHT_MEMORY_LIMIT\) must be a number'),
        ("MEMORY_LIMIT", "-1GB", "must be a number"),
        ("OIDC_ISSUER", "http://login.example.org", "is not usable: .*https://"),
        ("OIDC_ISSUER", "https://login.example.org/?x=1", "is not usable"),
        ("OIDC_ISSUER", "https://user:word@login.example.org", "is not usable"),
        ("OIDC_ISSUER", "https://login.example.org", "both oidc_issuer and oidc_client_id"),
        ("OIDC_CLIENT_ID", "chatwright", "both oidc_issuer and oidc_client_id"),
        ("ZZZZZZ", "x", "is not a setting: `chatwright config` lists them all"),
    ],
)
def test_wrong_variables_are_told_in_a_sentence(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CHATWRIGHT_{name}", value)
    with pytest.raises(UsageError, match=sentence):
        load_settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 1", "prot .in .*config.toml. is not a setting. Did you mean port?"),
        ("port = [1", "is not valid TOML"),
        ("port = 'x'", "must be a number"),
        ("home = '/x'", "cannot set home"),
        ("[server]\nport = 1", "server .* is not a setting"),
        ("port = {a = 1}", "must be a number"),
    ],
)
def test_a_wrong_configuration_file_is_told_in_a_sentence(text: str, sentence: str, home: Path) -> None:
    (home / "config.toml").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        load_settings()


def test_a_wrong_dotenv_is_told_in_a_sentence() -> None:
    Path(".env").write_text("CHATWRIGHT_PROT=1\n")
    with pytest.raises(
        UsageError, match=r"CHATWRIGHT_PROT \(in \.env\) is not a setting\. Did you mean CHATWRIGHT_PORT"
    ):
        load_settings()
    Path(".env").write_bytes(b"CHATWRIGHT_HOST=\xff\n")
    with pytest.raises(UsageError, match="UTF-8"):
        load_settings()


def test_a_wrong_flag_is_named_as_a_flag() -> None:
    with pytest.raises(UsageError, match=r'port = "x" \(from --port\)'):
        load_settings({"port": "x"})


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_API_KEY", "hunter2")
    settings = load_settings()
    assert "hunter2" not in repr(settings) + str(settings.model_dump())
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "hunter2"


def test_no_secret_stands_in_what_is_said_about_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_OIDC_CLIENT_SECRET", "hunter2")
    for issuer in ("nonsense", "https://login.example.org"):
        monkeypatch.setenv("CHATWRIGHT_OIDC_ISSUER", issuer)
        with pytest.raises(UsageError) as refused:
            load_settings()
        assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("CHATWRIGHT_OIDC_CLIENT_ID", "chatwright")
    settings = load_settings()
    assert settings.oidc_issuer == "https://login.example.org"
    assert "hunter2" not in repr(settings) + str(settings.model_dump(mode="json"))


def test_a_key_file_is_read_without_its_line_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    monkeypatch.setenv("CHATWRIGHT_API_KEY_FILE", str(file))
    settings = load_settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "s3cret"
    assert settings.origins()["api_key"].where == "CHATWRIGHT_API_KEY_FILE"


def test_a_key_beats_a_key_file_of_a_weaker_layer(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text(f"api_key_file = '{tmp_path / 'absent'}'\n")
    monkeypatch.setenv("CHATWRIGHT_API_KEY", "direct")
    settings = load_settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "direct"


@pytest.mark.parametrize("content", [None, ""])
def test_a_useless_key_file_is_told_in_a_sentence(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    monkeypatch.setenv("CHATWRIGHT_API_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(UsageError, match="API key file"):
        load_settings()


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_CORS_ORIGINS", "http://a, http://b,")
    assert load_settings().cors_origins == ("http://a", "http://b")


def test_paths_are_absolute_and_know_the_home_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_MODELS_DIR", "~/models")
    assert load_settings().models_dir == Path.home() / "models"


def test_every_setting_has_a_variable() -> None:
    assert variable("max_queue") == "CHATWRIGHT_MAX_QUEUE"
    assert all(variable(name).isupper() for name in Settings.model_fields)


def test_new_folders_are_private(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be created"):
        make_private_folder(tmp_path / "file" / "x")


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_limits_of_a_container_are_respected(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == quota
    assert 1 <= available_cores(tmp_path) <= (os.cpu_count() or 1)
    if quota == 0.5:
        assert available_cores(tmp_path) == 1


def test_the_memory_limit_of_a_container_is_respected(tmp_path: Path) -> None:
    whole = memory_limit_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("1000000")
    assert memory_limit_bytes(tmp_path) == 1_000_000 < whole
    (tmp_path / "memory.max").write_text("max")
    assert memory_limit_bytes(tmp_path) == whole


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_API_KEY", "")
    monkeypatch.setenv("CHATWRIGHT_PORT", "")
    assert (load_settings().api_key, load_settings().port) == (None, 8000)


def test_an_empty_key_is_refused(home: Path) -> None:
    """A server that believes it has a key, and takes an empty one, would be open."""
    with pytest.raises(UsageError, match="api_key"):
        load_settings({"api_key": ""})
    (home / "config.toml").write_text('api_key = ""\n')
    with pytest.raises(UsageError, match="api_key"):
        load_settings()


def test_what_is_free_respects_the_container_and_counts_file_cache_as_free(tmp_path: Path) -> None:
    whole = available_memory_bytes(tmp_path)
    assert 0 < whole <= memory_limit_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700000\n")
    assert available_memory_bytes(tmp_path) == pytest.approx(whole, rel=0.2)
    (tmp_path / "memory.max").write_text("1000000\n")
    assert available_memory_bytes(tmp_path) == 300_000
    (tmp_path / "memory.stat").write_text("anon 400000\nfile 300000\ninactive_file 250000\nactive_file 50000\n")
    assert available_memory_bytes(tmp_path) == 550_000


@pytest.mark.parametrize(
    ("written", "n_bytes"),
    [("4GB", 4 * 10**9), ("1.5 gib", 3 * 2**29), ("512M", 512 * 10**6), ("123456", 123456), ("0", 0)],
)
def test_sizes_may_have_units(written: str, n_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_MEMORY_LIMIT", written)
    assert load_settings().memory_limit == n_bytes


def test_the_variable_that_chooses_kernels_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_KERNELS", "portable")
    assert load_settings().port == 8000
