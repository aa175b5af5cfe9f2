"""Who may come in: every path but the public ones wants the key; without a key the server is for this machine alone."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from tests.server.conftest import KEY
from tests.server.harness import MODEL, RunningServer, assert_error, http_request, read_response

PUBLIC = {"/", "/health", "/ready", "/docs", "/favicon.svg", "/favicon.ico", "/licenses.txt"}
BODY = {"model": MODEL, "prompt": "The", "max_tokens": 1}
BASIC = base64.b64encode(f"user:{KEY}".encode()).decode()
BAD_AUTHORIZATION = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    f"Bearer {KEY}x",
    f"Bearer {KEY[:-1]}",
    f"Bearer {KEY.upper()}",
    f"Bearer {KEY} {KEY}",
    f"Bearer, {KEY}",
    KEY,
    f"Token {KEY}",
    f"Basic {BASIC}",
    f"Basic {KEY}",
    "Bearer ' OR '1'='1' --",
    "Bearer x'; DROP TABLE keys; --",
    "Bearer \x00",
    "Bearer None",
    "Bearer null",
    "Bearer [object Object]",
]


def all_routes(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path) of every route of the app, with its parameters filled in."""
    for route in routes:
        if isinstance(route, Mount):
            yield "GET", prefix + route.path
        elif isinstance(route, APIRoute | Route):
            for method in route.methods or {"GET"}:
                yield method, re.sub(r"\{[^}]*\}", MODEL, prefix + route.path)
        else:
            # A router of routers: nothing may hide behind a kind that this walk does not know.
            included = getattr(route, "effective_route_contexts", None)
            assert included is not None, f"unknown kind of route: {route!r}"
            for context in included():
                for method in context.methods:
                    yield method, re.sub(r"\{[^}]*\}", MODEL, context.path)


def test_every_route_but_the_public_ones_wants_the_key(keyed: RunningServer) -> None:
    routes = set(all_routes(keyed.app.routes))
    assert ("POST", "/v1/chat/completions") in routes
    assert ("GET", "/openapi.json") in routes
    assert len(routes) > 30
    with keyed.http() as http:
        for method, path in sorted(routes):
            response = http.request(method, path)
            if path in PUBLIC:
                assert response.status_code != 401, path
            elif method == "HEAD":
                assert response.status_code == 401, path
            elif path.startswith("/v1/messages"):  # Anthropic's shape
                assert (response.status_code, response.json()["error"]["type"]) == (401, "authentication_error")
            else:
                assert_error(response, 401, code="invalid_api_key")
        for path in (
            "/v1/nothing",
            "/nothing",
            "/v2",
            "/HEALTH",
            "/health/",
            "/health/x",
            "/docs/x",
            "/asset",
        ):
            assert_error(http.get(path), 401, code="invalid_api_key")
    # As they stand, where a client library would tidy them up.
    for path in (
        "//health",
        "/assets/../v1/models",
        "/assets/%2e%2e/v1/models",
        "/assets//v1/models",
        "/health/../v1/models",
    ):
        status, body = raw_status(keyed, {}, path)
        assert status in (401, 404), path
        assert MODEL.encode() not in body


def test_the_key_opens(keyed: RunningServer) -> None:
    for value in (f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY}"):
        response = keyed.post("/v1/completions", BODY, headers={"Authorization": value.encode()})
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("value", BAD_AUTHORIZATION)
def test_a_wrong_key_does_not(keyed: RunningServer, value: str) -> None:
    with keyed.connect() as sock:
        body = b'{"model": "tiny", "prompt": "The"}'
        fields = {"Authorization": value.encode().decode("latin-1")}
        sock.sendall(http_request("POST", "/v1/completions", body, fields))
        status, headers, answer = read_response(sock)
    if "\x00" in value:
        assert status == 400
        return
    assert status == 401
    assert headers["www-authenticate"] == "Bearer"
    assert b'"invalid_api_key"' in answer
    assert b'"authentication_error"' in answer
    assert KEY.encode() not in answer


def test_the_key_counts_in_its_own_header_only(keyed: RunningServer) -> None:
    with keyed.http(cookies={"api_key": "x"}) as http:
        assert_error(http.post("/v1/completions", json=BODY), 401)
        for name in ("x-api-key", "cookie", "x-auth-token", "proxy-authorization", "authorisation", "openai-api-key"):
            headers = {name: f"Bearer {KEY}".encode()}
            assert_error(http.post("/v1/completions", json=BODY, headers=headers), 401)
        for query in ("api_key", "key", "token", "access_token", "authorization"):
            assert_error(http.post("/v1/completions", json=BODY, params={query: KEY}), 401)
        assert_error(http.post("/v1/completions", json={**BODY, "api_key": KEY}), 401)


