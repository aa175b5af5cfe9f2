"""Clients that hang up, stall, trickle, flood or speak no HTTP: the engine's work ends, and the others notice nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chatwright.server import run
from tests.server.conftest import StartServer
from tests.server.harness import (
    MODEL,
    PATIENCE_S,
    RunningServer,
    assert_error,
    events_of,
    http_request,
    read_all,
    read_response,
    wait_until,
)

LONG = {"model": MODEL, "prompt": "The capital of", "max_tokens": 400, "logit_bias": {"2": -100}, "seed": 1}
# The contract says two seconds; the rest is for machines that do something else at the same time.
FREED_WITHIN_S = 2.0 + 3.0


def ask(server: RunningServer, body: dict[str, Any], path: str = "/v1/completions") -> socket.socket:
    """Send a request and leave the connection open."""
    sock = server.connect()
    sock.sendall(http_request("POST", path, json.dumps(body).encode()))
    return sock


def hang_up(sock: socket.socket) -> None:
    """Close with a reset, as a killed program does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()


@pytest.fixture(params=["close", "reset"])
def leave(request: pytest.FixtureRequest) -> Any:
    return socket.socket.close if request.param == "close" else hang_up


def test_leaving_a_stream_ends_its_work(slow: RunningServer, leave: Any) -> None:
    for body, path in (
        ({**LONG, "stream": True, "n": 3}, "/v1/completions"),
        (
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": "Hi"}],
                "stream": True,
                "logit_bias": {"2": -100},
            },
            "/v1/chat/completions",
        ),
    ):
        sock = ask(slow, body, path)
        assert sock.recv(10)
        assert slow.load()[0] > 0
        leave(sock)
        wait_until(slow.is_idle, FREED_WITHIN_S)


def test_leaving_before_the_answer_ends_its_work(slow: RunningServer, leave: Any) -> None:
    edit = {"model": MODEL, "instruction": "x", "n": 4}
    for body, path in (
        ({**LONG, "n": 2}, "/v1/completions"),
        ({**LONG, "prompt": ["x"] * 40}, "/v1/completions"),
        (edit, "/v1/edits"),
    ):
        sock = ask(slow, body, path)
        wait_until(lambda: slow.load()[0] > 0)
        leave(sock)
        wait_until(slow.is_idle, FREED_WITHIN_S)


def test_leaving_a_stream_before_its_first_event_ends_its_work(slow: RunningServer) -> None:
    for delay_s in (0.0, 0.005, 0.01, 0.02, 0.03, 0.05):
        sock = ask(slow, {**LONG, "stream": True})
        time.sleep(delay_s)
        hang_up(sock)
    wait_until(slow.is_idle, FREED_WITHIN_S)


@pytest.fixture(scope="module")
def small(start: StartServer) -> RunningServer:
    """One place in the engine and one in its queue."""
    return start(slow_step_s=0.02, max_batch=1, max_queue=1)


def test_leaving_the_queue_frees_the_place(small: RunningServer, leave: Any) -> None:
    first = ask(small, {**LONG, "stream": True})
    assert first.recv(10)
    waiting = ask(small, LONG)
    wait_until(lambda: small.load() == (1, 1))
    leave(waiting)
    wait_until(lambda: small.load() == (1, 0), FREED_WITHIN_S)
    first.close()
    wait_until(small.is_idle, FREED_WITHIN_S)


