"""Signing in through an identity provider: who comes in, and what attackers and broken providers try."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from sqlalchemy import select
from starlette.responses import JSONResponse, Response

from chatwright.store.accounts import throttle, users
from chatwright.store.accounts.identities import LOGIN_LIFE_S
from chatwright.store.actor import OPERATOR, Role
from chatwright.store.database import Database
from chatwright.store.tables import Identity, OidcLogin
from tests.server.conftest import StartServer
from tests.server.harness import RunningServer, assert_error
from tests.server.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from tests.server.people import People, email, settle
from tests.store.people import quick_accounts, set_clock


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider(person={"sub": "subject-member", "email": email("member"), "name": "Member"})
    provider.start()
    yield provider
    provider.stop()


@pytest.fixture
def people(tmp_path: Path) -> People:
    return settle(tmp_path)


def open_server(start: StartServer, people: People, provider: IdentityProvider, **more: Any) -> RunningServer:
    # The tests' servers choose their port after the settings are made: the address that people come back to has to be told.
    settings = {
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
        "oidc_name": "Example",
        "public_url": "https://chat.example",
        **more,
    }
    return start(accounts=quick_accounts(Database(people.url)), **settings)


@pytest.fixture
def server(start: StartServer, people: People, provider: IdentityProvider) -> RunningServer:
    return open_server(start, people, provider)


def go(http: httpx.Client, path: str = "/api/oidc/start") -> httpx.Response:
    """To the provider and back, up to the callback's own answer: as a browser, which minds no Host."""
    there = http.get(path)
    assert there.status_code == 303, there.text
    if not there.headers["location"].startswith("http://127.0.0.1"):
        return there
    return http.get(callback_of(there))


def callback_of(there: httpx.Response) -> str:
    """Path and query with which the provider sends the browser back."""
    back = httpx.get(there.headers["location"], trust_env=False)
    assert back.headers["location"].startswith("https://chat.example/api/oidc/callback?")
    return back.headers["location"].removeprefix("https://chat.example")


def problem(answer: httpx.Response) -> str:
    """What the page is told; nothing is signed in."""
    assert answer.status_code == 303, answer.text
    assert not [cookie for cookie in answer.headers.get_list("set-cookie") if "chatwright_session" in cookie]
    place, _, code = answer.headers["location"].partition("#sign-in=")
    assert place == "https://chat.example/"
    return code


def browser(server: RunningServer) -> httpx.Client:
    """One that keeps cookies as if it were at https://chat.example."""
    return KeepsCookies(base_url=server.url, trust_env=False, timeout=30)


