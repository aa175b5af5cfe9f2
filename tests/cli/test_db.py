"""`chatwright db`, as a user types it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from chatwright.cli.edge import run
from chatwright.cli.home import sole_server


@pytest.fixture(autouse=True)
def work_here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_from_nothing_to_a_backup_and_back(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "backup"]) == 1
    assert "no database" in capsys.readouterr().err
    assert run(["db", "upgrade"]) == 0
    assert "Made the database" in capsys.readouterr().err
    assert run(["db", "upgrade"]) == 0
    assert "is up to date" in capsys.readouterr().err
    assert run(["db", "backup"]) == 0
    backup = Path(capsys.readouterr().out.strip())
    assert backup.parent == home / "backups"
    assert run(["db", "backup", "here.db"]) == 0
    assert (tmp_path / "here.db").exists()
    assert run(["db", "backup", "here.db"]) == 2
    capsys.readouterr()
    assert run(["db", "restore", str(backup)]) == 2
    assert "--replace" in capsys.readouterr().err
    assert run(["db", "restore", str(backup), "--replace"]) == 0
    said = capsys.readouterr().err
    assert "is what the backup holds" in said
    assert "Keys that were revoked" in said, "what was ended since is not ended any more"
    assert run(["db", "restore", str(backup), "--replace", "--revoke"]) == 0
    assert "All its keys are revoked" in capsys.readouterr().err


def test_a_running_server_is_not_robbed_of_its_database(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["db", "upgrade"]) == 0
    assert run(["db", "backup", "b.db"]) == 0
    with sole_server(home, "http://127.0.0.1:8000"):
        for words in (["restore", "b.db", "--replace"], ["migrate-to", f"sqlite:///{tmp_path}/other.db"]):
            capsys.readouterr()
            assert run(["db", *words]) == 1
            assert "http://127.0.0.1:8000) uses this database: stop it" in capsys.readouterr().err
        assert run(["db", "backup", "beside.db"]) == 0


def test_moving_house_from_the_command_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["db", "upgrade"]) == 0
    assert run(["db", "migrate-to", f"sqlite:///{tmp_path}/other.db"]) == 0
    assert "Copied 0 rows" in capsys.readouterr().err
    with sqlite3.connect(tmp_path / "other.db") as other:
        assert other.execute("SELECT count(*) FROM users").fetchone() == (0,)
    for url in ("mysql://x/y", "postgresql", "sqlite://", "nonsense", "sqlite:///x?mode=ro"):
        assert run(["db", "migrate-to", url]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_the_password_of_the_database_is_never_shown(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATWRIGHT_DATABASE_URL", "postgresql://ann:geheim@127.0.0.1:1/x")
    for words in (["config"], ["config", "--json"], ["db", "upgrade"], ["db", "backup"], ["-v", "db", "upgrade"]):
        run(words)
        said = capsys.readouterr()
        assert "geheim" not in said.out + said.err, words
    assert run(["config", "--json"]) == 0
    settings = {row["setting"]: row["value"] for row in json.loads(capsys.readouterr().out)["settings"]}
    assert settings["database_url"] == "***"
