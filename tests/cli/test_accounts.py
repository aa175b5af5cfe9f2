"""`chatwright users` and `chatwright keys`, as an operator types them."""

from __future__ import annotations

import asyncio
import io
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatwright.cli.edge import run
from chatwright.settings import Settings
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import NOBODY, Actor
from chatwright.store.opening import opened
from tests.store.people import PASSWORD

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    def say(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = run(words)
        said = capsys.readouterr()
        return code, said.out.strip(), said.err

    return say


def actor_of(home: Path, key: str) -> Actor:
    async def look() -> Actor:
        async with opened(Settings(home=home), create=False) as database:
            accounts = Accounts(database)
            actor = await accounts.actor_of_key(key)
            await accounts.written()
            return actor

    return asyncio.run(look())


def sign_in(home: Path, email: str, password: str) -> str:
    async def look() -> str:
        async with opened(Settings(home=home), create=False) as database:
            return (await Accounts(database).sign_in(email, password, "a"))[0].role

    return asyncio.run(look())


def test_users_come_and_go(home: Path, say: Say) -> None:
    assert say("users", "ls")[0] == 1
    code, _, err = say("users", "add", "ann@example.org", "--password", stdin=PASSWORD + "\n")
    assert (code, "can sign in" in err) == (0, True)
    assert sign_in(home, "ann@example.org", PASSWORD) == "owner"
    code, link, err = say("users", "add", "li@example.org", "--name", "李雷")
    assert code == 0
    assert link.startswith("http://127.0.0.1:8000/#welcome=")
    code, second, _ = say("users", "link", "li@example.org")
    assert second != link
    listed = json.loads(say("users", "ls", "--json")[1])
    assert [(user["email"], user["role"], user["status"]) for user in listed] == [
        ("ann@example.org", "owner", "active"),
        ("li@example.org", "member", "invited"),
    ]
    assert "李雷" in say("users", "ls")[1]
    assert say("users", "add", "ann@example.org")[0] == 1
    assert say("users", "add", "nonsense")[0] == 1
    assert say("users", "add", "x@example.org", "--role", "god")[0] == 2
    assert say("users", "add", "weak@example.org", "--password", stdin="short\n")[0] == 1
    assert say("users", "role", "li@example.org", "admin")[0] == 0
    for words in (("suspend",), ("rm", "--yes"), ("role", "ann@example.org", "member")):
        email = () if "ann@example.org" in words else ("ann@example.org",)
        code, _, err = say("users", *words, *email)
        assert code == 1
        assert "last owner" in err
    assert say("users", "suspend", "nobody@example.org")[0] == 1
    assert say("users", "suspend", "li@example.org")[0] == 0
    assert say("users", "resume", "li@example.org")[0] == 0
    assert say("users", "rm", "li@example.org", stdin="n\n")[0] == 0
    assert len(json.loads(say("users", "ls", "--json")[1])) == 2
    assert say("users", "rm", "li@example.org", "-y")[0] == 0
    assert len(json.loads(say("users", "ls", "--json")[1])) == 1


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_commands_for_several_people_work_as_the_readme_has_them(say: Say, readme: str) -> None:
    text = (Path(__file__).parents[2] / readme).read_text(encoding="utf-8")
    block = next(block for block in text.split("```bash\n")[1:] if block.startswith("chatwright users add")).split(
        "```"
    )[0]
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert commands[-1] == ["serve", "--accounts"]
    assert len(commands) > 3
    for words in commands[:-1]:
        assert say(*words, stdin=PASSWORD + "\n")[0] == 0, words
    assert json.loads(say("limits", "ls", "--json")[1])[0]["user"] == "li@example.org"


def test_who_is_told_that_servers_ask_everybody_to_sign_in(say: Say) -> None:
    assert "restart one" in say("users", "add", "ann@example.org")[2]
    assert "restart one" not in say("users", "add", "li@example.org")[2], "accounts are on since the first"


def test_keys_come_and_go(home: Path, say: Say) -> None:
    say("users", "add", "ann@example.org", "--password", stdin=PASSWORD + "\n")
    code, key, err = say("keys", "add", "laptop", "--expires", "90d", "--scope", "inference", "--scope", "files")
    assert code == 0
    assert "not shown again" in err
    assert {scope.value for scope in actor_of(home, key).scopes} == {"inference", "files"}
    [row] = json.loads(say("keys", "ls", "--json")[1])
    assert row["expires_at"] - 90 * 86_400 <= row["created_at"]
    assert "-".join(key.split("-")[:3]) + "-…" in say("keys", "ls")[1], "by what is seen of a key it is found"
    for listing in (say("keys", "ls")[1], say("keys", "ls", "--json")[1]):
        assert key not in listing
        assert key.split("-")[3] not in listing
    assert say("keys", "revoke", row["id"])[0] == 0
    assert actor_of(home, key) is NOBODY
    assert say("keys", "revoke", "key-none")[0] == 1
    for wrong in (("--expires", "soon"), ("--expires", "0d"), ("--scope", "everything")):
        assert say("keys", "add", "x", *wrong)[0] == 2
    assert say("keys", "add", "")[0] == 1
    say("users", "add", "li@example.org")
    assert say("keys", "add", "x")[0] == 2, "whose?"
    code, _out, err = say("keys", "add", "x", "--user", "li@example.org")
    assert code == 1, "who was only invited has no keys"
    assert "li@example.org has not chosen a password yet" in err
    code, second, _ = say("keys", "add", "x", "--user", "ann@example.org", "--json")
    assert actor_of(home, json.loads(second)["key"]).user_id is not None
    assert say("users", "add", "bob@example.org", "--password", stdin=PASSWORD + "\n")[0] == 0
    assert say("keys", "add", "x", "--user", "bob@example.org", "--scope", "admin")[0] == 1, (
        "members administer nothing"
    )
    assert [row["name"] for row in json.loads(say("keys", "ls", "--user", "bob@example.org", "--json")[1])] == []
