"""A small real HTTP server for download tests: its files, and the ways in which it misbehaves, are set by the test."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Site:
    """What the server has and does. Paths without their query."""

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    etags: bool = True
    drop_after: dict[str, list[int]] = field(
        default_factory=dict
    )  # bytes sent before each of the next answers breaks off
    gate: threading.Event = field(default_factory=threading.Event)  # while closed, bodies stop after their first piece
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    url: str = ""

    def ranges_asked(self, path: str) -> list[str | None]:
        return [asked for method, requested, asked in self.requests if method == "GET" and requested == path]

    def add_wheel(self, project: str, filename: str, data: bytes) -> None:
        """Put a wheel into the simple index at /simple."""
        self.files[f"/files/{filename}"] = data
        digest = hashlib.sha256(data).hexdigest()
        page = f'<a href="{self.url}/files/{filename}#sha256={digest}">{filename}</a>'
        self.files[f"/simple/{project}/"] = page.encode()
        self.headers[f"/simple/{project}/"] = {"Content-Type": "text/html"}

    def add_repository(self, repo: str, files: dict[str, bytes], **card: object) -> None:
        """Put a repository where huggingface_hub looks for it."""
        commit = hashlib.sha1(repo.encode()).hexdigest()
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130},
            }
            for name, data in files.items()
        ]
        info = {"id": repo, "sha": commit, "siblings": siblings, "cardData": card}
        for path in (
            f"/api/models/{repo}",
            f"/api/models/{repo}/revision/main",
            f"/api/models/{repo}/revision/{commit}",
        ):
            self.files[path] = json.dumps(info).encode()
            self.headers[path] = {"Content-Type": "application/json"}
        for name, data in files.items():
            path = f"/{repo}/resolve/{commit}/{name}"
            self.files[path] = data
            self.headers[path] = {"X-Repo-Commit": commit}


@contextmanager
def serve_site() -> Iterator[Site]:
    """Run the server until the block ends."""
    site = Site()
    site.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def answer(self, body: bool) -> None:
            parts = urlsplit(self.path)
            path = "/".join(
                [parts.path, *parse_qs(parts.query).get("FilePath", [])]
            )  # ModelScope names files in the query
            asked = self.headers.get("Range")
            site.requests.append((self.command, path, asked))
            status = site.statuses.get(path, 200 if path in site.files else 404)
            if status != 200:
                self.send_response(status)
                for name, value in site.headers.get(path, {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = site.files[path]
            etag = f'"{hashlib.md5(data).hexdigest()}"'
            start = 0
            if site.ranges and asked and self.headers.get("If-Range", etag) == etag:
                start = int(asked.removeprefix("bytes=").split("-")[0])
            if start > len(data) or (start and start == len(data)):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            if site.etags:
                self.send_header("ETag", etag)
            for name, value in site.headers.get(path, {}).items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.send_body(path, data[start:])

        def send_body(self, path: str, data: bytes) -> None:
            drops = site.drop_after.get(path, [])
            end = drops.pop(0) if drops else len(data)
            try:
                for at in range(0, min(end, len(data)), 1 << 16):
                    self.wfile.write(data[at : min(at + (1 << 16), end)])
                    self.wfile.flush()
                    site.gate.wait(30)
                self.wfile.flush()
            except (BrokenPipeError, ConnectionResetError):
                pass
            if end < len(data):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
