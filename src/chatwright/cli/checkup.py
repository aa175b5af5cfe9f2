"""The checks of `doctor`: each looks at one thing and returns what it found, with advice where something is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from chatwright import __version__
from chatwright.errors import ChatwrightError
from chatwright.hub import ModelsFolder
from chatwright.i18n import _, describe_error, format_size
from chatwright.machine import available_cores, cpu_flags, cpu_quota, memory_limit_bytes
from chatwright.settings import Settings, load_settings

Level = Literal["ok", "warn", "fail"]
_PACKAGES = (
    "torch",
    "numpy",
    "safetensors",
    "gguf",
    "tokenizers",
    "fastapi",
    "uvicorn",
    "openai",
    "huggingface-hub",
    "unearth",
)
_OPTIONAL = ("modelscope",)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_HF = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN")
_COMPUTE = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF")
_LEAST_DISK_BYTES = 2 * 10**9
_LEAST_MEMORY_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    topic: str
    level: Level
    text: str
    advice: str = ""


def check_all() -> list[Finding]:
    """Every check, in the order of a bug report. Problems are findings, never exceptions."""
    findings = [Finding("chatwright", "ok", __version__), _python(), _system(), *_processor(), _memory()]
    findings += [*_packages(), _torch(), _kernels(), _web_app()]
    try:
        settings = load_settings()
    except ChatwrightError as error:
        findings.append(
            Finding("settings", "fail", describe_error(error), _("Correct it; until then no command works."))
        )
    else:
        findings.append(Finding("settings", "ok", _("read without errors")))
        findings += [_home(settings), _disk(settings), *_models(settings), _port(settings)]
    return [*findings, *_environment()]


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _system() -> Finding:
    return Finding("system", "ok", f"{platform.platform()} {platform.machine()}")


def _processor() -> Iterator[Finding]:
    cores, quota = available_cores(), cpu_quota()
    limit = _(", limited to {quota:g} by the container", quota=quota) if quota else ""
    yield Finding("cpu", "ok", _("{cores} cores usable of {all}{limit}", cores=cores, all=os.cpu_count(), limit=limit))
    flags = cpu_flags()
    if flags:
        modern = {"avx2", "asimd"} & flags
        advice = "" if modern else _("Without AVX2 or NEON, answers will be slow.")
        yield Finding("cpu flags", "ok" if modern else "warn", " ".join(sorted(flags)), advice)


def _memory() -> Finding:
    import psutil

    limit, free = memory_limit_bytes(), psutil.virtual_memory().available
    text = _("{free} free of {limit}", free=format_size(min(free, limit)), limit=format_size(limit))
    if min(free, limit) < _LEAST_MEMORY_BYTES:
        return Finding("memory", "warn", text, _("Close other programs, or use a smaller model."))
    return Finding("memory", "ok", text)


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            advice = _("Install Chatwright again: `pip install --force-reinstall chatwright`.")
            yield Finding(name, "fail", _("not installed"), advice)
    for name in _OPTIONAL:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "ok", _("not installed (optional): `pip install 'chatwright[{name}]'`", name=name))


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding(
            "device", "fail", f"torch: {error}", _("Install PyTorch again; see pytorch.org for your system.")
        )
    threads = torch.get_num_threads()
    if torch.cuda.is_available():
        device = ", ".join(_gpu(i) for i in range(torch.cuda.device_count()))
        text = _(
            "{device}; CUDA {version}; {threads} threads", device=device, version=torch.version.cuda, threads=threads
        )
        # Say so until somebody has run tests/engine/test_cuda.py.
        advice = _("Experimental: Chatwright was never tested on a GPU. `CHATWRIGHT_DEVICE=cpu` leaves it alone.")
        return Finding("device", "warn", text, advice)
    device = "cpu"
    if torch.backends.mps.is_available():
        device = "mps"
    elif torch.version.cuda is None:
        device = _("cpu (this build of PyTorch knows no CUDA)")
    return Finding("device", "ok", _("{device}; {threads} threads", device=device, threads=threads))


def _gpu(index: int) -> str:
    """`NVIDIA H200 (12.3 GB free of 150 GB)`, or only its name where it does not tell, which a broken or a full one may not."""
    import torch

    name = torch.cuda.get_device_name(index)
    try:
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError:
        return name
    return f"{name} ({_('{free} free of {limit}', free=format_size(free), limit=format_size(total))})"


def _kernels() -> Finding:
    from chatwright.engine.kernels.library import Unavailable, load_kernels

    kernels = load_kernels()
    if isinstance(kernels, Unavailable):
        return Finding("kernels", "warn", kernels.reason, _("Without them PyTorch computes, several times slower."))
    return Finding("kernels", "ok", kernels.isa_name)


def _web_app() -> Finding:
    folder = Path(__file__).parent.parent / "web_dist"
    if (folder / "index.html").is_file():
        return Finding("web app", "ok", str(folder))
    return Finding("web app", "warn", _("not built"), _("In a clone, run `make web`; the API works without it."))


def _home(settings: Settings) -> Finding:
    home = settings.home
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        text = f"{home}: {error.strerror}"
        return Finding("home", "fail", text, _("Make it writable, or choose another one with CHATWRIGHT_HOME."))
    if home.exists() and os.name == "posix" and home.stat().st_mode & 0o077:
        return Finding("home", "warn", str(home), _("Others can look into it: `chmod 700 {path}`.", path=home))
    return Finding("home", "ok", str(home))


def _disk(settings: Settings) -> Finding:
    folder = settings.models_dir
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    text = _("{free} free in {path}", free=format_size(free), path=folder)
    if free < _LEAST_DISK_BYTES:
        return Finding("disk", "warn", text, _("Free some space before pulling a model."))
    return Finding("disk", "ok", text)


def _models(settings: Settings) -> Iterator[Finding]:
    from chatwright.model.describe import describe_model

    try:
        models = ModelsFolder(settings.models_dir).list()
    except ChatwrightError as error:
        yield Finding("models", "fail", describe_error(error))
        return
    if not models:
        yield Finding(
            "models", "warn", _("none"), _("`chatwright pull {name}` fetches one.", name=settings.default_model)
        )
    for model in models:
        try:
            info = describe_model(model.path)
        except ChatwrightError as error:
            advice = _("Remove it with `chatwright rm {name}`, and pull it again.", name=model.name)
            yield Finding("model", "fail", f"{model.name}: {describe_error(error)}", advice)
        else:
            yield Finding("model", "ok", f"{model.name} ({info.config.family}, {info.quantization})")


def _port(settings: Settings) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    where = f"{settings.host}:{settings.port}"
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            advice = _("Another program, perhaps a running Chatwright, has it: start with --port, or stop that one.")
            return Finding("port", "warn", f"{where}: {error.strerror}", advice)
    return Finding("port", "ok", _("{where} is free", where=where))


def _environment() -> Iterator[Finding]:
    for name in _PROXIES:
        if value := os.environ.get(name) or os.environ.get(name.lower()):
            yield Finding(name.lower(), "ok", value if name == "NO_PROXY" else _without_credentials(value))
    for name in (*_HF, *_COMPUTE):
        if value := os.environ.get(name):
            yield Finding(name, "ok", "***" if name == "HF_TOKEN" else _without_credentials(value))


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in url:
        return url
    if not parts.netloc:  # user:password@host:port without a scheme
        return "***@" + url.rpartition("@")[2]
    return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]).geturl()
