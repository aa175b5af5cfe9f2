"""A person talks to the default model in the browser."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.e2e.conftest import API_KEY, OpenPage, Watch
from tests.serving import Server

pytestmark = [pytest.mark.e2e, pytest.mark.model]

RECORD_GROWTH = """() => {
    window.seen = new Set();
    new MutationObserver(() => {
        const answer = document.querySelector('[data-testid=answer]');
        if (answer) window.seen.add(answer.textContent);
    }).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""


def keep_it_short(page: Page) -> None:
    """The engine's own answers, but greedy and cut short: for tests that need them whole and soon."""

    def shorten(route: Route) -> None:
        route.continue_(post_data={**route.request.post_data_json, "temperature": 0, "max_tokens": 24})

    for path in ("**/v1/chat/completions", "**/generations"):
        page.route(path, shorten)


def ask(page: Page, question: str) -> None:
    page.get_by_test_id("composer").fill(question)
    page.keyboard.press("Enter")


def wait_for_answer(page: Page, state: str = "complete") -> str:
    """The text of the newest answer, once it is in `state`."""
    message = page.get_by_test_id("assistant-message").last
    expect(message).to_have_attribute("data-state", re.compile(f"^({state})$"), timeout=60_000)
    return message.get_by_test_id("answer").inner_text()


def running(server: Server) -> int:
    """How many requests the engine works on."""
    return int(httpx.get(f"{server.url}/health", trust_env=False).json()["running"])


def test_the_answer_appears_token_by_token_and_is_right(page: Page) -> None:
    page.evaluate(RECORD_GROWTH)
    ask(page, "What is the capital of France?")
    expect(page.get_by_test_id("answer")).to_contain_text("Paris")
    stages = sorted(page.evaluate("[...window.seen]"), key=len)
    assert len(stages) >= 5
    final = stages[-1]
    assert all(final.startswith(stage) for stage in stages)


def test_stop_stops_the_engine(page: Page, web_server: Server) -> None:
    ask(page, "Write a very long story about a ship, with many chapters.")
    expect(page.get_by_test_id("answer")).to_contain_text(re.compile(r"\w+ \w+"))
    assert running(web_server) == 1
    page.get_by_test_id("stop").click()
    deadline = time.monotonic() + 2
    while running(web_server) > 0:
        assert time.monotonic() < deadline, "the engine still works two seconds after stop"
        time.sleep(0.05)
    text = wait_for_answer(page, "stopped")
    assert text
    page.wait_for_timeout(500)
    assert page.get_by_test_id("answer").inner_text() == text
    expect(page.get_by_test_id("send")).to_be_visible()


def test_a_new_conversation_stops_the_engine_too(page: Page, web_server: Server) -> None:
    ask(page, "Write a very long story about a mountain, with many chapters.")
    expect(page.get_by_test_id("answer")).to_contain_text(re.compile(r"\w+"))
    page.get_by_test_id("new-chat").click()
    expect(page.get_by_test_id("examples")).to_be_visible()
    deadline = time.monotonic() + 2
    while running(web_server) > 0:
        assert time.monotonic() < deadline, "the engine still works two seconds after the conversation was left"
        time.sleep(0.05)


def test_asking_again_keeps_both_answers(page: Page) -> None:
    keep_it_short(page)
    ask(page, "What is the capital of Italy?")
    first = wait_for_answer(page, "complete|length")
    page.get_by_test_id("regenerate").click()
    expect(page.get_by_test_id("versions")).to_contain_text("2/2")
    wait_for_answer(page, "complete|length")
    page.get_by_role("button", name="Previous version").click()
    expect(page.get_by_test_id("answer")).to_have_text(first, use_inner_text=True)


def test_the_model_is_told_the_whole_conversation(page: Page) -> None:
    keep_it_short(page)
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if request.method == "POST" else None)
    ask(page, "What is the capital of France?")
    wait_for_answer(page, "complete|length")
    ask(page, "And of Italy?")
    expect(page.get_by_test_id("assistant-message")).to_have_count(2)
    wait_for_answer(page, "complete|length")
    messages = bodies[-1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert "Paris" in messages[1]["content"]


def test_enter_in_the_middle_of_a_chinese_word_does_not_send(page: Page) -> None:
    composer = page.get_by_test_id("composer")
    composer.focus()
    ime = page.context.new_cdp_session(page)
    ime.send("Input.imeSetComposition", {"text": "ni hao", "selectionStart": 6, "selectionEnd": 6})
    expect(composer).to_have_value("ni hao")
    # As the browser reports a key that the input method takes for itself: no character comes of it.
    key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    page.evaluate("document.addEventListener('keydown', event => window.composing = event.isComposing)")
    ime.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})
    ime.send("Input.dispatchKeyEvent", {"type": "keyUp", **key})
    assert page.evaluate("window.composing") is True
    expect(page.get_by_test_id("user-message")).to_have_count(0)
    ime.send("Input.insertText", {"text": "你好"})  # the input method commits the word
    expect(composer).to_have_value("你好")
    expect(page.get_by_test_id("user-message")).to_have_count(0)
    page.keyboard.press("Shift+Enter")
    expect(composer).to_have_value("你好\n")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("user-message")).to_contain_text("你好")
    page.get_by_test_id("stop").click()
    wait_for_answer(page, "stopped|complete|length")


