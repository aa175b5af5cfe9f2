"""Browsers' rules: pages of origins that the operator named may ask with whatever headers the official clients send, others not."""

from __future__ import annotations

import pytest

from tests.server.conftest import KEY, StartServer
from tests.server.harness import MODEL, RunningServer, assert_error

PAGE = "https://app.example.org"
# What openai-node and Anthropic's TypeScript client ask for from within a page.
OPENAI = "authorization,content-type,openai-organization,x-stainless-lang,x-stainless-retry-count,x-stainless-timeout"
ANTHROPIC = "anthropic-beta,anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key"


@pytest.fixture(scope="module", params=["open", "keyed"])
def named(request: pytest.FixtureRequest, start: StartServer) -> RunningServer:
    """A server that names an origin."""
    return start(cors_origins=(PAGE,), api_key=KEY if request.param == "keyed" else None)


@pytest.mark.parametrize(
    ("path", "headers"), [("/v1/chat/completions", OPENAI), ("/v1/messages", ANTHROPIC), ("/v1/models", OPENAI)]
)
def test_a_named_page_may_send_what_the_clients_send(named: RunningServer, path: str, headers: str) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    with named.http() as http:
        answer = http.options(path, headers=asked)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        allowed = answer.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
        assert set(headers.split(",")) <= set(allowed)
        assert "access-control-allow-credentials" not in answer.headers


def test_a_named_page_can_read_answers_and_errors(named: RunningServer) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    with named.http(headers={"Origin": PAGE}) as http:
        good = http.post("/v1/chat/completions", json=body, headers={"Authorization": b"Bearer " + KEY.encode()})
        assert good.status_code == 200
        answers = [good, http.post("/v1/chat/completions", json={})]
        assert_error(answers[1], 400 if named.app.state.server.settings.api_key is None else 401)
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "Origin" in answer.headers["vary"]
            assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()


def test_other_pages_are_told_nothing(named: RunningServer) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    with named.http() as http:
        for answer in (
            http.options("/v1/chat/completions", headers=asked),
            http.get("/v1/models", headers={"Origin": "https://evil.example"}),
            http.get("/v1/models", headers={"Origin": f"{PAGE}.evil.example"}),
        ):
            assert answer.status_code in (401, 403)
            assert not [name for name in answer.headers if name.startswith("access-control")]