def test_a_huge_key_is_refused(keyed: RunningServer) -> None:
    for size in (60_000, 100_000, 1_000_000):
        with keyed.connect() as sock:
            try:
                sock.sendall(http_request("GET", "/v1/models", headers={"Authorization": "Bearer " + "x" * size}))
                status, _, body = read_response(sock)
            except (ConnectionResetError, BrokenPipeError):
                continue  # cut off while it was still sending
            assert status == (401 if size < 65_536 else 431)
            assert b'"error"' in body


def test_the_host_header_opens_no_way_around_the_key(keyed: RunningServer) -> None:
    for host in ("x/?", "127.0.0.1/health?", "127.0.0.1/health#", "x/assets/", "127.0.0.1:8000/docs?x="):
        with keyed.connect() as sock:
            sock.sendall(http_request("GET", "/v1/models", headers={"Host": host}))
            status, _, _ = read_response(sock)
            assert status in (400, 401), host


def test_refused_bodies_are_not_read_first(keyed: RunningServer) -> None:
    with keyed.connect() as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        assert read_response(sock)[0] == 401


def test_a_key_makes_other_hosts_welcome(keyed: RunningServer) -> None:
    headers = {"Host": "models.example", "Authorization": f"Bearer {KEY}".encode(), "X-Forwarded-For": "10.0.0.1"}
    with keyed.http() as http:
        assert http.get("/v1/models", headers=headers).status_code == 200
        health = http.get("/health", headers={"Host": "models.example"})
        assert health.json() == {"status": "ok"}, "without a key no counts"
        page = http.get("/docs")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        assert page.headers["x-content-type-options"] == "nosniff"


def test_the_official_client_knows_the_401(keyed: RunningServer) -> None:
    for key in ("wrong", "x" * 500):
        with openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=key, max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                client.completions.create(model=MODEL, prompt="x")
            assert refused.value.code == "invalid_api_key"


GOOD_HOSTS = ("localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000")
BAD_HOSTS = (
    "x/?",
    "127.0.0.1:8000@evil.example",
    "evil.example@127.0.0.1",
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "127.0.0.1:80:80",
    "127.0.0.1/x",
    "127.0.0.1?x",
    "127.0.0.1#x",
    "127.0.0.1\\x",
    "0.0.0.0",
    "192.168.0.1",
    "169.254.169.254",
    "127.0.0.1, evil.example",
    "localhost:x",
    "",
)


def raw_status(server: RunningServer, headers: dict[str, str], path: str = "/v1/models") -> tuple[int, bytes]:
    """Status and body of a GET with exactly these headers beside the usual."""
    with server.connect() as sock:
        sock.sendall(http_request("GET", path, headers=headers))
        status, _, body = read_response(sock)
    return status, body


def test_an_open_server_answers_to_this_machines_names_only(server: RunningServer) -> None:
    for host in GOOD_HOSTS:
        assert raw_status(server, {"Host": host})[0] == 200, host
    for path in ("/v1/models", "/health", "/", "/docs", "/openapi.json", "/nothing"):
        for host in BAD_HOSTS:
            status, body = raw_status(server, {"Host": host}, path)
            assert status in (400, 403), (host, path)
            assert b'"error"' in body
            assert MODEL.encode() not in body
    with server.connect() as sock:
        sock.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert read_response(sock)[0] == 403
    with server.connect() as sock:
        sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
        assert read_response(sock)[0] in (400, 403)


def test_an_open_server_refuses_pages_of_others_and_proxies(server: RunningServer) -> None:
    for origin in (
        "https://evil.example",
        "null",
        "http://localhost:1",
        "file://",
        "http://127.0.0.1.evil.example",
        "",
    ):
        status, body = raw_status(server, {"Host": f"127.0.0.1:{server.port}", "Origin": origin})
        assert status == 403, origin
        assert b'"foreign_request"' in body
    own = {"Host": f"127.0.0.1:{server.port}", "Origin": f"http://127.0.0.1:{server.port}"}
    assert raw_status(server, own)[0] == 200
    for name in (
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Real-IP",
        "Via",
    ):
        status, body = raw_status(server, {name: "127.0.0.1"})
        assert status == 403, name
        assert b"--api-key" in body


def test_a_foreign_page_can_not_post_a_form(server: RunningServer) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        with server.http() as http:
            response = http.post(
                "/v1/completions", content=b'{"model":"tiny","prompt":"x"}', headers={"Content-Type": content_type}
            )
        assert_error(response, 415)


def test_preflights_of_foreign_pages_get_nothing(server: RunningServer, keyed: RunningServer) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for who, status in ((server, 403), (keyed, 401)):
        with who.http() as http:
            response = http.options("/v1/completions", headers=headers)
            assert response.status_code == status
            assert not [name for name in response.headers if name.startswith("access-control")]


def test_any_key_is_ignored_on_an_open_server(server: RunningServer) -> None:
    for value in ("Bearer whatever", "Basic x", ""):
        assert raw_status(server, {"Authorization": value})[0] == 200
