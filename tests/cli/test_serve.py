"""serve: what it says when it starts, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from chatwright.cli.home import sole_server
from chatwright.cli.output import Output
from chatwright.cli.serve import announce, bind, is_loopback, languages_sentence, open_database
from chatwright.errors import ChatwrightError, InUseError
from chatwright.settings import Settings
from tests.cli.conftest import Run

Process = Callable[..., "subprocess.Popen[str]"]


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the process says on standard error until a line holds `text`."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it ended with {process.wait()} and never said {text!r}: {said}")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_says_where_and_cleans_up(process: Process, tiny: str, home: Path, how: signal.Signals) -> None:
    server = process("serve", tiny, "--port", "0")
    said = read_until(server, "Ctrl-C stops the server")
    note = json.loads((home / "server.json").read_text())
    assert note["pid"] == server.pid
    assert f"Chatwright is running: {note['url']}" in said
    assert "No key is needed; only this machine can connect." in said
    assert f"{note['url']}/docs" in said
    assert f"curl {note['url']}/v1/chat/completions" in said
    with urllib.request.urlopen(f"{note['url']}/v1/models", timeout=20) as answer:
        assert [model["id"] for model in json.load(answer)["data"]] == [tiny]

    second = process("serve", tiny, "--port", "0")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 1
    assert f"process {server.pid}" in err
    assert note["url"] in err
    removal = process("rm", tiny, "--yes")
    assert f"in use by process {server.pid} ({note['url']})" in removal.communicate(timeout=60)[1]

    server.send_signal(how)
    rest = server.communicate(timeout=60)[1]
    assert server.returncode == 0, rest
    assert "Traceback" not in rest
    assert not (home / "server.json").exists()
    assert (home / "chatwright.db").stat().st_mode & 0o077 == 0
    assert not list((home / "models" / ".work").glob("*.held"))


@pytest.mark.parametrize("flags", [(), ("--accounts",)])
def test_a_database_on_a_network_file_system_is_warned_of(
    process: Process, tiny: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    """In the very first start too, when there is no database yet. Only the list of what is mounted is made up."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(
        "import collections, psutil\n"
        "mount = collections.namedtuple('mount', 'mountpoint fstype')\n"
        f"mounts = [mount('/', 'ext4'), mount({str(home)!r}, 'nfs4')]\n"
        "psutil.disk_partitions = lambda all=False: mounts\n"
    )
    search = [str(tmp_path / "python"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, search)))
    server = process("serve", tiny, "--port", "0", *flags)
    said = read_until(server, "Ctrl-C stops the server")
    assert said.count("lies on a network file system (nfs4), where SQLite can be damaged") == 1, said
    assert str(home / "chatwright.db") in said
    server.send_signal(signal.SIGTERM)
    rest = server.communicate(timeout=60)[1]
    assert server.returncode == 0, rest


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_can_be_stopped_while_it_loads(
    process: Process, tiny: str, home: Path, how: signal.Signals, code: int
) -> None:
    server = process("serve", tiny, "--port", "0")
    read_until(server, "Loading")
    server.send_signal(how)
    rest = server.communicate(timeout=60)[1]
    assert server.returncode in (0, code), rest  # it may just have begun to serve
    assert "Traceback" not in rest
    assert not (home / "server.json").exists()


def test_a_killed_server_does_not_block_the_next_one(process: Process, tiny: str, home: Path) -> None:
    server = process("serve", tiny, "--port", "0")
    read_until(server, "Loading")
    server.kill()
    server.communicate()
    assert (home / "server.json").exists()
    with sole_server(home, "http://here"):
        assert json.loads((home / "server.json").read_text())["url"] == "http://here"


def test_one_server_a_home(home: Path) -> None:
    with sole_server(home, "http://first") as writable:
        assert writable
        with pytest.raises(InUseError, match="http://first"), sole_server(home, "http://second"):
            pass
    with sole_server(home, "http://third"):
        pass


def test_a_home_that_cannot_be_written_is_no_reason_not_to_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" / "home"
    with sole_server(home, "http://here") as writable:
        assert not writable
    database, token = open_database(Settings(home=home), Output())
    assert database is None
    assert token is None
    assert "What needs the database is off: " in capsys.readouterr().err
    with pytest.raises(ChatwrightError):
        open_database(Settings(home=home, accounts=True), Output())


def test_a_taken_port_is_told_with_a_free_one(command: Run, tiny: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = command("serve", tiny, "--port", str(port))
    assert result.code == 1
    assert f"Port {port} is taken" in result.err
    suggestion = int(result.err.split("--port ")[1].split("`")[0])
    with socket.create_server(("127.0.0.1", suggestion)):
        pass


def test_two_models_of_one_name_are_refused(command: Run, tiny: str) -> None:
    result = command("serve", tiny, tiny, "--port", "0")
    assert result.code == 2
    assert f"Two of the models are called {tiny}" in result.err


def test_a_name_that_no_table_holds_is_refused(command: Run, home: Path, tiny: str, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 201)
    shutil.copytree(home / "models" / tiny, folder)
    result = command("serve", str(folder), "--port", "0")
    assert result.code == 2
    assert "200 characters are the most" in result.err


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("box", False),
    ],
)
def test_what_only_this_machine_can_reach(host: str, private: bool) -> None:
    assert is_loopback(host) is private


async def test_no_token_waits_for_the_one_before_to_be_acknowledged() -> None:
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    sock = bind("127.0.0.1", 0)
    async with await asyncio.start_server(connected, sock=sock):
        _, writer = await asyncio.open_connection(*sock.getsockname())
        assert await accepted
        writer.close()


def test_languages_are_said_in_the_users_language(monkeypatch: pytest.MonkeyPatch) -> None:
    assert languages_sentence("m", ["en"]) == "m speaks English only."
    assert languages_sentence("m", ["en", "zh"]) == "m speaks English, Chinese."
    assert languages_sentence("m", []) == ""
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    assert languages_sentence("m", ["en"]) == "m 只会英语。"


@pytest.mark.parametrize(("quota", "said"), [(0.5, True), (1.0, False), (1.5, False), (None, False)])
def test_less_than_a_core_is_told(
    command: Run, tiny: str, monkeypatch: pytest.MonkeyPatch, quota: float | None, said: bool
) -> None:
    monkeypatch.setattr("chatwright.cli.serve.cpu_quota", lambda: quota)
    result = command("serve", tiny, tiny, "--port", "0")
    assert "Two of the models" in result.err  # it was on its way
    assert ("The container is limited to 0.5 of a CPU core" in result.err) is said
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    assert ("容器只能使用 0.5 个 CPU 核心" in command("serve", tiny, tiny, "--port", "0").err) is said


def test_whether_requests_are_moderated_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for settings in (Settings(), Settings(moderate=True)):
        announce("http://127.0.0.1:8000", [], settings, False, None, Output())
        assert ("Moderation is on" in capsys.readouterr().err) == settings.moderate
