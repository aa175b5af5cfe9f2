"""Conversations on a server with accounts, in a browser: they outlive the page, and so do answers under way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.axe import violations
from tests.e2e.conftest import OpenPage, Watch
from tests.e2e.test_chat import ask, keep_it_short, wait_for_answer
from tests.serving import Server, serve

pytestmark = [pytest.mark.e2e, pytest.mark.model]

EMAIL = "ann@example.org"
PASSWORD = "correct horse battery 马"
LINK = re.compile(r"http://\S+/#welcome=([A-Za-z0-9]{43})")
LONG = "Write a very long story about a ship, with many chapters."

OpenSignedIn = Callable[..., Page]


@pytest.fixture(scope="module")
def owned(model_home: object) -> Iterator[Server]:
    """A server with accounts, and its owner."""
    with serve(model_home, "--accounts") as server:
        link = LINK.search(server.log.read_text())
        assert link is not None
        body = {"token": link[1], "email": EMAIL, "password": PASSWORD, "name": "Ann"}
        assert httpx.post(f"{server.url}/api/welcome", json=body, trust_env=False).status_code == 200
        yield server


@pytest.fixture
def signed_in(open_page: OpenPage, owned: Server, watch: Watch) -> OpenSignedIn:
    """Opens the chat as the owner."""

    def open_signed_in(**options: object) -> Page:
        page = open_page(server=owned, **options)
        answer = page.context.request.post(
            f"{owned.url}/api/session", data={"email": EMAIL, "password": PASSWORD}, headers={"Origin": owned.url}
        )
        assert answer.ok, answer.text()
        page.reload()
        page.wait_for_selector("[data-testid=model]:enabled")
        return page

    return open_signed_in


def row(page: Page, title: str) -> Locator:
    return page.get_by_test_id("conversation").filter(has_text=title)


def answer_text(page: Page) -> str:
    return page.get_by_test_id("answer").last.inner_text()


def wait_for_words(page: Page, n: int = 5) -> str:
    expect(page.get_by_test_id("answer").last).to_contain_text(re.compile(rf"(\w+\W+){{{n}}}"))
    return answer_text(page)


def test_a_reload_in_the_middle_of_an_answer_goes_on_with_it(signed_in: OpenSignedIn) -> None:
    page = signed_in()
    ask(page, LONG)
    before = wait_for_words(page)
    address = page.url
    assert "#/c/conv-" in address
    page.reload()
    expect(page.get_by_test_id("user-message")).to_contain_text("very long story")
    expect(page.get_by_test_id("stop")).to_be_visible()
    after = wait_for_words(page)
    assert page.url == address
    assert after.startswith(before[: len(before) // 2])
    page.wait_for_function("n => document.querySelector('[data-testid=answer]').textContent.length > n", arg=len(after))
    page.get_by_test_id("stop").click()
    text = wait_for_answer(page, "stopped")
    assert len(text) > len(before)
    page.reload()
    assert wait_for_answer(page, "stopped") == text, "what was written is kept"


def test_a_second_tab_reads_along_and_can_stop(signed_in: OpenSignedIn) -> None:
    page = signed_in()
    ask(page, LONG)
    wait_for_words(page)
    other = page.context.new_page()
    other.goto(page.url)
    wait_for_words(other)
    expect(other.get_by_test_id("generating")).to_be_visible()
    other.get_by_test_id("stop").click()
    text = wait_for_answer(other, "stopped")
    assert wait_for_answer(page, "stopped") == text
    expect(page.get_by_test_id("send")).to_be_visible()


def test_an_answer_goes_on_while_another_conversation_is_open(signed_in: OpenSignedIn) -> None:
    page = signed_in()
    keep_it_short(page)
    ask(page, "Tell me about the sea, please.")
    page.get_by_test_id("begin-conversation").click()
    expect(page.get_by_test_id("examples")).to_be_visible()
    expect(row(page, "about the sea").get_by_test_id("generating")).not_to_be_visible()
    row(page, "about the sea").get_by_test_id("open-conversation").click()
    assert wait_for_answer(page, "complete|length")
    page.go_back()
    expect(page.get_by_test_id("examples")).to_be_visible()


def test_versions_are_there_after_a_reload(signed_in: OpenSignedIn) -> None:
    page = signed_in()
    keep_it_short(page)
    ask(page, "What is the capital of Italy?")
    first = wait_for_answer(page, "complete|length")
    page.get_by_test_id("user-message").hover()
    page.get_by_test_id("edit").click()
    page.get_by_test_id("edit-composer").fill("What is the capital of France?")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("answer")).to_contain_text("Paris")
    second = wait_for_answer(page, "complete|length")
    page.reload()
    assert wait_for_answer(page, "complete|length") == second
    expect(page.get_by_test_id("versions")).to_contain_text("2/2")
    page.get_by_test_id("user-message").hover()
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        page.get_by_role("button", name="Previous version").click()
    expect(page.get_by_test_id("answer")).to_have_text(first, use_inner_text=True)
    page.reload()
    expect(page.get_by_test_id("versions")).to_contain_text("1/2")
    expect(page.get_by_test_id("answer")).to_have_text(first, use_inner_text=True)


def test_conversations_are_listed_renamed_and_deleted(signed_in: OpenSignedIn) -> None:
    page = signed_in()
    keep_it_short(page)
    ask(page, "What is the capital of Spain?")
    wait_for_answer(page, "complete|length")
    mine = row(page, "capital of Spain")
    mine.hover()
    mine.get_by_test_id("rename").click()
    page.get_by_test_id("title").fill("西班牙 🇪🇸")
    page.keyboard.press("Enter")
    expect(row(page, "西班牙 🇪🇸")).to_be_visible()
    page.reload()
    mine = row(page, "西班牙 🇪🇸")
    expect(mine).to_be_visible()
    mine.hover()
    mine.get_by_test_id("delete").click()
    page.get_by_test_id("confirm-delete").click()
    expect(mine).to_have_count(0)
    expect(page.get_by_test_id("examples")).to_be_visible()


def test_an_address_of_nothing_leads_to_a_new_conversation(
    signed_in: OpenSignedIn, owned: Server, watch: Watch
) -> None:
    watch.expected.append("404")
    page = signed_in()
    page.goto(f"{owned.url}/#/c/conv-{'x' * 22}")
    page.reload()
    expect(page.get_by_test_id("examples")).to_be_visible()
    expect(page).to_have_url(f"{owned.url}/#/")


def test_the_list_is_usable_on_a_small_screen_and_by_everybody(signed_in: OpenSignedIn) -> None:
    for language, theme, width in (("en-US", "light", 1280), ("zh-CN", "dark", 390)):
        page = signed_in(language=language, theme=theme, width=width)
        keep_it_short(page)
        ask(page, "What is the capital of Japan?")
        wait_for_answer(page, "complete|length")
        if width < 768:
            expect(page.get_by_test_id("conversations")).not_to_be_visible()
            page.get_by_test_id("show-conversations").click()
        expect(row(page, "capital of Japan").first).to_be_visible()
        assert violations(page) == []
        if width < 768:
            row(page, "capital of Japan").first.get_by_test_id("open-conversation").click()
            expect(page.get_by_test_id("conversations")).not_to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_accounts_a_conversation_stays_on_the_page(page: Page) -> None:
    keep_it_short(page)
    ask(page, "What is the capital of France?")
    wait_for_answer(page, "complete|length")
    expect(page.get_by_test_id("conversations")).to_have_count(0)
    page.reload()
    expect(page.get_by_test_id("examples")).to_be_visible()
