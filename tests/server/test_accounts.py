"""A server with accounts: who comes in and to what, by hand and as a matrix of every route; and what attackers try."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI

from chatwright.server.access import ENTRANCES, PUBLIC_PATHS
from chatwright.server.app import create_app
from chatwright.server.permission import check_policies, route_policies
from chatwright.store.accounts import throttle, users
from chatwright.store.accounts.service import Accounts
from chatwright.store.accounts.sessions import begin_session
from chatwright.store.actor import OPERATOR
from chatwright.store.database import Database
from chatwright.store.policy import Action
from chatwright.store.url import parse_url
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, http_request, read_response
from tests.server.people import ADMIN_TOKEN, KEYS, SERVER_KEY, People, bearer, browser, email, settle, signed_in_client
from tests.store.people import PASSWORD, quick_accounts, set_clock
from tests.store.postgres import Cluster

BODY = {"model": MODEL, "prompt": "The", "max_tokens": 1}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return settle(tmp_path_factory.mktemp("accounts"))


@pytest.fixture(scope="module")
def accounted(start: StartServer, people: People) -> RunningServer:
    """A server with accounts, and with the secrets that a server without them has."""
    return start(accounts=quick_accounts(Database(people.url)), api_key=SERVER_KEY, admin_token=ADMIN_TOKEN, port=8123)


@pytest.fixture
def own(start: StartServer, tmp_path: Path) -> tuple[RunningServer, People]:
    """The same for one test, which changes people."""
    people = settle(tmp_path)
    return start(accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN), people


def test_every_route_has_a_policy(accounted: RunningServer) -> None:
    policies = list(route_policies(accounted.app))
    assert {policy.path for policy in policies if policy.action is None} == {*PUBLIC_PATHS, *ENTRANCES, "/assets"} - {
        "/favicon.ico"
    }
    assert {policy.action for policy in policies} >= set(Action) - {Action.MAKE_KEYS_FOR_USERS, Action.RUN_JOBS}
    assert len(policies) > 60


def test_an_app_with_a_route_without_a_policy_does_not_start(accounted: RunningServer) -> None:
    for spoil in (
        lambda app: app.add_api_route("/forgotten", lambda: 1),
        lambda app: app.add_api_route("/health", lambda: 1),
        lambda app: app.add_route("/plain", lambda request: None),
        lambda app: app.mount("/files", FastAPI()),
    ):
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        spoil(app)
        with pytest.raises(AssertionError):
            check_policies(app)
    assert create_app


# Who gets in, by action; everybody else gets 401 (who is nobody) or 403.
WHO = [
    "nobody",
    "member",
    "other",
    "admin",
    "owner",
    "suspended session",
    "inference key",
    "files key",
    "admin key",
    "revoked key",
    "expired key",
    "key of suspended",
    "server key",
    "operator",
]
NOBODIES = {"nobody", "suspended session", "revoked key", "expired key", "key of suspended"}
KNOWN = set(WHO) - NOBODIES
PERSONS = {"member", "other", "admin", "owner"}
ADMINS = {"admin", "owner", "admin key", "operator"}
MAY: dict[Action | None, set[str]] = {
    None: set(WHO),
    Action.READ_API: KNOWN,
    Action.READ_MODELS: KNOWN,
    Action.GENERATE: KNOWN - {"files key", "admin key"},
    Action.CHANGE_MODELS: ADMINS,
    Action.USE_ACCOUNT: PERSONS,
    Action.USE_KEYS: PERSONS,
    Action.USE_CONVERSATIONS: PERSONS,
    Action.READ_USERS: ADMINS,
    Action.CHANGE_USERS: ADMINS,
    Action.READ_KEYS_OF_USERS: ADMINS,
    Action.REVOKE_KEYS_OF_USERS: ADMINS,
    Action.READ_OWN_USAGE: PERSONS,
    Action.READ_USAGE: ADMINS,
    Action.READ_LIMITS: ADMINS,
    Action.CHANGE_LIMITS: ADMINS,
    Action.READ_METRICS: ADMINS,
    Action.USE_FILES: {*PERSONS, "files key", "operator"},
    Action.USE_BATCHES: {*PERSONS, "files key", "operator"},
    Action.USE_JOBS: PERSONS | {"files key", "operator"},
    Action.USE_RESPONSES: PERSONS | {"inference key", "operator"},
    Action.USE_EVALS: PERSONS | {"inference key", "operator"},
}


@pytest.fixture(scope="module")
def clients(accounted: RunningServer, people: People) -> Iterator[dict[str, httpx.Client]]:
    """A client for each of them."""
    made = {name: signed_in_client(accounted, name) for name in PERSONS}
    cookie = {"Cookie": f"chatwright_session={people.tokens['suspended']}", "Origin": accounted.url}
    made |= {"nobody": accounted.http(), "suspended session": accounted.http(headers=cookie)}
    made |= {name: accounted.http(headers=bearer(key)) for name, key in people.keys.items()}
    made |= {
        "server key": accounted.http(headers=bearer(SERVER_KEY)),
        "operator": accounted.http(headers=bearer(ADMIN_TOKEN)),
    }
    yield made
    for client in made.values():
        client.close()


@pytest.mark.parametrize("who", WHO)
def test_the_matrix(accounted: RunningServer, clients: dict[str, httpx.Client], people: People, who: str) -> None:
    """Every route of the app × everybody. Ids are none that exist, bodies are empty objects: who is let in gets 200, 400 or 404."""
    assert check_the_matrix(accounted, clients[who], who) > 60


def check_the_matrix(
    server: RunningServer, http: httpx.Client, who: str, tricks: Sequence[dict[str, str]] = ({},), first: int = 0
) -> int:
    """Whether each route lets in whom it shall; how many there are. `tricks`: headers, one after the other, that change nothing."""
    seen = 0
    for policy in route_policies(server.app):
        path = re.sub(r"\{[^}]*\}", "no-such-id", policy.path)
        path = "/assets/nothing.js" if path == "/assets" else path
        if policy.method == "DELETE" and path == "/api/session":
            continue  # would sign out whoever is needed for the next route
        headers = tricks[(first + seen) % len(tricks)]
        changes = policy.method in ("POST", "PATCH", "PUT", "DELETE")
        body = {"json": {}} if changes and policy.method != "DELETE" else {}
        response = http.request(policy.method, path, headers=headers, **body)
        seen += 1
        where = (policy.method, path, who, headers, response.text)
        assert response.status_code not in (422, 500), where
        is_form = path in ("/v1/files", "/files") or path.endswith("/parts")
        # The page that a browser names is none of the host that it asks.
        of_another = "host" in headers and "origin" in http.headers and changes
        if of_another and (path.startswith("/api/") or who in PERSONS):
            status = 403
        elif who in MAY[policy.action]:
            wrong_password_is_401 = path == "/api/session"
            assert response.status_code in (200, 400, 404, 415 if is_form else 400) or wrong_password_is_401, where
            continue
        else:
            status = 401 if who in NOBODIES else 403
        if policy.method == "HEAD":
            continue
        if path.startswith("/v1/messages"):  # Anthropic's shape
            assert (response.status_code, response.json()["type"]) == (status, "error"), where
        else:
            assert_error(response, status, code="foreign_request" if of_another and status == 403 else None)
    return seen


TRICKS: list[dict[str, str]] = [
    {"host": "x/?"},
    {"host": "127.0.0.1/health?"},
    {"host": "a/docs?x="},
    {"host": "127.0.0.1/api/session#"},
    {"x-original-url": "/health", "x-rewrite-url": "/health", "x-forwarded-host": "x/health?"},
]


@pytest.mark.parametrize("who", WHO)
def test_the_matrix_with_tricks_in_the_headers_that_name_a_host(
    accounted: RunningServer, clients: dict[str, httpx.Client], people: People, who: str
) -> None:
    """Every route × everybody: nobody gets in further than without, and nobody with a key less far. Each route meets each trick
    by two or more of them."""
    assert check_the_matrix(accounted, clients[who], who, TRICKS, WHO.index(who)) > 60


def test_anthropics_clients_send_a_persons_key_in_their_own_header(accounted: RunningServer, people: People) -> None:
    body = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    with accounted.http() as http:
        for name, status in (("inference key", 200), ("files key", 403), ("revoked key", 401)):
            key = {"x-api-key": people.keys[name]}
            assert http.post("/v1/messages", json=body, headers=key).status_code == status, name
            assert http.post("/v1/completions", json=BODY, headers=key).status_code == 401


@pytest.mark.parametrize("host", ["x/?", "127.0.0.1/health?", "x/assets/", "127.0.0.1/api/session#", "a/docs?x="])
def test_the_host_header_opens_nothing(accounted: RunningServer, host: str) -> None:
    for policy in route_policies(accounted.app):
        if policy.action is None:
            continue
        path = re.sub(r"\{[^}]*\}", MODEL, policy.path)
        with accounted.connect() as sock:
            sock.sendall(http_request(policy.method, path, headers={"Host": host}))
            assert read_response_head(sock) in (400, 401), (policy.method, path)


def read_response_head(sock: Any) -> int:
    received = b""
    while b"\r\n" not in received:
        received += sock.recv(65536)
    return int(received.split(b" ", 2)[1])


def test_a_key_counts_as_a_bearer_only(accounted: RunningServer, people: People) -> None:
    key = people.keys["inference key"]
    with accounted.http() as http:
        assert http.post("/v1/completions", json=BODY, headers=bearer(key)).status_code == 200
        for headers in (
            {"api-key": key},
            {"x-api-key": key},
            {"Authorization": key},
            {"Authorization": f"Token {key}"},
            {"Authorization": f"Basic {key}"},
            {"Cookie": f"chatwright_session={key}"},
            {"Cookie": f"api_key={key}; Authorization={key}"},
            {"Proxy-Authorization": f"Bearer {key}"},
            {"X-Forwarded-Authorization": f"Bearer {key}"},
        ):
            assert_error(http.post("/v1/completions", json=BODY, headers=headers), 401)
        for name in ("api_key", "key", "token", "access_token"):
            assert_error(http.post("/v1/completions", json=BODY, params={name: key}), 401)
        assert_error(http.post("/v1/completions", json={**BODY, "api_key": key}), 401)
        two = [("Authorization", f"Bearer {key}"), ("Authorization", "Bearer other")]
        for headers in (two, two[::-1]):
            assert_error(http.post("/v1/completions", json=BODY, headers=headers), 401)


@pytest.mark.parametrize(
    "value",
    [
        "' OR '1'='1",
        "x'; DROP TABLE api_keys; --",
        "sk-cw-' OR 1=1 --",
        "sk-cw-%-%",
        "${jndi:ldap://x}",
        "sk-cw-AAAAAAAAAAAA-" + "A" * 43,
        "\xff\xfe",
        "x" * 60_000,
    ],
)
def test_sql_and_nonsense_in_any_header_is_no_key(accounted: RunningServer, people: People, value: str) -> None:
    for name, text in (
        ("Authorization", f"Bearer {value}"),
        ("Cookie", f"chatwright_session={value}"),
        ("X-CSRF-Token", value),
        ("Host", "127.0.0.1"),
    ):
        with accounted.connect() as sock:
            sock.sendall(http_request("GET", "/v1/models", headers={name: text}))
            assert read_response(sock)[0] == 401
    with accounted.http() as http:
        assert http.get("/v1/models", headers=bearer(people.keys["inference key"])).status_code == 200, (
            "nothing is lost"
        )


def test_a_wrong_key_is_not_made_good_by_a_session(accounted: RunningServer) -> None:
    with browser(accounted, "member") as http:
        assert http.get("/v1/models").status_code == 200
        assert_error(http.get("/v1/models", headers=bearer("sk-cw-wrong")), 401)


def test_signing_in_and_out(accounted: RunningServer) -> None:
    with accounted.http() as http:
        before = http.get("/api/session").json()
        assert (before["accounts"], before["setup_needed"], before["user"], before["csrf_token"]) == (
            True,
            False,
            None,
            None,
        )
        answer = http.post("/api/session", json={"email": email("member"), "password": PASSWORD})
        [cookie] = answer.headers.get_list("set-cookie")
        assert cookie.startswith("chatwright_session=")
        for word in ("HttpOnly", "SameSite=lax", "Path=/"):
            assert word in cookie
        assert "Secure" not in cookie
        assert "Domain" not in cookie
        assert answer.headers["cache-control"] == "no-store"
        token = http.cookies["chatwright_session"]
        session = http.get("/api/session").json()
        assert session["user"]["email"] == email("member")
        assert session["csrf_token"] == answer.json()["csrf_token"]
        assert token not in answer.text
        assert "password" not in answer.text
        assert http.delete("/api/session").status_code == 200
        assert http.get("/api/session").json()["user"] is None
    with accounted.http(headers={"Cookie": f"chatwright_session={token}"}) as thief:
        assert_error(thief.get("/v1/models"), 401)


def test_a_cookie_over_tls_is_secure(start: StartServer, accounted: RunningServer, tmp_path: Path) -> None:
    body = {"email": email("member"), "password": PASSWORD}
    with accounted.http(headers={"Host": "chat.example", "Origin": "https://chat.example"}) as http:
        [cookie] = http.post("/api/session", json=body).headers.get_list("set-cookie")
    assert cookie.startswith("__Host-chatwright_session=")
    assert "Secure" in cookie
    people = settle(tmp_path)
    server = start(accounts=quick_accounts(Database(people.url)), public_url="https://chat.example")
    with server.http(headers={"Origin": "https://chat.example"}) as http:  # a proxy that writes its own Host
        answer = http.post("/api/session", json=body)
        [cookie] = answer.headers.get_list("set-cookie")
        assert "Secure" in cookie
        value = cookie.partition(";")[0]
        headers = {"Cookie": value, "X-CSRF-Token": answer.json()["csrf_token"]}
        assert http.patch("/api/account", json={"name": "Ann"}, headers=headers).status_code == 200
        # A neighbouring host may set the plain cookie; the other one counts.
        headers["Cookie"] = f"chatwright_session={people.tokens['other']}; {value}"
        assert http.get("/api/account", headers=headers).json()["email"] == email("member")


def test_a_new_sign_in_is_a_new_session(accounted: RunningServer, people: People) -> None:
    with accounted.http(headers={"Origin": accounted.url}) as http:
        body = {"email": email("other"), "password": PASSWORD}
        first = http.post("/api/session", json=body).cookies["chatwright_session"]
        second = http.post("/api/session", json=body).cookies["chatwright_session"]
        assert first != second
        with accounted.http(headers={"Cookie": f"chatwright_session={first}"}) as fixed:
            assert_error(fixed.get("/v1/models"), 401)
        chosen = accounted.http(headers={"Cookie": "chatwright_session=" + "x" * 43, "Origin": accounted.url})
        assert chosen.post("/api/session", json=body).cookies["chatwright_session"] != "x" * 43
        chosen.close()


def test_one_signs_out_everywhere_else(own: tuple[RunningServer, People]) -> None:
    server, _ = own
    with browser(server, "member") as here, browser(server, "member") as there, browser(server, "other") as other:
        left = here.delete("/api/account/sessions").json()["data"]
        assert [row["current"] for row in left] == [True]
        assert_error(there.get("/v1/models"), 401)
        for http in (here, other):
            assert http.get("/v1/models").status_code == 200


def test_pages_of_others_can_not_use_the_cookie(accounted: RunningServer) -> None:
    with browser(accounted, "member") as http:
        ok = {"json": BODY}
        assert http.post("/v1/completions", **ok).status_code == 200
        for origin in (
            "https://evil.example",
            "null",
            "http://localhost:1",
            f"http://127.0.0.1:{accounted.port + 1}",
            "",
        ):
            assert_error(http.post("/v1/completions", headers={"Origin": origin}, **ok), 403, code="foreign_request")
            assert_error(http.post("/api/session", headers={"Origin": origin}, json={}), 403, code="foreign_request")
        for site in ("cross-site", "same-site"):
            assert_error(http.post("/v1/completions", headers={"Sec-Fetch-Site": site}, **ok), 403)
        for token in ("", "x", "' OR 1=1", http.headers["x-csrf-token"][:-1]):
            for method, path in (("POST", "/v1/completions"), ("PATCH", "/api/account"), ("DELETE", "/api/keys/x")):
                response = http.request(method, path, headers={"X-CSRF-Token": token})
                assert_error(response, 403, code="csrf")
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            form = {"content": json.dumps({"name": "x"}), "headers": {"Content-Type": kind}}
            assert_error(http.patch("/api/account", **form), 415)
            assert_error(http.post("/api/session", **form), 415)
        del http.headers["origin"]
        assert http.post("/v1/completions", **ok).status_code == 200, "some browsers send no Origin"
    with accounted.http() as preflight:
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PATCH"}
        answer = preflight.options("/api/account", headers=headers)
        assert answer.status_code == 401
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_guessing_is_slowed_down_and_says_for_how_long(
    own: tuple[RunningServer, People], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = own
    set_clock(monkeypatch)
    with server.http() as http:
        answers = [
            http.post("/api/session", json={"email": email("member"), "password": f"wrong password {n}"})
            for n in range(7)
        ]
        statuses = [answer.status_code for answer in answers]
        assert statuses[:5] == [401] * 5
        assert 429 in statuses
        slowed = next(answer for answer in answers if answer.status_code == 429)
        assert int(slowed.headers["retry-after"]) >= 1
        assert_error(slowed, 429, code="too_many_attempts")
        sentences = {answer.json()["error"]["message"] for answer in answers[:5]}
        unknown = http.post("/api/session", json={"email": "nobody@example.org", "password": PASSWORD})
        assert sentences == {unknown.json()["error"]["message"]}, "which of the two was wrong is not told"
        chinese = http.post(
            "/api/session", json={"email": "x@y.z", "password": "x"}, headers={"Accept-Language": "zh-CN"}
        )
        assert chinese.json()["error"]["message"] == "邮箱地址或密码错误。"


def test_an_address_that_a_client_writes_counts_for_nothing(
    own: tuple[RunningServer, People], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch)
    server, _ = own
    with server.http() as http:
        for number in range(throttle.FREE_OF_ADDRESS):
            body = {"token": "x" * 43}
            headers = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.0.0.{number}"}
            assert http.post("/api/welcome/look", json=body, headers=headers).status_code == 404
        assert http.post("/api/welcome/look", json=body, headers={"X-Forwarded-For": "9.9.9.9"}).status_code == 429


def test_a_trusted_proxy_names_the_client(start: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = settle(tmp_path)
    set_clock(monkeypatch)
    server = start(accounts=quick_accounts(Database(people.url)), trusted_proxies=("127.0.0.1",))
    with server.http() as http:
        for _ in range(throttle.FREE_OF_ADDRESS):
            headers = {"X-Forwarded-For": "8.8.8.8, 10.1.1.1"}
            assert http.post("/api/welcome/look", json={"token": "x" * 43}, headers=headers).status_code == 404
        for written, status in (("1.1.1.1, 10.1.1.1", 429), ("10.1.1.1", 429), ("10.1.1.1, 2.2.2.2", 404)):
            headers = {"X-Forwarded-For": written}
            assert http.post("/api/welcome/look", json={"token": "x" * 43}, headers=headers).status_code == status


def test_the_first_owner_sets_the_server_up(start: StartServer, tmp_path: Path) -> None:
    people = settle_nobody(tmp_path)
    server = start(accounts=quick_accounts(Database(people.url)))
    with server.http() as http:
        assert http.get("/api/session").json()["setup_needed"] is True
        assert_error(http.get("/v1/models"), 401)
        thief = {"token": "x" * 43, "email": "thief@example.org", "password": PASSWORD}
        assert_error(http.post("/api/welcome", json=thief), 404)
        token = people.do(lambda accounts: accounts.setup_token())
        look = http.post("/api/welcome/look", json={"token": token}).json()
        assert (look["purpose"], look["email"]) == ("setup", None)
        good = {"token": token, "email": "Ann@example.org", "password": PASSWORD, "name": "安"}
        for wrong in ({"password": "short"}, {"email": None}, {"email": "x"}, {"role": "owner"}, {"name": "a\nb"}):
            assert http.post("/api/welcome", json={**good, **wrong}).status_code == 400
        session = http.post("/api/welcome", json=good).json()
        assert session["user"]["role"] == "owner"
        assert "admin" in session["scopes"]
        assert http.get("/v1/models").status_code == 200
        assert_error(http.post("/api/welcome", json=good), 404)
        assert http.get("/api/session").json()["setup_needed"] is False


def settle_nobody(folder: Path) -> People:
    from chatwright.store.migrate import upgrade
    from chatwright.store.url import sqlite_url

    people = People(sqlite_url(folder / "chatwright.db"))
    people.do(lambda accounts: upgrade(people.url))
    return people


def test_from_an_invitation_to_an_answer(own: tuple[RunningServer, People]) -> None:
    server, _ = own
    with browser(server, "admin") as admin, server.http(headers={"Origin": server.url}) as new:
        invited = admin.post("/api/users", json={"email": "li@example.org", "name": "李雷"}).json()
        assert invited["role"] == "member"
        assert invited["status"] == "invited"
        base, _, token = invited["url"].partition("/#welcome=")
        assert base == server.url
        session = new.post("/api/welcome", json={"token": token, "password": PASSWORD}).json()
        new.headers["X-CSRF-Token"] = session["csrf_token"]
        made = new.post("/api/keys", json={"name": "laptop", "scopes": ["inference"]}).json()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=made["key"], max_retries=0) as client:
            assert client.completions.create(model=MODEL, prompt="The", max_tokens=1).choices
            assert [model.id for model in client.models.list()] == [MODEL]
            assert "key" not in new.get("/api/keys").json()["data"][0]
            assert new.delete(f"/api/keys/{made['id']}").json()["revoked_at"]
            with pytest.raises(openai.AuthenticationError):
                client.models.list()


def test_a_link_is_made_without_a_body(own: tuple[RunningServer, People]) -> None:
    server, people = own
    with browser(server, "owner") as owner:
        path = f"/api/users/{people.ids['member']}/link"
        answer = owner.post(path)
        assert answer.status_code == 200, answer.text
        assert "#welcome=" in answer.json()["url"]
        assert_error(owner.post(path, content=b"a=1", headers={"Content-Type": "text/plain"}), 415)
        assert_error(owner.post(path, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
        assert_error(owner.post("/api/keys"), 415)
        owner.headers.pop("X-CSRF-Token", None)
        assert_error(owner.post(path), 403)


def test_what_a_form_may_not_hold_is_said_in_the_language_of_the_page(own: tuple[RunningServer, People]) -> None:
    body = {"name": "x", "role": "owner"}
    with browser(own[0], "member") as member:
        english = member.patch("/api/account", json=body).json()["error"]
        chinese = member.patch("/api/account", json=body, headers={"Accept-Language": "zh-CN"}).json()["error"]
        long = member.patch("/api/account", json={"name": "x" * 5000}, headers={"Accept-Language": "zh"}).json()[
            "error"
        ]
    assert english["message"] == "Invalid value for 'role': Extra inputs are not permitted."
    assert chinese["message"] == "“role”的值无效：不允许有其他字段。"
    assert english["param"] == chinese["param"] == "role"
    assert "个字符" in long["message"]


def test_v1_speaks_the_language_of_the_page_and_english_to_programs(own: tuple[RunningServer, People]) -> None:
    server, people = own
    asked = {"model": 5, "training_file": "file-1"}
    with browser(server, "member") as member, server.http() as program:
        chinese, english = (
            http.post("/v1/fine_tuning/jobs", json=asked, headers={"Accept-Language": "zh-CN", **more})
            for http, more in ((member, {}), (program, bearer(people.keys["full key"])))
        )
    assert re.search("[一-鿿]", chinese.json()["error"]["message"])
    assert english.json()["error"]["message"].isascii()
    assert chinese.json()["error"]["code"] == english.json()["error"]["code"]


def test_suspension_works_at_once_on_every_way_in(own: tuple[RunningServer, People]) -> None:
    server, people = own
    key = people.keys["inference key"]
    with (
        browser(server, "member") as member,
        browser(server, "owner") as owner,
        server.http(headers=bearer(key)) as program,
    ):
        for http in (member, program):
            assert http.get("/v1/models").status_code == 200
        link = owner.post(f"/api/users/{people.ids['member']}/link", json={}).json()["url"].partition("=")[2]
        answer = owner.patch(f"/api/users/{people.ids['member']}", json={"status": "suspended"})
        assert answer.json()["status"] == "suspended"
        for http in (member, program):
            assert_error(http.get("/v1/models"), 401)
        body = {"email": email("member"), "password": PASSWORD}
        assert_error(member.post("/api/session", json=body), 401)
        assert_error(member.post("/api/welcome", json={"token": link, "password": PASSWORD}), 404)
        owner.patch(f"/api/users/{people.ids['member']}", json={"status": "active"})
        for http in (member, program):
            assert_error(http.get("/v1/models"), 401)
        assert member.post("/api/session", json=body).status_code == 200


def test_the_command_line_keeps_out_at_once(own: tuple[RunningServer, People]) -> None:
    server, people = own

    async def suspend(accounts: Any) -> None:
        async with accounts.database.write() as session:
            await users.suspend(session, OPERATOR, people.ids["member"])

    with server.http(headers=bearer(people.keys["inference key"])) as program:
        assert program.get("/v1/models").status_code == 200
        people.do(suspend)
        assert_error(program.get("/v1/models"), 401)


def test_nothing_can_be_set_that_is_not_for_setting(own: tuple[RunningServer, People]) -> None:
    """Mass assignment: a field too many is an error, and nothing changes."""
    server, people = own
    with browser(server, "member") as member, browser(server, "admin") as admin:
        for extra in ("role", "id", "status", "email", "is_admin", "password_hash", "quota", "owner_id", "user_id"):
            assert_error(member.patch("/api/account", json={"name": "x", extra: "owner"}), 400)
            assert_error(member.post("/api/keys", json={"name": "x", extra: "owner"}), 400)
            if extra not in ("role", "status"):
                assert_error(
                    admin.patch(f"/api/users/{people.ids['member']}", json={"role": "member", extra: "x"}), 400
                )
            if extra not in ("role", "email"):
                assert_error(admin.post("/api/users", json={"email": "n@example.org", extra: "x"}), 400)
        account = member.get("/api/account").json()
        assert (account["name"], account["role"]) == ("member", "member")
        n_keys = sum(owner == "member" for owner, _ in KEYS.values())
        assert len(member.get("/api/keys").json()["data"]) == n_keys
        for scopes in (["admin"], ["inference", "admin"]):
            assert_error(member.post("/api/keys", json={"name": "x", "scopes": scopes}), 403)
        for scopes in ([], ["*"], ["/*"], "admin", [1], ["Inference"]):
            assert_error(member.post("/api/keys", json={"name": "x", "scopes": scopes}), 400)
        assert_error(admin.post("/api/users", json={"email": "o@example.org", "role": "owner"}), 403)
        assert_error(admin.patch(f"/api/users/{people.ids['member']}", json={"role": "owner"}), 403)
        assert_error(admin.patch(f"/api/users/{people.ids['owner']}", json={"role": "member"}), 403)
        assert_error(admin.delete(f"/api/users/{people.ids['owner']}"), 403)
        assert_error(admin.post(f"/api/users/{people.ids['owner']}/link", json={}), 403)
    with browser(server, "owner") as owner:
        for work in (
            owner.patch(f"/api/users/{people.ids['owner']}", json={"role": "admin"}),
            owner.patch(f"/api/users/{people.ids['owner']}", json={"status": "suspended"}),
            owner.delete(f"/api/users/{people.ids['owner']}"),
        ):
            assert_error(work, 400, code="last_owner")


def test_ids_of_others_do_not_exist(own: tuple[RunningServer, People]) -> None:
    server, people = own
    with browser(server, "member") as member, browser(server, "other") as other, browser(server, "admin") as admin:
        [session] = [row for row in member.get("/api/account/sessions").json()["data"] if row["current"]]
        for thief in (other, admin):
            assert_error(thief.delete(f"/api/account/sessions/{session['id']}"), 404, code="not_found")
            assert_error(thief.delete(f"/api/keys/{people.key_ids['inference key']}"), 404, code="not_found")
        wrong_parent = f"/api/users/{people.ids['other']}/keys/{people.key_ids['inference key']}"
        assert_error(admin.delete(wrong_parent), 404)
        same = [
            thing.json()
            for thing in (other.delete("/api/keys/none"), other.delete(f"/api/keys/{people.key_ids['files key']}"))
        ]
        assert same[0] == same[1], "what is there can not be told from what is not"
        assert member.get("/v1/models").status_code == 200
        assert admin.delete(wrong_parent.replace(people.ids["other"], people.ids["member"])).status_code == 200
        assert member.delete(f"/api/account/sessions/{session['id']}").status_code == 200
        assert_error(member.get("/v1/models"), 401)


BODIES: list[dict[str, Any]] = [
    {},
    {"role": "owner"},
    {"status": "suspended"},
    {"title": "x"},
    {"content": "x"},
    {"content": "x", "model": MODEL},
]


def test_no_route_gives_away_what_has_an_id(own: tuple[RunningServer, People]) -> None:
    """Every route with an id in its path, also those to come × ids that exist and belong to others."""
    server, people = own
    with browser(server, "member") as member:
        [row] = [row for row in member.get("/api/account/sessions").json()["data"] if row["current"]]
        conversation = member.post("/api/conversations", json={"title": email("member")}).json()["id"]
        said = {"content": email("member")}
        message = member.post(f"/api/conversations/{conversation}/messages", json=said).json()["id"]
    ids = {"user_id": people.ids["member"], "key_id": people.key_ids["inference key"], "session_id": row["id"]}
    with browser(server, "admin") as admin:
        limit = admin.put("/api/limits", json={"user_id": people.ids["member"], "tokens_per_month": 10**9})
        ids["limit_id"] = limit.json()["id"]
    ids |= {"conversation_id": conversation, "message_id": message}
    seen = 0
    with browser(server, "other") as other, server.http(headers=bearer(people.keys["files key"])) as key:
        for policy in route_policies(server.app):
            names = re.findall(r"\{(\w+)[^}]*\}", policy.path)
            if not policy.path.startswith("/api/") or not names:
                continue
            path = policy.path.format(**ids)  # KeyError: give this test an id of the new kind
            for http in (other, key):
                for body in BODIES:
                    response = http.request(
                        policy.method, path, **({"json": body} if policy.method in ("POST", "PATCH") else {})
                    )
                    assert response.status_code in (400, 403, 404), (policy.method, path, response.text)
                    assert email("member") not in response.text
            seen += 1
    assert seen >= 8
    with browser(server, "member") as member:
        assert member.get("/api/account").json()["role"] == "member"
        kept = {row["id"]: row["revoked_at"] for row in member.get("/api/keys").json()["data"]}
        assert kept[people.key_ids["inference key"]] is None
        opened = member.get(f"/api/conversations/{conversation}").json()
        assert opened["title"] == email("member")
        assert [row["id"] for row in opened["messages"]] == [message]


def test_no_answer_tells_a_secret(own: tuple[RunningServer, People]) -> None:
    server, people = own
    with browser(server, "owner") as owner:
        texts = [owner.get("/api/users").text, owner.get("/api/account").text, owner.get("/api/account/sessions").text]
        texts += [owner.get(f"/api/users/{people.ids['member']}/keys").text, owner.get("/openapi.json").text]
    for secret in (
        "argon2",
        "password_hash",
        "secret_hash",
        "token_hash",
        *people.keys.values(),
        *people.tokens.values(),
    ):
        assert not any(secret in text for text in texts), secret


def test_the_servers_own_secrets_keep_their_meaning(accounted: RunningServer, people: People) -> None:
    with accounted.http() as http:
        for headers in (bearer(SERVER_KEY), {"api-key": SERVER_KEY}):
            assert http.post("/v1/completions", json=BODY, headers=headers).status_code == 200
            assert_error(http.get("/v1/lora_adapters", headers=headers), 403)
            assert_error(http.get("/api/users", headers=headers), 403)
        assert http.get("/v1/lora_adapters", headers=bearer(ADMIN_TOKEN)).status_code == 200
        assert http.get("/api/users", headers=bearer(ADMIN_TOKEN)).status_code == 200
        assert http.get("/v1/lora_adapters", headers=bearer(people.keys["admin key"])).status_code == 200
        assert http.get("/health").json() == {"status": "ok"}


def test_a_lost_database_shuts_the_door(start: StartServer, tmp_path: Path) -> None:
    people = settle(tmp_path)
    server = start(accounts=quick_accounts(Database(people.url, wait_s=0.5)))
    # In place, as connections that are open go on reading a file that is only unlinked; not the -shm, which is mapped into
    # this process.
    for name in ("chatwright.db", "chatwright.db-wal"):
        (tmp_path / name).write_bytes(b"x" * 8192)
    with server.http(headers=bearer(people.keys["inference key"])) as http:
        for _ in range(3):
            answer = http.get("/v1/models")
            assert answer.status_code in (500, 503), answer.text
            assert_error(answer, answer.status_code)
            assert str(tmp_path) not in answer.text
        assert http.get("/health").status_code == 200


async def test_a_hundred_people_at_once_lose_nothing(own: tuple[RunningServer, People]) -> None:
    """Keys are made, used and revoked while others generate and look around: SQLite has one writer for them all."""
    server, people = own

    async def begin(accounts: Accounts) -> list[str]:
        async with accounts.database.write() as session:
            known = [await users.get_user(session, OPERATOR, people.ids[name]) for name in ("member", "other")]
            return [await begin_session(session, known[number % 2]) for number in range(100)]

    tokens = await asyncio.to_thread(people.do, begin)

    async def one(number: int) -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=120) as http:
            http.headers["Origin"] = server.url
            http.headers["Cookie"] = f"chatwright_session={tokens[number]}"
            signed = await http.get("/api/session")
            http.headers["X-CSRF-Token"] = signed.json()["csrf_token"]
            made = await http.post("/api/keys", json={"name": f"key {number}"})
            async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=120) as program:
                program.headers["Authorization"] = f"Bearer {made.json()['key']}"
                used = await program.get("/v1/models")
                generated = await program.post("/v1/completions", json=BODY)
                revoked = await http.delete(f"/api/keys/{made.json()['id']}")
                after = await program.get("/v1/models")
            listed = await http.get("/api/keys")
            return [answer.status_code for answer in (signed, made, used, generated, revoked, after, listed)]

    results = await asyncio.gather(*(one(number) for number in range(100)))
    assert [result for result in results if result != [200, 200, 200, 200, 200, 401, 200]] == []
    names = set()
    for who in ("member", "other"):
        with browser(server, who) as http:
            names |= {
                row["name"] for row in http.get("/api/keys").json()["data"] if row["revoked_at"] and row["used_at"]
            }
    assert names >= {f"key {number}" for number in range(100)}


def test_a_server_on_postgresql(start: StartServer, postgres_url: str, cluster: Cluster) -> None:
    """The same, and what happens while the database is away."""
    people = settle(parse_url(postgres_url))
    server = start(accounts=quick_accounts(Database(people.url, wait_s=2)))
    key = bearer(people.keys["inference key"])
    with browser(server, "owner") as owner, server.http(headers=key) as program:
        assert program.post("/v1/completions", json=BODY).status_code == 200
        assert len(owner.get("/api/users").json()["data"]) == 5
        cluster.stop()
        try:
            for http in (owner, program):
                away = http.get("/v1/models")
                assert_error(away, 503, code="database_unavailable")
                assert away.headers["retry-after"]
                assert "postgresql" not in away.text
            assert program.get("/health").status_code == 200
        finally:
            cluster.start()
        assert program.post("/v1/completions", json=BODY).status_code == 200
        owner.patch(f"/api/users/{people.ids['member']}", json={"status": "suspended"})
        assert_error(program.get("/v1/models"), 401)


def test_cached_prompts_are_kept_apart_by_account(accounted: RunningServer, people: People) -> None:
    """Whom a client names as its user changes nothing about whose account it is."""
    owners: list[str] = []
    engine: Any = accounted.model.engine
    generate = engine.generate
    engine.generate = lambda request: owners.append(request.owner) or generate(request)
    try:
        with browser(accounted, "member") as member, browser(accounted, "other") as other:
            for http in (member, other):
                for user in (None, "ann", people.ids["member"]):
                    body = {**BODY, **({"user": user} if user else {})}
                    assert http.post("/v1/completions", json=body).status_code == 200
            assert (
                member.post(
                    "/v1/chat/completions",
                    json={"messages": [{"role": "user", "content": "x"}], "model": MODEL, "max_tokens": 1},
                ).status_code
                == 200
            )
    finally:
        engine.generate = generate
    assert len(set(owners[:6])) == 6
    assert owners[6] == owners[0]
    assert all(owners)


def test_routes_of_accounts_say_so_where_there_are_none(server: RunningServer) -> None:
    with server.http() as http:
        assert http.get("/api/session").json() == {
            "object": "session",
            "accounts": False,
            "setup_needed": False,
            "provider": None,
            "user": None,
            "scopes": ["inference"],
            "csrf_token": None,
        }
        for body in ({"email": "a@b.c", "password": "x"},):
            assert_error(http.post("/api/session", json=body), 404, code="no_accounts")
        assert http.get("/api/keys").status_code in (403, 404)
        assert http.get("/api/users").status_code in (401, 403, 404)
