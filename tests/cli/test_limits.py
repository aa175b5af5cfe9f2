"""`chatwright limits` and `chatwright usage`, as an operator types them."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatwright.cli.edge import run
from chatwright.settings import Settings
from chatwright.store import clock
from chatwright.store.opening import opened
from chatwright.store.usage.ledger import Entry, Tokens, settle
from chatwright.store.usage.payer import Payer
from chatwright.store.usage.times import DAY
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


def test_limits_come_and_go(say: Say) -> None:
    say("users", "add", "ann@example.org", "--password", stdin=PASSWORD + "\n")
    key = json.loads(say("keys", "add", "laptop", "--json")[1])["id"]
    assert say("limits", "set", "--user", "ann@example.org", "--tokens-per-month", "1000000")[0] == 0
    assert say("limits", "set", "--key", key, "--concurrent", "4", "--requests-per-minute", "60")[0] == 0
    assert say("limits", "set", "--model", "smollm2:135m", "--tokens-per-minute", "0")[0] == 0
    assert say("limits", "set", "--key", key, "--concurrent", "none")[0] == 0
    rows = json.loads(say("limits", "ls", "--json")[1])
    # Those of one second come in any order.
    rows.sort(key=lambda row: (row["model"] is not None, row["key_name"] is not None))
    assert [(row["user"], row["key_name"], row["model"]) for row in rows] == [
        ("ann@example.org", None, None),
        (None, "laptop", None),
        (None, None, "smollm2:135m"),
    ]
    assert (rows[1]["concurrent_requests"], rows[1]["requests_per_minute"]) == (None, 60)
    assert rows[2]["tokens_per_minute"] == 0
    shown = say("limits", "ls")[1]
    assert "1,000,000" in shown
    assert f"the key laptop ({key})" in shown
    assert say("limits", "rm", "--key", key)[0] == 0
    assert say("limits", "rm", "--key", key)[0] == 1
    assert say("limits", "set", "--user", "ann@example.org", "--tokens-per-month", "none")[0] == 0
    assert [row["model"] for row in json.loads(say("limits", "ls", "--json")[1])] == ["smollm2:135m"]


def test_a_model_is_limited_before_there_is_an_account(say: Say) -> None:
    code, _, err = say("limits", "set", "--model", "m", "--concurrent", "2")
    assert code == 0
    assert "No model called m is here" in err
    assert "No model" not in say("limits", "set", "--model", "ft:m:own::1", "--concurrent", "2")[2]
    assert "the model m" in say("limits", "ls")[1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("set", "--model", "m"), 2),
        (("set", "--concurrent", "2"), 2),
        (("set", "--model", "m", "--key", "k", "--concurrent", "2"), 2),
        (("set", "--model", "m", "--concurrent", "-1"), 2),
        (("set", "--model", "m", "--concurrent", "many"), 2),
        (("set", "--model", "m", "--concurrent", "1.5"), 2),
        (("set", "--model", "m", "--tokens-per-month", "1" + "0" * 16), 2),
        (("set", "--key", "none", "--concurrent", "2"), 1),
        (("set", "--user", "nobody@example.org", "--concurrent", "2"), 1),
        (("rm", "--model", "m"), 1),
        (("rm",), 2),
    ],
)
def test_what_makes_no_sense_is_said(say: Say, words: tuple[str, ...], code: int) -> None:
    say("limits", "set", "--model", "other", "--concurrent", "2")
    got, out, err = say("limits", *words)
    assert (got, out) == (code, "")
    assert err
    assert "Traceback" not in err
    assert len(json.loads(say("limits", "ls", "--json")[1])) == 1


def test_usage_is_shown_by_what_one_asks_for(home: Path, say: Say) -> None:
    say("users", "add", "ann@example.org", "--password", stdin=PASSWORD + "\n")
    [ann] = [user["id"] for user in json.loads(say("users", "ls", "--json")[1])]
    now = clock.now()

    async def fill() -> None:
        async with opened(Settings(home=home), create=False) as database, database.write() as session:
            await settle(
                session,
                [
                    Entry(Payer(user, ""), model, "completions", now - back * DAY, 0, Tokens(100, 40, 7))
                    for user in (ann, "user-gone", "")
                    for model in ("a", "b")
                    for back in (0, 1, 40)
                ],
            )

    asyncio.run(fill())
    rows = json.loads(say("usage", "--json")[1])
    assert [(row["model"], row["requests"], row["input_tokens"], row["cached_tokens"]) for row in rows] == [
        (model, 3, 300, 120) for model in ("a", "b", "a", "b")
    ]
    assert rows[0]["day"] < rows[2]["day"]
    by_user = json.loads(say("usage", "--by", "user", "--days", "41", "--json")[1])
    assert {row["user"]: row["output_tokens"] for row in by_user} == {"ann@example.org": 42, "user-gone": 42, None: 42}
    one = json.loads(say("usage", "--user", "ann@example.org", "--model", "a", "--days", "1", "--json")[1])
    assert [row["requests"] for row in one] == [1]
    table = say("usage", "--by", "user,key,model", "--days", "1")[1]
    assert "ann@example.org" in table
    assert "user-gone" in table
    for words in (("--by", "week"), ("--days", "0"), ("--days", "x")):
        assert say("usage", *words)[0] == 2
    assert say("usage", "--user", "nobody@example.org")[0] == 1
