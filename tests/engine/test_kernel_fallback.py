"""Without kernels, or with some of another version, PyTorch computes, and a sentence says why; what needs them is refused."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatwright.engine.kernels import library
from chatwright.engine.kernels.library import Kernels, Unavailable, load_kernels
from chatwright.engine.load import load_text_model
from chatwright.engine.runner import ModelRunner
from chatwright.errors import UsageError
from chatwright.settings import Settings
from tests.server.tiny import make_model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("fallback") / "tiny")


@pytest.fixture(params=["stale", "older than its number", "broken", "absent", "off", "no such instructions"])
def without_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A machine without usable kernels; what the sentence must say."""
    path, said = tmp_path / "libchatwright_kernels.so", ""
    match request.param:
        case "stale" | "older than its number":
            compiler = shutil.which("c++")
            assert compiler, "the kernels were compiled here, so a compiler is here"
            body = "int cw_abi() { return 999; }" if request.param == "stale" else "int cw_something() { return 1; }"
            (tmp_path / "kernels.cpp").write_text(f'extern "C" {body}')
            subprocess.run([compiler, "-shared", "-fPIC", str(tmp_path / "kernels.cpp"), "-o", str(path)], check=True)
            said = "another version (999" if request.param == "stale" else "can not be loaded"
        case "broken":
            path.write_bytes(b"not a library")
            said = "can not be loaded"
        case "absent":
            said = "not installed"
        case "off":
            monkeypatch.setenv(library.VARIABLE, "off")
            said = "switched off"
        case "no such instructions":
            monkeypatch.setenv(library.VARIABLE, "mmx")
            said = "has only"
    if request.param in ("stale", "older than its number", "broken"):
        monkeypatch.setattr(library, "library_path", lambda: path)
    if request.param == "absent":
        monkeypatch.setattr(library, "library_path", lambda: None)
    load_kernels.cache_clear()
    yield said
    monkeypatch.undo()
    load_kernels.cache_clear()


async def test_pytorch_answers_in_their_place_and_a_sentence_says_why(
    without_kernels: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_text_model(folder, "tiny", Settings(threads=1, device="cpu"))
    try:
        assert isinstance(model.engine._runner, ModelRunner)  # type: ignore[attr-defined]
        assert "runs on PyTorch, several times slower" in caplog.text
        assert without_kernels in caplog.text
        assert len(await model.engine.score([5, 6, 7])) == 3
    finally:
        await model.close()


def test_what_needs_them_is_refused_with_the_reason(without_kernels: str, folder: Path) -> None:
    for quantization in ("int8", "int4"):
        with pytest.raises(UsageError, match="need the compiled kernels") as refused:
            load_text_model(folder, "tiny", Settings(threads=1, device="cpu", quantization=quantization))
        assert without_kernels in str(refused.value)


def test_each_instruction_set_of_this_processor_can_be_forced_and_the_best_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A processor with AVX-512 and no VNNI has all but the first; one without AVX2 has the last one, which every processor has."""
    path = library.library_path()
    assert path is not None
    best = library.open_library(path)
    assert isinstance(best, Kernels)
    names = []
    while name := best.c.cw_isa_name(len(names)):
        names.append(name.decode())
    usable = [name for i, name in enumerate(names) if best.c.cw_isa_usable(i)]
    assert (best.isa_name, usable[-1]) == (usable[0], "portable")
    for name in names:
        monkeypatch.setenv(library.VARIABLE, name)
        found = load_kernels.__wrapped__()
        assert isinstance(found, Kernels if name in usable else Unavailable), name
