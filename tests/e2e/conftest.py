"""A browser, and pages that watch what they load and complain about."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.serving import Server, serve

CHROMIUM = os.environ.get("CHATWRIGHT_CHROMIUM", "/usr/bin/chromium")
# A test that sees a foreign request should see the page's, not the browser's own chatter.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
API_KEY = "sk-end-to-end"


@dataclass
class Watch:
    """What the pages of one test asked for and complained about."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    # Parts of complaints that the test provokes on purpose.
    expected: list[str] = field(default_factory=list)

    def on_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def foreign(self, origin: str) -> list[str]:
        """Requests that left the server's origin; data: and blob: addresses are not requests to anybody."""
        return [url for url in self.requests if not url.startswith((f"{origin}/", "data:", "blob:"))]

    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(part in text for part in self.expected)]


OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def web_server(default_server: Server) -> Server:
    """The shared server, with the web app built."""
    built = Path(__file__).parents[2] / "src" / "chatwright" / "web_dist" / "index.html"
    assert built.is_file(), "the web app is not built: run `make web`"
    return default_server


@pytest.fixture(scope="session")
def locked_server(model_home: Path) -> Iterator[Server]:
    """A server that wants an API key."""
    with serve(model_home, "--api-key", API_KEY) as server:
        yield server


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def open_page(browser: Browser, web_server: Server, watch: Watch) -> Iterator[OpenPage]:
    """Opens the app in a browser profile of its own. At the end no page may have left its origin or logged an error."""
    contexts = []
    origins = []

    def open_page(
        path: str = "/",
        *,
        server: Server = web_server,
        language: str = "en-US",
        theme: str = "light",
        width: int = 1280,
        height: int = 800,
    ) -> Page:
        context = browser.new_context(locale=language, color_scheme=theme, viewport={"width": width, "height": height})
        contexts.append(context)
        parts = urlsplit(server.url)
        origins.append(f"{parts.scheme}://{parts.netloc}")
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", watch.on_request)
        page.on("console", watch.on_console)
        page.on("pageerror", lambda error: watch.complaints.append(str(error)))
        page.goto(server.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    for origin in origins:
        assert watch.foreign(origin) == []
    assert watch.unexpected() == []


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """The chat page, ready to answer."""
    page = open_page()
    page.wait_for_selector("[data-testid=model]:enabled")
    return page