class KeepsCookies(httpx.Client):
    """httpx keeps no Secure cookie for http://127.0.0.1; a browser would, at the address behind the proxy."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        answer = super().send(request, **options)
        jar: dict[str, str] = self.__dict__.setdefault("jar", {})
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            jar.pop(name, None)
            if "max-age=0" not in cookie.lower():
                jar[name] = value
        self.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        return answer


def signed_in_as(http: httpx.Client) -> str | None:
    user = http.get("/api/session").json()["user"]
    return user["email"] if user else None


def identities(people: People) -> list[tuple[str, str]]:
    async def work(accounts: Any) -> list[tuple[str, str]]:
        async with accounts.database.read() as session:
            rows = await session.scalars(select(Identity).order_by(Identity.subject))
            return [(row.subject, row.user_id) for row in rows]

    return people.do(work)  # type: ignore[no-any-return]


def test_a_verified_address_opens_the_account_and_later_the_identity_does(
    server: RunningServer, people: People, provider: IdentityProvider
) -> None:
    with browser(server) as http:
        assert http.get("/api/session").json()["provider"] == {
            "name": "Example",
            "url": "https://chat.example/api/oidc/start",
        }
        answer = go(http)
        assert answer.headers["location"] == "https://chat.example/"
        cookies = answer.headers.get_list("set-cookie")
        [cookie] = [cookie for cookie in cookies if cookie.startswith("__Host-chatwright_session=")]
        for word in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
            assert word in cookie
        assert signed_in_as(http) == email("member")
        assert http.get("/v1/models").status_code == 200
    assert identities(people) == [("subject-member", people.ids["member"])]
    provider.person["email"] = "renamed@elsewhere.example"
    provider.verified = False
    with browser(server) as http:
        assert go(http).headers["location"] == "https://chat.example/"
        assert signed_in_as(http) == email("member")
    assert len(identities(people)) == 1
    assert provider.asked.count("discovery") == provider.asked.count("keys") == 1, "what it says of itself is kept"


def test_what_the_browser_carries(server: RunningServer, provider: IdentityProvider) -> None:
    with browser(server) as http:
        there = http.get(
            "/api/oidc/start", params={"next": "https://evil.example", "redirect_uri": "https://evil.example"}
        )
        url = urlsplit(there.headers["location"])
        sent = parse_qs(url.query)
        assert f"{url.scheme}://{url.netloc}{url.path}" == f"http://127.0.0.1:{provider.port}/authorize"
        assert sent["redirect_uri"] == ["https://chat.example/api/oidc/callback"]
        assert sent["code_challenge_method"] == ["S256"]
        assert {"state", "nonce", "code_challenge"} <= set(sent)
        [cookie] = there.headers.get_list("set-cookie")
        assert cookie.startswith("__Host-chatwright_login=")
        for word in ("Secure", "HttpOnly", "SameSite=lax", f"Max-Age={LOGIN_LIFE_S}"):
            assert word in cookie
        for secret in (sent["state"][0], sent["nonce"][0], CLIENT_SECRET):
            assert secret not in cookie
        assert CLIENT_SECRET not in there.headers["location"]
        again = parse_qs(urlsplit(http.get("/api/oidc/start").headers["location"]).query)
        for name in ("state", "nonce", "code_challenge"):
            assert again[name] != sent[name]


def test_the_host_header_leads_nowhere(server: RunningServer) -> None:
    with server.http(headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"}) as http:
        assert "evil" not in http.get("/api/oidc/start").headers["location"]
        answer = http.get("/api/oidc/callback", params={"state": "x", "next": "//evil.example"})
        assert answer.headers["location"] == "https://chat.example/#sign-in=state"
        assert "evil" not in http.get("/api/session").text


def test_a_state_is_good_once(server: RunningServer, provider: IdentityProvider) -> None:
    with browser(server) as http:
        back = callback_of(http.get("/api/oidc/start"))
        kept = dict(http.__dict__["jar"])
        assert http.get(back).headers["location"] == "https://chat.example/"
        n = len(provider.asked)
        http.__dict__["jar"] |= kept
        http.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in kept.items())
        assert problem(http.get(back)) == "state"
        assert len(provider.asked) == n, "the provider is not even asked"


def test_a_state_is_good_in_the_browser_that_was_sent(server: RunningServer, people: People) -> None:
    """Login CSRF: somebody begins, and lets another one end it."""
    with browser(server) as attacker, browser(server) as victim, browser(server) as third:
        back = callback_of(attacker.get("/api/oidc/start"))
        assert problem(victim.get(back)) == "state"
        assert problem(attacker.get(back)) == "state", "it was used up by the attempt"
        back = callback_of(attacker.get("/api/oidc/start"))
        third.get("/api/oidc/start")
        assert problem(third.get(back)) == "state", "nor in one that was sent with another state"
    assert identities(people) == []


@pytest.mark.parametrize("state", ["", "x", "x" * 43, "' OR 1=1 --", "a" * 4096, "\x00", "状态"])
def test_a_state_that_was_made_up_is_refused(server: RunningServer, state: str) -> None:
    with browser(server) as http:
        http.get("/api/oidc/start")
        assert problem(http.get("/api/oidc/callback", params={"code": "x", "state": state})) == "state"
        assert_error(http.get("/api/oidc/callback", params={"state": "a" * 5000}), 400)


def test_a_state_grows_old(server: RunningServer, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    now = set_clock(monkeypatch)
    with browser(server) as http:
        back = callback_of(http.get("/api/oidc/start"))
        now.now += LOGIN_LIFE_S + 1
        assert problem(http.get(back)) == "state"
        http.get("/api/oidc/start")
        now.now += LOGIN_LIFE_S + 1
        http.get("/api/oidc/start")

    async def count(accounts: Any) -> int:
        async with accounts.database.read() as session:
            return len((await session.scalars(select(OidcLogin))).all())

    assert people.do(count) == 1, "those that nobody came back on are gone"


def test_who_begins_again_and_again_waits(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)
    with browser(server) as http:
        for _ in range(throttle.FREE_OF_ADDRESS):
            assert go(http).headers["location"] == "https://chat.example/", "who comes back was no trouble"
        for _ in range(throttle.FREE_OF_ADDRESS):
            assert http.get("/api/oidc/start").headers["location"].startswith("http://127.0.0.1")
        assert problem(http.get("/api/oidc/start")) == "busy"


def test_the_users_no(server: RunningServer) -> None:
    with browser(server) as http:
        for said, told in (("access_denied", "refused"), ("server_error", "provider"), ("<script>", "provider")):
            state = parse_qs(urlsplit(http.get("/api/oidc/start").headers["location"]).query)["state"][0]
            answer = http.get("/api/oidc/callback", params={"error": said, "state": state, "error_description": "x"})
            assert problem(answer) == told


def test_an_answer_of_another_provider_is_refused(server: RunningServer) -> None:
    """Mix-up (RFC 9207)."""
    with browser(server) as http:
        back = callback_of(http.get("/api/oidc/start"))
        assert problem(http.get(back.partition("&iss=")[0] + "&iss=https://evil.example")) == "state"


def by_another_key(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "RS256", "kid": "first"}, claims, RSAKey.generate_key(2048))


def by_an_unknown_key(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "RS256", "kid": "other"}, claims, RSAKey.generate_key(2048))


def unsigned(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


def by_the_public_key(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    """The oldest trick: what is public, taken as a shared secret."""
    key = OctKey.import_key(provider.key.as_pem(private=False))
    return jwt.encode({"alg": "HS256", "kid": "first"}, claims, key, algorithms=["HS256"])


def by_the_client_secret(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_SECRET), algorithms=["HS256"])


def changed_afterwards(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    head, body, signature = provider.signed(claims).split(".")
    forged = {**claims, "email": email("owner"), "sub": "subject-owner"}
    body = base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


@pytest.mark.parametrize(
    "sign",
    [
        by_another_key,
        by_an_unknown_key,
        unsigned,
        by_the_public_key,
        by_the_client_secret,
        changed_afterwards,
        lambda provider, claims: "no.token.here",
        lambda provider, claims: "",
        lambda provider, claims: None,
        lambda provider, claims: {"not": "text"},
    ],
)
def test_a_token_that_the_provider_did_not_sign_is_refused(
    server: RunningServer, people: People, provider: IdentityProvider, sign: Any
) -> None:
    provider.sign = sign
    with browser(server) as http:
        assert problem(go(http)) == "provider"
        assert signed_in_as(http) is None
    assert identities(people) == []


CHANGES: list[dict[str, Any]] = [
    {"iss": "https://evil.example"},
    {"aud": "another client"},
    {"aud": ["another client"]},
    {"aud": [CLIENT_ID, "another client"]},
    {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
    {"azp": "another client"},
    {"nonce": "of another login"},
    {"nonce": None},
    {"exp": 1},
    {"exp": None},
    {"exp": "soon"},
    {"iat": 4_000_000_000},
    {"nbf": 4_000_000_000},
    {"sub": None},
    {"sub": ""},
    {"sub": 7},
    {"sub": "x" * 256},
    {"sub": "a\x00b"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_token_that_says_something_else_is_refused(
    server: RunningServer, people: People, provider: IdentityProvider, change: dict[str, Any]
) -> None:
    def apply(claims: dict[str, Any]) -> None:
        for name, value in change.items():
            claims.pop(name, None)
            if value is not None:
                claims[name] = value

    provider.change = apply
    with browser(server) as http:
        assert problem(go(http)) == "provider"
    assert identities(people) == []


def test_a_token_for_several_is_good_where_it_was_made_for_us(
    server: RunningServer, provider: IdentityProvider
) -> None:
    provider.change = lambda claims: claims.update(aud=[CLIENT_ID, "another"], azp=CLIENT_ID)
    with browser(server) as http:
        assert go(http).headers["location"] == "https://chat.example/"


def test_new_keys_are_asked_for(server: RunningServer, provider: IdentityProvider) -> None:
    with browser(server) as http:
        go(http)
        provider.key = RSAKey.generate_key(2048, {"kid": "second"}, auto_kid=False)
        assert go(http).headers["location"] == "https://chat.example/"
    assert provider.asked.count("keys") == 2


def test_a_provider_that_is_away_is_told_in_a_sentence(
    server: RunningServer, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.stop()
    with browser(server) as http, caplog.at_level(logging.WARNING):
        assert problem(go(http)) == "provider"
        assert "cannot be used" in caplog.text
        provider.start()
        back = callback_of(http.get("/api/oidc/start"))
        provider.stop()
        assert problem(http.get(back)) == "provider", "also in the middle"
        provider.start()
        assert go(http).headers["location"] == "https://chat.example/"
    assert CLIENT_SECRET not in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        Response("<html>", 200),
        Response("", 500),
        Response(b"\xff" * 100, 200),
        JSONResponse([]),
        JSONResponse({}),
        JSONResponse({"error": "server_error", "error_description": "x" * 10_000}),
        Response("x" * 2_000_000),
        Response("", 302, {"Location": "http://127.0.0.1:1/"}),
    ],
    ids=["html", "500", "bytes", "list", "empty", "error", "large", "redirect"],
)
def test_a_provider_that_talks_nonsense_is_told_in_a_sentence(
    start: StartServer, people: People, provider: IdentityProvider, answer: Response
) -> None:
    """At its first word, and at its second."""
    for warm in (False, True):
        server = open_server(start, people, provider)
        with browser(server) as http:
            provider.answer = None
            back = callback_of(http.get("/api/oidc/start")) if warm else "/api/oidc/start"
            provider.answer = answer
            assert problem(http.get(back)) == "provider"


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"token_endpoint": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": ["x"]},
        {"userinfo_endpoint": "ftp://x/y"},
    ],
    ids=str,
)
def test_metadata_that_leads_elsewhere_is_refused(
    server: RunningServer, provider: IdentityProvider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    with browser(server) as http:
        assert problem(http.get("/api/oidc/start")) == "provider"


def test_keys_that_are_none_are_told_in_a_sentence(server: RunningServer, provider: IdentityProvider) -> None:
    for keys in ({"keys": []}, {"keys": [{"kty": "RSA"}]}, {"keys": "x"}, {"nothing": 1}, {"keys": [1]}):
        provider.keys = keys
        with browser(server) as http:
            assert problem(go(http)) == "provider"


@pytest.mark.parametrize("verified", [False, None, "false", 0, 1, "yes"])
def test_an_address_that_is_not_verified_opens_nothing(
    server: RunningServer, people: People, provider: IdentityProvider, verified: Any
) -> None:
    provider.verified = verified
    with browser(server) as http:
        assert problem(go(http)) == "stranger"
    assert identities(people) == []


def test_the_address_may_stand_in_the_userinfo(
    server: RunningServer, people: People, provider: IdentityProvider
) -> None:
    provider.in_userinfo = True
    with browser(server) as http:
        provider.userinfo_subject = "somebody else"
        assert problem(go(http)) == "provider"
        provider.userinfo_subject = None
        assert go(http).headers["location"] == "https://chat.example/"
        assert signed_in_as(http) == email("member")


def test_a_public_client_needs_no_secret_and_some_want_it_in_the_body(
    start: StartServer, people: People, provider: IdentityProvider
) -> None:
    provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    with browser(open_server(start, people, provider)) as http:
        assert go(http).headers["location"] == "https://chat.example/"
    provider.needs_secret = False
    with browser(open_server(start, people, provider, oidc_client_secret=None)) as http:
        assert go(http).headers["location"] == "https://chat.example/"
    provider.needs_secret = True
    with browser(open_server(start, people, provider, oidc_client_secret="wrong")) as http:
        assert problem(go(http)) == "provider"


def test_strangers_stay_out_unless_a_setting_makes_them_members(
    start: StartServer, people: People, provider: IdentityProvider
) -> None:
    provider.person = {"sub": "subject-new", "email": "New@Example.org", "name": "新人"}
    with browser(open_server(start, people, provider)) as http:
        assert problem(go(http)) == "stranger"
    server = open_server(start, people, provider, oidc_new_users=True)
    with browser(server) as http:
        provider.verified = False
        assert problem(go(http)) == "stranger", "nor without a verified address"
        provider.verified = True
        assert go(http).headers["location"] == "https://chat.example/"
        user = http.get("/api/session").json()["user"]
        assert (user["email"], user["name"], user["role"], user["status"]) == (
            "new@example.org",
            "新人",
            "member",
            "active",
        )
        assert_error(http.get("/api/users"), 403)
    with browser(server) as http:  # no password opens what has none
        body = {"email": "new@example.org", "password": ""}
        assert_error(http.post("/api/session", json=body, headers={"Origin": "https://chat.example"}), 401)


def test_nobody_becomes_owner_by_coming_first(start: StartServer, tmp_path: Path, provider: IdentityProvider) -> None:
    from tests.server.test_accounts import settle_nobody

    people = settle_nobody(tmp_path)
    with browser(open_server(start, people, provider, oidc_new_users=True)) as http:
        assert problem(go(http)) == "no_owner"
        assert http.get("/api/session").json()["setup_needed"] is True


def test_the_suspended_stay_out(server: RunningServer, people: People, provider: IdentityProvider) -> None:
    async def suspend(accounts: Any) -> None:
        async with accounts.database.write() as session:
            await users.suspend(session, OPERATOR, people.ids["member"])

    async def resume(accounts: Any) -> None:
        async with accounts.database.write() as session:
            await users.resume(session, OPERATOR, people.ids["member"])

    with browser(server) as http:
        provider.person = {"sub": "subject-suspended", "email": email("suspended")}
        assert problem(go(http)) == "suspended"
        assert identities(people) == [], "nothing is linked by the way"
        provider.person = {"sub": "subject-member", "email": email("member")}
        go(http)
        people.do(suspend)
        assert_error(http.get("/v1/models"), 401)
        assert problem(go(http)) == "suspended"
        people.do(resume)
        assert go(http).headers["location"] == "https://chat.example/"


def test_an_address_that_was_given_to_somebody_else_does_not_open_the_account(
    server: RunningServer, people: People, provider: IdentityProvider
) -> None:
    with browser(server) as http:
        go(http)
        provider.person["sub"] = "subject-of-the-successor"
        assert problem(go(http)) == "other_identity"
    assert identities(people) == [("subject-member", people.ids["member"])]


def test_whom_somebody_invited_needs_no_link(server: RunningServer, people: People, provider: IdentityProvider) -> None:
    from chatwright.store.accounts import links

    async def invite(accounts: Any) -> str:
        async with accounts.database.write() as session:
            user = await users.add_user(session, OPERATOR, "wei@example.org", None, Role.ADMIN)
            return await links.make_link(session, OPERATOR, user.id)

    token = people.do(invite)
    provider.person = {"sub": "subject-wei", "email": "WEI@example.org"}
    with browser(server) as http:
        assert go(http).headers["location"] == "https://chat.example/"
        user = http.get("/api/session").json()["user"]
        assert (user["role"], user["status"]) == ("admin", "active")
        look = http.post("/api/welcome/look", json={"token": token}, headers={"Origin": "https://chat.example"})
        assert_error(look, 404)


def test_a_new_sign_in_is_a_new_session(server: RunningServer, people: People) -> None:
    with browser(server) as http:
        go(http)
        [first] = [value for name, value in http.__dict__["jar"].items() if name.endswith("session")]
        go(http)
        [second] = [value for name, value in http.__dict__["jar"].items() if name.endswith("session")]
        assert first != second
    with server.http(headers={"Cookie": f"__Host-chatwright_session={first}"}) as fixed:
        assert_error(fixed.get("/v1/models"), 401)


def test_without_a_provider_the_way_does_not_exist(start: StartServer, people: People) -> None:
    server = start(accounts=quick_accounts(Database(people.url)))
    with server.http() as http:
        assert http.get("/api/session").json()["provider"] is None
        for path in ("/api/oidc/start", "/api/oidc/callback?code=x&state=y"):
            assert_error(http.get(path), 404, code="no_provider")


def test_removing_a_user_removes_who_the_provider_knows_them_as(
    server: RunningServer, people: People, provider: IdentityProvider
) -> None:
    async def remove(accounts: Any) -> None:
        async with accounts.database.write() as session:
            await users.remove_user(session, OPERATOR, people.ids["member"])

    with browser(server) as http:
        go(http)
        people.do(remove)
        assert identities(people) == []
        assert problem(go(http)) == "stranger"