def test_a_full_queue_is_a_503_and_harms_nobody(small: RunningServer) -> None:
    body = {**LONG, "max_tokens": 60, "temperature": 0}
    with ThreadPoolExecutor() as pool:
        first = pool.submit(small.post, "/v1/completions", {**body, "stream": True})
        wait_until(lambda: small.load()[0] == 1)
        second = pool.submit(small.post, "/v1/completions", body)
        wait_until(lambda: small.load() == (1, 1))
        for stream in (False, True):
            refused = small.post("/v1/completions", {**body, "stream": stream})
            assert_error(refused, 503, code="engine_overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        text = "".join(event["choices"][0]["text"] for event in events_of(first.result().text))
        assert second.result().json()["choices"][0]["text"] == text
    assert small.is_idle()


def test_one_user_can_not_fill_the_queue(start: StartServer) -> None:
    server = start(slow_step_s=0.02, max_batch=1, max_queue=4)
    greedy = [ask(server, {**LONG, "user": "ann", "stream": True})]
    wait_until(lambda: server.load() == (1, 0))  # this one runs, whichever of the others comes first
    greedy += [ask(server, {**LONG, "user": "ann", "stream": True}) for _ in range(3)]
    wait_until(lambda: server.load() == (1, 3))
    refused = server.post("/v1/completions", {**LONG, "user": "ann"})
    assert "of your requests" in assert_error(refused, 503, code="engine_overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    other = ask(server, {**LONG, "max_tokens": 2, "user": "bob"})
    wait_until(lambda: server.load() == (1, 4))
    greedy[0].close()
    status, _, body = read_response(other)
    assert status == 200
    assert sum(server.load()) == 3, "ann's others waited before, but it was bob's turn"
    assert json.loads(body)["usage"]["completion_tokens"] <= 2
    for sock in greedy[1:]:
        sock.close()
    wait_until(server.is_idle, FREED_WITHIN_S)


def test_two_hundred_aborted_streams_leave_no_block_in_use(start: StartServer) -> None:
    server = start(slow_step_s=0.005)
    for _ in range(20):
        socks = [ask(server, {**LONG, "stream": True, "prompt": "The capital of " * 5}) for _ in range(10)]
        for i, sock in enumerate(socks):
            if i % 2:
                sock.recv(10)
            hang_up(sock)
    # How soon is measured by bench/crowd.py: on a busy machine the last of them may not even have been read yet.
    wait_until(lambda: server.is_idle() and server.model.engine.stats().blocks_used == 0)


def test_what_can_not_fit_the_cache_is_refused_with_the_numbers(start: StartServer) -> None:
    """However long the model's context is: the cache is smaller here. What fits it alone is served, beside others too."""
    server = start(kv_cache_tokens=70)
    ids = list(range(3, 53))
    refused = server.post("/v1/completions", {"model": MODEL, "prompt": ids, "max_tokens": 15})
    message = assert_error(refused, 400, code="context_length_exceeded", param="prompt")
    assert message.startswith(
        "This model's maximum context length is 64 tokens, however you requested 65 tokens (50 in your prompt;"
    )
    with ThreadPoolExecutor() as pool:
        body = {"model": MODEL, "prompt": ids, "max_tokens": 14, "n": 3, "temperature": 0, "logit_bias": {"2": -100}}
        for answer in pool.map(lambda _: server.complete(**body), range(3)):
            assert answer["usage"]["completion_tokens"] == 3 * 14


def test_many_prompts_need_only_one_place(small: RunningServer) -> None:
    """A request that was let in is answered, however small the queue and whoever comes meanwhile."""
    with ThreadPoolExecutor() as pool:
        many = pool.submit(small.complete, prompt=["The", "你好", "def", "Smile"], max_tokens=8)
        wait_until(lambda: small.load()[0] == 1 or many.done())
        for _ in range(6):
            assert small.post("/v1/completions", {**LONG, "max_tokens": 2}).status_code in (200, 503)
        assert len(many.result()["choices"]) == 4
    assert small.is_idle()


def test_sixteen_clients_a_third_of_them_leaving(server: RunningServer, slow: RunningServer) -> None:
    """Everyone who stays gets the text they would get alone; nothing is left running."""
    bodies = [
        {
            "model": MODEL,
            "prompt": ["The capital of", "你好", "def add", "Smile 🙂"][i % 4] + " x" * i,
            "max_tokens": 12 + i,
            "seed": i,
            "temperature": [0.0, 0.7][i // 4 % 2],
            "n": 1 + i % 2,
            "stop": ["Paris"] if i % 5 == 0 else None,
            "logprobs": 5,
        }
        for i in range(16)
    ]
    alone = [server.complete(**body)["choices"] for body in bodies]
    barrier = threading.Barrier(len(bodies))

    def visit(number: int) -> dict[int, str] | None:
        stream = number % 2 == 0
        body = {**bodies[number], "stream": stream}
        barrier.wait(PATIENCE_S)
        if number % 3 == 0:
            with ask(slow, {**body, "max_tokens": 300, "logit_bias": {"2": -100}, "stop": None}) as sock:
                if stream:
                    sock.recv(100)
                else:
                    time.sleep(0.1)
            return None
        response = slow.post("/v1/completions", body)
        assert response.status_code == 200
        texts: dict[int, str] = {}
        for part in events_of(response.text) if stream else [response.json()]:
            for choice in part["choices"]:
                texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        return texts

    with ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(visit, range(len(bodies))))
    for number, texts in enumerate(together):
        if texts is not None:
            for choice in alone[number]:
                assert_same_unless_tied(choice, texts[choice["index"]])
    wait_until(slow.is_idle, FREED_WITHIN_S)


def assert_same_unless_tied(choice: dict[str, Any], text: str) -> None:
    """The same text, or, for greedy answers, the same up to a token whose two best logits are closer than 1e-3: the sums are
    taken in another order in another batch."""
    if text == choice["text"] or choice["logprobs"] is None:
        assert text == choice["text"]
        return
    logprobs = choice["logprobs"]
    same = ""
    for token, own, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        if not text.startswith(same + token):
            best, second = sorted(top.values(), reverse=True)[:2]
            assert own == best, (text, choice["text"])
            assert best - second < 1e-3, (text, choice["text"])
            return
        same += token
    raise AssertionError((text, choice["text"]))


def test_a_reader_who_stalls_is_cut_off(start: StartServer) -> None:
    """The buffers between are small here, so that a stalled reader is felt."""
    server = start(write_timeout_s=1.0, send_buffer=4096)
    sock = server.connect(receive_buffer=4096)
    body = {**LONG, "stream": True, "n": 16, "logprobs": 20}
    sock.sendall(http_request("POST", "/v1/completions", json.dumps(body).encode()))
    assert sock.recv(10)
    time.sleep(0.5)
    assert server.complete(prompt="The", max_tokens=2)["choices"], "the others go on"
    # Not only until the engine is idle: a fast one is before the second is over, and who reads again then gets the rest.
    wait_until(lambda: not server.uvicorn.server_state.connections)
    wait_until(server.is_idle)
    received = read_all(sock)
    assert b"[DONE]" not in received
    sock.close()


@pytest.fixture(scope="module")
def impatient(start: StartServer) -> RunningServer:
    """A server that waits half a second for headers and one for a body."""
    return start(header_timeout_s=0.5, read_timeout_s=1.0)


def test_headers_must_come_in_time(impatient: RunningServer) -> None:
    openings = (b"", b"GET", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    socks = [impatient.connect() for _ in openings]
    for sock, opening in zip(socks, openings, strict=True):
        sock.sendall(opening)
    for sock in socks:
        assert read_all(sock) == b""
        sock.close()
    # One byte at a time does not help: the clock runs from the first to the last.
    with impatient.connect() as sock:
        assert trickle(sock, http_request("GET", "/health") * 10) < 5 * len(http_request("GET", "/health"))


def trickle(sock: socket.socket, data: bytes) -> int:
    """Send one byte at a time until the other side has enough; how many it took."""
    for count, byte in enumerate(data):
        try:
            sock.sendall(bytes([byte]))
        except OSError:
            return count
        time.sleep(0.02)
    return len(data)


def test_a_second_request_has_its_own_time(impatient: RunningServer) -> None:
    with impatient.connect() as sock:
        for _ in range(3):
            sock.sendall(http_request("GET", "/health"))
            assert read_response(sock)[0] == 200
            time.sleep(0.7)
        sock.sendall(b"GET /health HTTP/1.1\r\n")
        assert read_all(sock) == b""


def test_a_body_must_come_in_time(impatient: RunningServer) -> None:
    with impatient.connect() as sock:
        sock.sendall(http_request("POST", "/v1/completions", b"{", {"Content-Length": "100"}))
        status, headers, body = read_response(sock)
        assert status == 408
        assert headers["connection"] == "close"
        assert b'"error"' in body
        assert read_all(sock) == b""


def test_long_answers_outlast_the_time_for_reading_requests(start: StartServer) -> None:
    server = start(slow_step_s=0.03, header_timeout_s=0.5, read_timeout_s=0.5, write_timeout_s=0.5)
    for stream in (False, True):
        response = server.post("/v1/completions", {**LONG, "max_tokens": 40, "stream": stream})
        assert response.status_code == 200
        if stream:
            assert events_of(response.text)[-1]["choices"][0]["finish_reason"] == "length"


NONSENSE = {
    "not HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "binary": bytes(range(256)) * 4,
    "no version": b"GET /\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "bad length": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "bad chunk": http_request("POST", "/v1/completions", b"", {"Transfer-Encoding": "chunked"}).replace(
        b"Content-Length: 0\r\n", b""
    )
    + b"zz\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: \0\r\n\r\n",
    "header without colon": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nnonsense\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
    "non-ASCII path": "GET /é HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_is_no_http_gets_an_error_object(server: RunningServer, name: str) -> None:
    with server.connect() as sock:
        sock.sendall(NONSENSE[name])
        received = read_all(sock)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400"), received
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert server.is_idle()


def test_a_bomb_of_headers_is_a_431(server: RunningServer) -> None:
    bombs = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 30_000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 66_000,
    )
    for bomb in bombs:
        with server.connect() as sock:
            try:
                sock.sendall(bomb)
                status = read_response(sock)[0]
            except (ConnectionResetError, BrokenPipeError):
                continue  # cut off while it was still sending
            assert status in (431, 404)
    assert server.is_idle()


def test_a_flood_of_connections_is_turned_away_politely(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until(lambda: not server.uvicorn.server_state.connections)
    monkeypatch.setattr(run, "MAX_CONNECTIONS", 3)
    socks = [server.connect() for _ in range(3)]
    wait_until(lambda: len(server.uvicorn.server_state.connections) == 3)
    refused = server.post("/v1/completions", {"model": MODEL, "prompt": "x"})
    assert_error(refused, 503, code="engine_overloaded")
    assert refused.headers["retry-after"]
    for sock in socks:
        sock.close()
    wait_until(lambda: not server.uvicorn.server_state.connections)
    assert server.complete(prompt="x", max_tokens=1)


def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    bodies = [{"model": MODEL, "prompt": "The", "max_tokens": i, "stream": False} for i in (3, 1, 2)]
    with server.connect() as sock:
        sock.sendall(
            b"".join(http_request("POST", "/v1/completions", json.dumps(body).encode()) for body in bodies)
            + http_request("GET", "/health", headers={"Connection": "close"})
        )
        received = read_all(sock)
    answers = [json.loads(part) for part in _bodies(received)]
    assert [answer["usage"]["completion_tokens"] <= n for answer, n in zip(answers, (3, 1, 2), strict=False)] == [
        True
    ] * 3
    assert answers[3]["status"] == "ok"


def _bodies(received: bytes) -> Iterator[bytes]:
    """The bodies of responses that stand one after another."""
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
        yield rest[:length]
        received = rest[length:]


def test_a_websocket_is_not_served(server: RunningServer) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"}
    with server.connect() as sock:
        sock.sendall(http_request("GET", "/v1/models", headers=upgrade))
        assert read_response(sock)[0] != 101


def test_expect_100_is_answered_before_the_body(server: RunningServer) -> None:
    body = json.dumps({"model": MODEL, "prompt": "The", "max_tokens": 1}).encode()
    head = http_request("POST", "/v1/completions", body, {"Expect": "100-continue"})[: -len(body)]
    with server.connect() as sock:
        sock.sendall(head)
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert read_response(sock)[0] == 200
    with server.connect() as sock:
        sock.sendall(
            http_request("POST", "/v1/completions", b"", {"Expect": "100-continue", "Content-Length": "99999999"})
        )
        assert read_response(sock)[0] == 413, "said before the body is sent"
