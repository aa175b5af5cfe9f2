"""The page of `explain` in a browser: everything is drawn, answers to mouse and keyboard, and runs no foreign script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from chatwright.inspection.explain import Explanation, explain
from chatwright.inspection.page import write_page
from chatwright.inspection.subject import open_subject
from tests.e2e.conftest import Watch
from tests.inspection.conftest import SETTINGS
from tests.inspection.test_page import HOSTILE
from tests.server.tiny import make_model_folder

pytestmark = pytest.mark.e2e

Show = Callable[..., Page]


@pytest.fixture(scope="module")
def explanation(tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    folder = make_model_folder(tmp_path_factory.mktemp("explained") / "tiny")
    return explain(open_subject(folder, "tiny", SETTINGS), "The capital of France is", answer=" Paris.\n你好")


@pytest.fixture
def show(browser: Browser, watch: Watch, tmp_path: Path) -> Iterator[Show]:
    contexts = []

    def show(explanation: Explanation, *, theme: str = "light", width: int = 1280) -> Page:
        file = tmp_path / "page.html"
        write_page(explanation, file)
        context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": 800})
        contexts.append(context)
        page = context.new_page()
        page.on("request", watch.on_request)
        page.on("console", watch.on_console)
        page.on("pageerror", lambda error: watch.complaints.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert watch.foreign("file://") == []
    assert watch.unexpected() == []


def test_everything_is_drawn(show: Show, explanation: Explanation) -> None:
    page = show(explanation)
    expect(page.locator("#tokens .token")).to_have_count(len(explanation.tokens))
    expect(page.locator("#attention .heads button")).to_have_count(5)
    expect(page.locator("#lens-table tbody tr")).to_have_count(3)
    expect(page.locator("#map circle.seen")).not_to_have_count(0)
    expect(page.locator("#attribution .bar")).not_to_have_count(0)
    painted = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0)"
    assert page.locator("#attention-map").evaluate(painted)
    bars = page.locator("#tokens .bar")
    assert bars.first.evaluate("bar => bar.getBoundingClientRect().width") > 0
    colours = page.locator("#tokens .token").evaluate_all("all => all.map(t => t.style.backgroundColor)")
    assert len(set(colours)) > 3


def test_a_click_and_the_keyboard_choose_tokens_layers_and_cells(show: Show, explanation: Explanation) -> None:
    page = show(explanation)
    chosen = page.locator("#tokens .token[aria-pressed=true]")
    page.locator("#tokens .token").nth(2).click()
    expect(page.locator("#tokens dd").first).to_contain_text("(2)")
    chosen.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tokens dd").first).to_contain_text("(3)")
    expect(chosen).to_be_focused()
    page.locator("#layer").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("label[for=layer]")).to_contain_text("1 / 2")
    page.locator("#head2").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#head2")).to_have_attribute("aria-pressed", "true")
    page.locator("#lens-table td.chosen").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#lens-table td.chosen")).to_be_focused()
    expect(page.locator("#lens strong").last).to_contain_text("Layer 1")
    point = page.locator("#map circle.seen").last
    name = point.get_attribute("aria-label")
    point.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#embeddings strong")).to_contain_text(str(name))


def test_chinese_dark_and_narrow(show: Show, explanation: Explanation) -> None:
    page = show(explanation, theme="dark", width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#language").click()
    expect(page.locator("#attention h2")).to_have_text("注意力")
    assert page.evaluate("document.documentElement.lang") == "zh"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_hostile_tokens_are_text(show: Show, explanation: Explanation) -> None:
    tokens = [replace(token, text=HOSTILE, alternatives=[replace(a, text=HOSTILE) for a in token.alternatives])
              for token in explanation.tokens]  # fmt: skip
    page = show(replace(explanation, tokens=tokens, model=HOSTILE))
    expect(page.locator("#tokens .token")).to_have_count(len(tokens))
    expect(page.locator("#tokens .token").first).to_contain_text("<script>window.pwned=1</script>")
    assert page.evaluate("window.pwned === undefined && document.querySelectorAll('img').length === 0")
