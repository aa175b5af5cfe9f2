"""`serve` with accounts: from the printed link to a key that answers, and that nothing switches them off again."""

from __future__ import annotations

import io
import sqlite3
import sys
from pathlib import Path

import httpx
import openai
import pytest

from tests.cli.conftest import Run
from tests.cli.served import PATIENCE_S, Serve, served
from tests.store.people import PASSWORD

__all__ = ["served"]


def client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S, headers={"Origin": url})


def test_from_the_first_start_to_a_key_that_answers(served: Serve, tiny: str, command: Run, home: Path) -> None:
    server = served(tiny, "--accounts")
    assert "Everybody signs in" in server.said
    link = server.said.split("within three days: ")[1].split()[0]
    assert link.startswith(f"{server.url}/#welcome=")
    assert (home / "chatwright.db").stat().st_mode & 0o777 == 0o600
    with client(server.url) as http:
        assert http.get("/v1/models").status_code == 401
        assert http.get("/api/session").json()["setup_needed"]
        body = {"token": link.partition("=")[2], "email": "ann@example.org", "password": PASSWORD}
        session = http.post("/api/welcome", json=body).json()
        assert session["user"]["role"] == "owner"
        http.headers["X-CSRF-Token"] = session["csrf_token"]
        made = http.post("/api/keys", json={"name": "laptop"}).json()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=made["key"], max_retries=0) as official:
            assert official.completions.create(model=tiny, prompt="The", max_tokens=2).choices
            # The command line beside the server: the next request knows.
            assert command("keys", "revoke", made["id"]).code == 0
            with pytest.raises(openai.AuthenticationError):
                official.models.list()
        assert command("db", "backup").code == 0
        assert command("users", "suspend", "ann@example.org").code == 1, "the last owner"
        # Whoever runs the machine changes what is served, as ever.
        assert command("adapters", "ls").code == 0
        invited = command("users", "add", "li@example.org").out.strip()
        assert invited.startswith(f"{server.url}/#welcome=")


def test_accounts_are_not_switched_off_by_forgetting_a_flag(
    served: Serve, tiny: str, command: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(PASSWORD + "\n"))
    assert command("users", "add", "ann@example.org", "--password").code == 0
    server = served(tiny)
    assert "Everybody signs in" in server.said
    assert "#welcome=" not in server.said, "somebody is there already"
    with client(server.url) as http:
        assert http.get("/v1/models").status_code == 401
        assert http.get("/health").json() == {"status": "ok"}
        signed = http.post("/api/session", json={"email": "ann@example.org", "password": PASSWORD})
        assert signed.status_code == 200
        assert http.get("/v1/models").status_code == 200


def test_a_database_without_users_changes_nothing(served: Serve, tiny: str, command: Run) -> None:
    assert command("db", "upgrade").code == 0
    server = served(tiny)
    assert "No key is needed; only this machine can connect." in server.said
    assert server.complete(tiny).status_code == 200


def test_other_addresses_are_for_servers_with_accounts_or_a_key(
    served: Serve, tiny: str, command: Run, home: Path
) -> None:
    refused = command("serve", tiny, "--host", "0.0.0.0", "--port", "0")
    assert (refused.code, "--accounts" in refused.err) == (2, True)
    assert not (home / "chatwright.db").exists()
    server = served(tiny, "--host", "0.0.0.0", "--accounts")
    assert "Passwords and keys travel readable" in server.said
    assert server.get("/v1/models").status_code == 401


def test_an_identity_provider_needs_accounts_and_an_address_to_come_back_to(
    command: Run, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATWRIGHT_OIDC_ISSUER", "https://login.example.org")
    monkeypatch.setenv("CHATWRIGHT_OIDC_CLIENT_ID", "chatwright")
    monkeypatch.setenv("CHATWRIGHT_OIDC_CLIENT_SECRET", "hunter2")
    refused = command("serve", tiny, "--port", "0")
    assert (refused.code, "start with --accounts" in refused.err) == (2, True)
    refused = command("serve", tiny, "--port", "0", "--accounts", "--host", "0.0.0.0")
    assert (refused.code, "CHATWRIGHT_PUBLIC_URL" in refused.err) == (2, True)
    shown = command("config", "--json")
    assert "login.example.org" in shown.out
    assert "hunter2" not in shown.out + shown.err


def test_a_damaged_or_newer_database_keeps_the_server_from_opening_up(command: Run, tiny: str, home: Path) -> None:
    """It may hold accounts: without them everybody would be let in."""
    (home / "chatwright.db").write_bytes(b"x" * 5000)
    refused = command("serve", tiny, "--port", "0")
    assert (refused.code, "is damaged" in refused.err) == (1, True)
    (home / "chatwright.db").unlink()
    assert command("db", "upgrade").code == 0
    with sqlite3.connect(home / "chatwright.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    refused = command("serve", tiny, "--port", "0")
    assert (refused.code, "newer Chatwright" in refused.err) == (1, True)