def test_language_and_theme_are_the_browsers_until_chosen_and_then_remembered(open_page: OpenPage) -> None:
    page = open_page(language="zh-CN", theme="dark")
    expect(page.get_by_test_id("composer")).to_have_attribute("placeholder", "问点什么")
    expect(page.locator("html")).to_have_class("dark")
    page.get_by_test_id("language").select_option("en")
    expect(page.get_by_test_id("composer")).to_have_attribute("placeholder", "Ask anything")
    page.get_by_test_id("theme").click()
    expect(page.locator("html")).not_to_have_class("dark")
    page.reload()
    expect(page.get_by_test_id("composer")).to_have_attribute("placeholder", "Ask anything")
    expect(page.locator("html")).not_to_have_class("dark")


def test_an_english_model_says_so_and_gets_english_examples(open_page: OpenPage) -> None:
    page = open_page(language="zh-CN")
    expect(page.get_by_test_id("language-notice")).to_contain_text("只会说英语")
    expect(page.get_by_test_id("examples")).to_contain_text("What is the capital of France?")


def test_a_key_is_asked_for_once_and_forgotten_with_the_tab(
    open_page: OpenPage, locked_server: Server, watch: Watch
) -> None:
    watch.expected.append("401")
    page = open_page(server=locked_server)
    expect(page.get_by_test_id("key-dialog")).to_be_visible()
    page.get_by_test_id("key-input").fill("sk-wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("key-dialog")).to_contain_text("did not accept that key")
    page.get_by_test_id("key-input").fill(API_KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("key-dialog")).not_to_be_visible()
    expect(page.get_by_test_id("model")).to_be_enabled()
    keep_it_short(page)
    ask(page, "What is the capital of France?")
    assert wait_for_answer(page, "complete|length")
    page.reload()
    expect(page.get_by_test_id("model")).to_be_enabled()
    stored = page.evaluate("JSON.stringify({...localStorage}) + document.cookie")
    assert API_KEY not in stored
    other_tab = open_page(server=locked_server)
    expect(other_tab.get_by_test_id("key-dialog")).to_be_visible()


def operation(page: Page, path: str) -> Locator:
    """A path on the API's page, which draws a long list only where one looks."""
    expect(page.get_by_text("/v1/completions", exact=True).first).to_be_visible(timeout=60_000)
    found = page.get_by_text(path, exact=True).first
    page.mouse.move(400, 400)
    for _ in range(60):
        if found.is_visible():
            break
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(100)
    return found


def test_the_api_is_documented_without_help_from_outside(open_page: OpenPage) -> None:
    page = open_page("/docs")
    expect(operation(page, "/v1/chat/completions")).to_be_visible()
    expect(operation(page, "/v1/models")).to_be_visible()


def test_the_documentation_uses_the_key_of_the_chat(open_page: OpenPage, locked_server: Server, watch: Watch) -> None:
    watch.expected.append("401")
    page = open_page(server=locked_server)
    page.get_by_test_id("key-input").fill(API_KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("model")).to_be_enabled()
    page.goto(f"{locked_server.url}/docs")
    operation(page, "/v1/models").click()
    page.get_by_role("button", name="Try it out").first.click()
    with page.expect_response(f"{locked_server.url}/v1/models") as answered:
        page.get_by_role("button", name="Execute").first.click()
    assert answered.value.status == 200
