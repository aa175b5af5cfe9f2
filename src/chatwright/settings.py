"""Every setting of Chatwright, in one frozen object: flag > environment > `.env` > `config.toml` > default.

`load_settings` reads the layers once at the edge of the process (the command line); everything else is handed the
`Settings` object. `Settings(...)` itself reads nothing, so a test or an embedding program gets exactly what it wrote.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self

import platformdirs
from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import EnvSettingsSource

from chatwright.errors import StorageError, UsageError
from chatwright.machine import available_cores

PREFIX = "CHATWRIGHT_"
# Which kernels compute, read where they are loaded, in every process (see engine/kernels/library.py).
NO_SETTINGS = frozenset({"CHATWRIGHT_KERNELS"})
CONFIG_FILE = "config.toml"
DATABASE_FILE = "chatwright.db"
_MIB = 2**20
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b?)", re.IGNORECASE)
SIZE_UNITS = {
    letter + ending: base**power
    for power, letter in enumerate("kmgt", 1)
    for ending, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}


@dataclass(frozen=True)
class Origin:
    """Where a value came from: which layer, and there the flag, variable or file."""

    layer: Literal["flag", "environment", ".env", "file", "default"]
    where: str = ""


def _split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 — resolve() would follow symlinks the user set up


def _bytes_of(value: object) -> object:
    """ "4GB", "512 MiB" as bytes; anything else as it is, for Pydantic to judge."""
    match = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(float(match[1]) * SIZE_UNITS[match[2].lower()]) if match else value


def _address(text: str) -> str:
    """A URL of scheme, host and port, without a slash at its end."""
    if not re.fullmatch(r"https?://[^\s/?#@]+/?", text):
        raise ValueError("it is no address such as https://chat.example.org")
    return text.rstrip("/")


def _issuer(text: str) -> str:
    """A URL that names an identity provider, letter by letter as the provider writes it; over TLS, but on this machine."""
    if not re.fullmatch(r"https://[^\s?#@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^\s?#@]*)?", text):
        raise ValueError("it is no address such as https://login.example.org")
    return text


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Settings(BaseSettings):
    """All settings. Sizes in bytes, times in seconds. Raises UsageError only through `load_settings`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX)

    home: AbsolutePath = Field(default_factory=lambda: Path(platformdirs.user_data_dir("chatwright", appauthor=False)))
    models_dir: AbsolutePath = Field(default_factory=lambda data: data["home"] / "models")

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: Annotated[SecretStr, Field(min_length=1)] | None = None
    api_key_file: AbsolutePath | None = None
    # For changing what a running server serves; without it `serve` makes one and prints it.
    admin_token: Annotated[SecretStr, Field(min_length=16)] | None = None
    # Everybody signs in. Also without it, once there is a user: accounts are not switched off by forgetting a flag.
    accounts: bool = False
    # How people reach the server through a proxy, for links and cookies: https://chat.example.org
    public_url: Annotated[str, AfterValidator(_address)] | None = None
    # Proxies whose X-Forwarded-For is believed, by address.
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)] = ()
    # Signing in through an identity provider (OpenID Connect) too, beside passwords. `oidc_name` is what the button says;
    # `oidc_new_users`: whoever the provider knows becomes a member, not only whom somebody invited.
    oidc_issuer: Annotated[str, Field(max_length=500), AfterValidator(_issuer)] | None = None
    oidc_client_id: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    oidc_client_secret: Annotated[SecretStr, Field(min_length=1)] | None = None
    oidc_name: str = Field(default="", max_length=50)
    oidc_new_users: bool = False
    # Without one: chatwright.db in the home folder. It may hold a password.
    database_url: Annotated[SecretStr, Field(min_length=1)] | None = None
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)] = ()

    default_model: str = Field(default="smollm2:135m", min_length=1)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d{1,2})?)$")
    quantization: Literal["auto", "int8", "int4", "bf16", "fp32"] = "auto"
    threads: int = Field(default=0, ge=0, le=1024)
    max_queue: int = Field(default=64, ge=0, le=100_000)
    max_batch: int = Field(default=32, ge=1, le=4096)
    # Lines of batches that are answered at once while nobody else asks; beside others it is one.
    batch_lines: int = Field(default=4, ge=1, le=1024)
    kv_cache_tokens: int = Field(default=65_536, ge=16)
    # Of all loaded models together, in bytes or as "4GB"; 0: most of what is free when the server starts.
    memory_limit: Annotated[int, BeforeValidator(_bytes_of)] = Field(default=0, ge=0)

    # Training jobs of the API: how many at once (0: none), and what each may use; 0: half of the threads, most of the free memory.
    max_jobs: int = Field(default=1, ge=0, le=64)
    job_threads: int = Field(default=0, ge=0, le=1024)
    job_memory: Annotated[int, BeforeValidator(_bytes_of)] = Field(default=0, ge=0)
    # Stands in the names of their results: ft:MODEL:ORGANIZATION:SUFFIX:ID.
    organization: str = Field(default="chatwright", pattern=r"^[A-Za-z0-9-]{1,40}$")

    # Harmful requests are refused and harmful answers ended (docs/en/moderation.md). `moderation_model`: the folder of one's own
    # classifier.
    moderate: bool = False
    moderation_model: AbsolutePath | None = None

    body_limit_bytes: int = Field(default=16 * _MIB, ge=1024)
    # Of one file, in one piece and in parts; of all files of one user.
    file_limit: Annotated[int, BeforeValidator(_bytes_of)] = Field(default=512 * _MIB, ge=1024)
    upload_limit: Annotated[int, BeforeValidator(_bytes_of)] = Field(default=8192 * _MIB, ge=1024)
    file_quota: Annotated[int, BeforeValidator(_bytes_of)] = Field(default=20_480 * _MIB, ge=0)
    # Of what programs of one user leave on /v1: responses, conversations, stored completions, evals.
    kept_quota: Annotated[int, BeforeValidator(_bytes_of)] = Field(default=4096 * _MIB, ge=0)
    header_timeout_s: float = Field(default=10.0, gt=0)
    read_timeout_s: float = Field(default=30.0, gt=0)
    write_timeout_s: float = Field(default=30.0, gt=0)
    graceful_timeout_s: float = Field(default=30.0, ge=0)

    language: Literal["en", "zh"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # "json": a line of JSON for each record and each request, for programs that collect logs.
    log_format: Literal["text", "json"] = "text"

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller wrote: the layers are read in `load_settings`, where their origin is known."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _read_api_key_file(cls, data: dict[str, Any]) -> dict[str, Any]:
        if data.get("api_key_file") and data.get("api_key") is None:
            path = _absolute(Path(data["api_key_file"]))
            try:
                key = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(
                    "The API key file {path} cannot be read ({reason}): correct api_key_file, or make the file "
                    "readable.",
                    path=path,
                    reason=error.strerror if isinstance(error, OSError) else "not UTF-8",
                ) from error
            if not key:
                raise UsageError("The API key file {path} is empty: write the key into it.", path=path)
            return data | {"api_key": key}
        return data

    @model_validator(mode="after")
    def _check_oidc(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise UsageError("An identity provider needs both oidc_issuer and oidc_client_id: set the other one too.")
        return self

    @property
    def packed_weights_dir(self) -> Path:
        """Where the engine keeps the weights as its kernels take them."""
        return self.home / "cache" / "weights"

    @property
    def n_threads(self) -> int:
        """How many threads computation uses: `threads`, or every core this process may use."""
        return self.threads or available_cores()

    def origins(self) -> dict[str, Origin]:
        """Field → where its value came from."""
        return {name: self._origins.get(name, Origin("default")) for name in type(self).model_fields}

    def with_origins(self, origins: Mapping[str, Origin]) -> Self:
        """The same settings, knowing where they came from."""
        self._origins.update(origins)
        return self


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + field.upper()


def database_is_named(settings: Settings) -> bool:
    """Whether there may be a database, as far as can be told without opening one."""
    file = settings.home / DATABASE_FILE
    # SQLite's first step in making a database is an empty file.
    return settings.database_url is not None or (file.exists() and file.stat().st_size > 0)


def load_settings(flags: Mapping[str, object] | None = None) -> Settings:
    """Read all layers. `flags`: settings given on the command line, None meaning not given.

    Raises UsageError for unknown keys and bad values, naming the key, the value and where it was written.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    layers: list[tuple[dict[str, Any], dict[str, Origin]]] = [
        (given, {key: Origin("flag", "--" + key.replace("_", "-")) for key in given}),
        _variables(os.environ, "environment"),
        _variables(_dotenv(Path(".env")), ".env"),
    ]
    home = next((values["home"] for values, _ in layers if "home" in values), None)
    home_path = _absolute(Path(str(home))) if home else Settings().home
    layers.append(_config_file(home_path / CONFIG_FILE))

    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for layer, layer_origins in layers:
        if "api_key" in values:  # a key in a stronger layer silences a key file in a weaker one
            layer = {key: value for key, value in layer.items() if key != "api_key_file"}
        if "api_key_file" in values:
            layer = {key: value for key, value in layer.items() if key != "api_key"}
        for key, value in layer.items():
            if key not in values:
                values[key], origins[key] = value, layer_origins[key]
    try:
        settings = Settings(**values)
    except ValidationError as error:
        _refuse_value(error, origins)
    if "api_key" not in origins and "api_key_file" in origins:
        origins["api_key"] = origins["api_key_file"]
    return settings.with_origins(origins)


def make_private_folder(path: Path) -> None:
    """Create a folder that only its user may enter (0700), missing parents likewise. Raises StorageError."""
    try:
        for folder in reversed([folder for folder in (path, *path.parents) if not folder.exists()]):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(
            "The folder {path} cannot be created ({reason}): choose one that you can write to with "
            "CHATWRIGHT_HOME or CHATWRIGHT_MODELS_DIR.",
            path=path,
            reason=error.strerror,
        ) from error


def _variables(
    environ: Mapping[str, str], layer: Literal["environment", ".env"]
) -> tuple[dict[str, Any], dict[str, Origin]]:
    names = {name.upper(): name for name in environ if name.upper().startswith(PREFIX)}
    for name in names:
        if layer == "environment" and name in NO_SETTINGS:
            continue
        if name.removeprefix(PREFIX).lower() not in Settings.model_fields:
            _refuse_key(names[name], variable, layer if layer == ".env" else "the environment")
    source = EnvSettingsSource(Settings)
    # An empty variable is one that is not set, as compose files write them.
    source.env_vars = {name.lower(): value for name, value in environ.items() if value}
    values = source()
    return values, {key: Origin(layer, variable(key)) for key in values}


def _dotenv(path: Path) -> dict[str, str]:
    try:
        return {key: value for key, value in dotenv_values(path, encoding="utf-8").items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "The file {path} cannot be read as UTF-8 text: correct or remove it.", path=path.absolute()
        ) from error


def _config_file(path: Path) -> tuple[dict[str, Any], dict[str, Origin]]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}, {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("The file {path} cannot be read as UTF-8 text: correct or remove it.", path=path) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError("{path} is not valid TOML: {reason}.", path=path, reason=error) from error
    for key in values:
        if key not in Settings.model_fields:
            _refuse_key(key, str, str(path))
        if key == "home":
            raise UsageError(
                "{path} cannot set home, as it lies in it: use the environment variable CHATWRIGHT_HOME.", path=path
            )
    return values, {key: Origin("file", str(path)) for key in values}


def _refuse_key(key: str, spell: Callable[[str], str], where: str) -> NoReturn:
    bare = key.lower().removeprefix(PREFIX.lower())
    for field in difflib.get_close_matches(bare, Settings.model_fields, n=1):
        raise UsageError(
            "{key} (in {where}) is not a setting. Did you mean {nearest}?", key=key, where=where, nearest=spell(field)
        )
    raise UsageError("{key} (in {where}) is not a setting: `chatwright config` lists them all.", key=key, where=where)


def _refuse_value(error: ValidationError, origins: Mapping[str, Origin]) -> NoReturn:
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else "settings"
    value = "***" if key in ("api_key", "admin_token", "database_url", "oidc_client_secret") else first["input"]
    where = origins[key].where if key in origins else "the program"
    if key in origins and origins[key].layer == ".env":
        where = f".env ({where})"
    context = first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            _refuse_key(key, str, where)
        case "literal_error":
            raise UsageError(
                '{key} = "{value}" (from {where}) is not one of the choices: {choices}.',
                key=key,
                value=value,
                where=where,
                choices=re.sub(r"'", "", str(context["expected"])).replace(" or ", ", "),
            ) from error
        case "string_pattern_mismatch":
            raise UsageError(
                '{key} = "{value}" (from {where}) is not one of the choices: {choices}.',
                key=key,
                value=value,
                where=where,
                choices="auto, cpu, cuda, cuda:0, mps",
            ) from error
        case "int_parsing" | "int_type" | "int_from_float" | "float_parsing" | "float_type" | "int_parsing_size":
            raise UsageError(
                '{key} = "{value}" (from {where}) must be a number.', key=key, value=value, where=where
            ) from error
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            sign = {"greater_than_equal": "≥", "greater_than": ">", "less_than_equal": "≤", "less_than": "<"}[
                first["type"]
            ]
            raise UsageError(
                "{key} = {value} (from {where}) is out of range: it must be {sign} {bound}.",
                key=key,
                value=value,
                where=where,
                sign=sign,
                bound=next(iter(context.values())),
            ) from error
        case _:
            raise UsageError(
                '{key} = "{value}" (from {where}) is not usable: {reason}.',
                key=key,
                value=value,
                where=where,
                reason=first["msg"],
            ) from error
