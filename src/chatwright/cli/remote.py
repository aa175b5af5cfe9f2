"""A running server as the verbs talk to it: found by its home folder or by an address, asked with the admin token."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from chatwright.cli.home import running_server
from chatwright.errors import ChatwrightError, ServerRefusedError, UsageError
from chatwright.i18n import detect_language
from chatwright.server.access import LOOPBACK_HOSTS
from chatwright.settings import Settings

# Loading may have to load the model first.
TIMEOUT_S = 300.0


class ServerClient:
    """A connection to one server. Raises ServerRefusedError with the server's own sentence, or one that says why there is none."""

    def __init__(self, url: str, admin_token: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx2.Client(
            base_url=self.url,
            timeout=httpx2.Timeout(TIMEOUT_S, connect=10),
            headers={"Authorization": f"Bearer {admin_token}", "Accept-Language": detect_language()},
            # The token of this machine's server is nothing for a proxy.
            trust_env=urlsplit(url).hostname not in LOOPBACK_HOSTS,
        )

    @classmethod
    def of(cls, settings: Settings, url: str | None) -> Self:
        """The server at `url`, else the one that serves the home folder. Its token is sent to nobody else.

        Raises UsageError where no token is known, or the address is none; ServerRefusedError where no server runs.
        """
        running = running_server(settings.home)
        token = settings.admin_token.get_secret_value() if settings.admin_token else ""
        if url is None:
            if running.url == "?":
                raise ServerRefusedError(
                    "No server serves the home folder {path}: start one with `chatwright serve`, or name one with --url.",
                    path=settings.home,
                )
            return cls(running.url, token or running.admin_token)
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname)
            valid = valid and not (parts.query or parts.fragment or "@" in parts.netloc) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            raise UsageError(
                "{url} is not the address of a server, such as http://127.0.0.1:8000.", url=repr(url[:200])
            )
        if url.rstrip("/") == running.url:
            token = token or running.admin_token
        if not token:
            raise UsageError(
                "{url} needs its admin token, which it printed when it started: put it into CHATWRIGHT_ADMIN_TOKEN.",
                url=url,
            )
        return cls(url.rstrip("/").removesuffix("/v1"), token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str) -> dict[str, Any]:
        """The JSON at a path."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON that a body is answered with."""
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, json=body)
        except httpx2.TimeoutException as error:
            raise ServerRefusedError("{url} does not answer.", url=self.url) from error
        except (httpx2.HTTPError, UnicodeError) as error:
            raise ServerRefusedError(
                "{url} cannot be reached: {reason}. Is the server running?", url=self.url, reason=error
            ) from error
        try:
            answer = response.json()
            if response.is_success and isinstance(answer, dict):
                return answer
            refusal: ChatwrightError = _refusal(self.url, response.status_code, answer["error"]["message"])
        except (ValueError, KeyError, TypeError) as error:
            raise ServerRefusedError(
                "{url} is no Chatwright server: it answered with status {status}.",
                url=self.url,
                status=response.status_code,
            ) from error
        raise refusal


def _refusal(url: str, status: int, message: str) -> ServerRefusedError:
    if status in (401, 403):
        return ServerRefusedError(
            "{url} does not take this admin token: put the one that it printed when it started into CHATWRIGHT_ADMIN_TOKEN."
            " It says: {message}",
            url=url,
            message=message[:2000],
        )
    return ServerRefusedError("The server refused: {message}", message=message[:2000])
