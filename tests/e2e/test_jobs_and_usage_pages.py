"""The pages of training jobs and of usage, in a browser, on a server that really trains and counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from chatwright.store.database import Database
from tests.e2e.axe import violations
from tests.e2e.conftest import OpenPage, Watch
from tests.e2e.test_chat import ask, wait_for_answer
from tests.jobs.making import CATS, chat, lines
from tests.server.harness import MODEL, RunningServer, start_server, wait_until
from tests.server.people import ADMIN_TOKEN, People, bearer, browser, email, settle
from tests.server.tiny import make_model_folder
from tests.store.people import PASSWORD, quick_accounts

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# Workers stand behind everything else that the machine does.
PATIENCE_MS = 250_000
ANSWER = "The cat sat on the mat."
HOSTILE_NAME = "<img src=x onerror=window.pwned=1>"
MANY = [chat(f"The cat {n}?", ANSWER) for n in range(60)]


@dataclass
class Place:
    """A server with accounts on a model so small that it is trained in seconds."""

    server: RunningServer
    people: People


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("pages")
    with ThreadPoolExecutor(1) as elsewhere:  # in this thread runs Playwright's event loop
        people = elsewhere.submit(settle, folder / "home").result()
    accounts = quick_accounts(Database(people.url))
    server = start_server(make_model_folder(folder / "tiny"), accounts=accounts, admin_token=ADMIN_TOKEN)
    yield Place(server, people)
    server.stop()


OpenAs = Callable[..., Page]


@pytest.fixture
def open_as(open_page: OpenPage, place: Place, watch: Watch) -> OpenAs:
    """Opens a page of the app as somebody."""
    watch.expected += ["404"]  # the browser logs it: of a file that is gone a job knows the id only

    def open_as(name: str, path: str, **options: str | int) -> Page:
        page = open_page(path, server=place.server, **options)
        page.get_by_test_id("email").fill(email(name))
        page.get_by_test_id("password").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("account-pages")).to_be_visible()
        return page

    return open_as


def file_of(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def start(page: Page, training: Path, *, validation: Path | None = None, name: str = "", **numbers: str) -> None:
    """Fill in the form, with files from this machine, and start."""
    page.get_by_test_id("new-job").click()
    page.get_by_test_id("training-input").set_input_files(training)
    expect(page.get_by_test_id("training-file")).not_to_have_value("")
    if validation is not None:
        page.get_by_test_id("validation-input").set_input_files(validation)
        expect(page.get_by_test_id("validation-file")).not_to_have_value("")
    page.get_by_test_id("job-suffix").fill(name)
    page.get_by_test_id("more-settings").click()
    for number, value in numbers.items():
        page.get_by_test_id(f"job-{number}").fill(value)
    page.get_by_test_id("start-job").click()
    expect(page.get_by_test_id("open-job-page")).to_be_visible()


def wait_for_status(page: Page, status: str) -> None:
    expect(page.get_by_test_id("open-job-page")).to_have_attribute("data-status", status, timeout=PATIENCE_MS)


def points(page: Page) -> int:
    return int(page.get_by_test_id("job-curve").get_attribute("data-points") or 0)


def wait_for_points(page: Page, n: int) -> None:
    page.wait_for_function(
        "n => Number(document.querySelector('[data-testid=job-curve]')?.dataset.points) >= n",
        arg=n,
        timeout=PATIENCE_MS,
    )


def test_from_a_file_to_the_chat_with_what_was_trained(open_as: OpenAs, tmp_path: Path) -> None:
    page = open_as("member", "/#/jobs")
    expect(page.get_by_test_id("no-jobs")).to_be_visible()
    held_out = file_of(tmp_path, "held-out.jsonl", lines(*CATS[:2]))
    numbers = {"n_epochs": "15", "learning_rate_multiplier": "8", "seed": "5"}
    start(page, file_of(tmp_path, "cats.jsonl", lines(*CATS)), validation=held_out, name="Cat talk", **numbers)
    wait_for_points(page, 2)
    wait_for_status(page, "succeeded")
    assert points(page) > 15
    expect(page.get_by_test_id("job-facts").locator("[data-fact=n_epochs]")).to_have_text("15")
    expect(page.get_by_test_id("job-facts").locator("[data-fact=trainingFile]")).to_have_text("cats.jsonl")
    expect(page.get_by_test_id("job-events")).to_contain_text("The job has successfully completed.")
    expect(page.get_by_test_id("checkpoint").first).to_be_visible()
    assert violations(page) == []
    with page.expect_download() as saved:
        page.get_by_test_id("save-table").click()
    assert saved.value.path().read_text().startswith("step,train_loss,valid_loss\n1,")
    name = page.get_by_test_id("result-name").inner_text()
    page.get_by_test_id("result").get_by_test_id("chat-with").click()
    expect(page.get_by_test_id("model")).to_have_value(name)
    ask(page, "The cat 3?")
    assert ANSWER in wait_for_answer(page, "complete|length")
    page.go_back()
    page.get_by_test_id("checkpoint").first.get_by_test_id("chat-with").click()
    expect(page.get_by_test_id("model")).to_have_value(re.compile(re.escape(name) + r":ckpt-step-\d+"))
    page.goto(page.url.partition("#")[0] + "#/jobs")
    page.get_by_test_id("open-job").click()
    page.get_by_test_id("delete-result").click()
    page.get_by_test_id("ask-delete-yes").click()
    expect(page.get_by_test_id("result")).to_have_attribute("data-there", "false")
    expect(page.get_by_test_id("checkpoint")).to_have_count(0)


def test_a_curve_grows_is_paused_goes_on_and_is_cancelled(open_as: OpenAs, tmp_path: Path) -> None:
    page = open_as("member", "/#/jobs")
    start(page, file_of(tmp_path, "many.jsonl", lines(*MANY)), name="long", n_epochs="100", batch_size="2")
    wait_for_points(page, 2)
    before = points(page)
    wait_for_points(page, before + 2)
    expect(page.get_by_role("progressbar")).to_be_visible()
    assert violations(page) == []
    page.get_by_test_id("all-jobs").click()
    running = page.locator("[data-testid=job][data-status=running]")
    expect(running.get_by_test_id("job-curve")).to_be_visible()
    assert violations(page) == []
    running.get_by_test_id("open-job").click()
    page.get_by_test_id("pause-job").click()
    wait_for_status(page, "paused")
    page.reload()
    wait_for_points(page, before)
    rested = points(page)
    page.get_by_test_id("resume-job").click()
    wait_for_points(page, rested + 1)
    page.get_by_test_id("cancel-job").click()
    page.get_by_test_id("ask-cancel-yes").click()
    wait_for_status(page, "cancelled")
    expect(page.get_by_test_id("job-events")).to_contain_text("The job has been cancelled.")
    expect(page.get_by_test_id("pause-job")).to_have_count(0)


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_wrong_line_is_named_and_shown(open_as: OpenAs, tmp_path: Path, theme: str, language: str) -> None:
    """Names, and the line itself, are whatever somebody sends."""
    page = open_as("other", "/#/jobs", theme=theme, language=language)
    wrong = f'{{"messages": [{{"role": "{HOSTILE_NAME}", "content": "Abracadabra"}}]}}\n'.encode()
    page.get_by_test_id("new-job").wait_for()
    assert violations(page) == []
    start(page, file_of(tmp_path, f"{HOSTILE_NAME}.jsonl", lines(*CATS[:2]) + wrong), name="<b>shouts</b>")
    wait_for_status(page, "failed")
    expect(page.get_by_test_id("job-failure")).to_contain_text("3")
    expect(page.get_by_test_id("wrong-line")).to_contain_text(HOSTILE_NAME)
    expect(page.get_by_test_id("job-facts").locator("[data-fact=trainingFile]")).to_have_text(f"{HOSTILE_NAME}.jsonl")
    expect(page.locator("main img, main b")).to_have_count(0)
    assert page.evaluate("window.pwned") is None
    expect(page.get_by_test_id("job-events").locator("[lang=en]")).to_have_count(0)
    expect(page.get_by_test_id("job-events")).to_contain_text("任务已创建" if language == "zh-CN" else "Created")
    assert violations(page) == []
    page.get_by_test_id("all-jobs").click()
    page.get_by_test_id("new-job").click()
    page.get_by_test_id("more-settings").click()
    assert violations(page) == []


def test_usage_is_what_the_api_says_after_real_requests(open_as: OpenAs, place: Place) -> None:
    people = place.people
    completion = {"model": MODEL, "prompt": "The capital of", "max_tokens": 5}
    with place.server.http(headers=bearer(people.keys["inference key"])) as program:
        spent = [program.post("/v1/completions", json=completion).json()["usage"] for _ in range(3)]
    with browser(place.server, "member") as http:

        def counted() -> int:
            rows = http.get("/api/usage?days=7").json()["data"]
            return sum(row["requests"] for row in rows if row["key_id"] == people.key_ids["inference key"])

        wait_until(lambda: counted() == 3)  # where nothing is limited it is written after the answer
        said = http.get("/api/usage?days=7").json()["data"]
    page = open_as("member", "/#/usage")
    page.get_by_test_id("usage-range").select_option("7")
    for shown, field in (("requests", "requests"), ("input", "input_tokens"), ("output", "output_tokens")):
        total = sum(row[field] for row in said)
        expect(page.get_by_test_id(f"total-{shown}")).to_have_text(f"{total:,}")
    assert sum(row["output_tokens"] for row in said) >= sum(usage["completion_tokens"] for usage in spent)
    page.get_by_test_id("usage-by").select_option("key")
    row = page.locator(f"[data-testid=usage-row][data-name={people.key_ids['inference key']}]")
    expect(row.get_by_role("rowheader")).to_have_text("inference key")
    expect(row.locator("[data-column=requests]")).to_have_text("3")
    expect(page.get_by_test_id("usage-whose")).to_have_count(0)


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_administrator_sees_everybodys_and_sets_a_limit_that_holds(
    open_as: OpenAs, place: Place, watch: Watch, theme: str, language: str
) -> None:
    people = place.people
    completion = {"model": MODEL, "prompt": "The", "max_tokens": 3}
    with place.server.http(headers=bearer(people.keys["full key of other"])) as program:
        assert program.post("/v1/completions", json=completion).status_code == 200
        page = open_as("owner", "/#/usage", theme=theme, language=language)
        page.get_by_test_id("usage-whose").select_option("all")
        page.get_by_test_id("usage-by").select_option("user")
        expect(page.locator(f"[data-name={people.ids['other']}]").get_by_role("rowheader")).to_have_text("other")
        assert violations(page) == []
        page.get_by_test_id("new-limit").click()
        page.get_by_test_id("limit-subject").select_option(people.ids["other"])
        page.get_by_test_id("limit-tokens_per_month").fill("1")
        assert violations(page) == []
        page.get_by_test_id("save-limit").click()
        expect(page.get_by_test_id("limit")).to_have_count(1)
        assert program.post("/v1/completions", json=completion).status_code == 429
        assert violations(page) == []
        page.get_by_test_id("remove-limit").click()
        expect(page.get_by_test_id("no-limits")).to_be_visible()
        assert program.post("/v1/completions", json=completion).status_code == 200


def test_fits_a_screen_360_pixels_wide(open_as: OpenAs, place: Place) -> None:
    with place.server.http(headers=bearer(place.people.keys["inference key"])) as program:
        program.post("/v1/completions", json={"model": MODEL, "prompt": "The", "max_tokens": 3})
    page = open_as("member", "/#/usage", width=360, height=640)

    def fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.locator("main:visible").evaluate("main => main.scrollWidth <= main.clientWidth")

    expect(page.get_by_test_id("usage-table")).to_be_visible()
    fits()
    page.get_by_test_id("nav-jobs").click()
    page.get_by_test_id("new-job").click()
    page.get_by_test_id("more-settings").click()
    fits()
