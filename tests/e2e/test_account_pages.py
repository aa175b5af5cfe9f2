"""People sign in, invite each other, and make keys, in a browser, on a server with accounts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Page, expect

from chatwright.store.database import Database
from tests.e2e.axe import violations
from tests.e2e.conftest import OpenPage, Watch
from tests.e2e.test_chat import ask, keep_it_short, wait_for_answer
from tests.server.harness import RunningServer, start_server
from tests.server.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from tests.server.people import email, settle
from tests.server.tiny import make_model_folder
from tests.serving import Server, serve
from tests.store.people import quick_accounts

pytestmark = [pytest.mark.e2e, pytest.mark.model]

EMAIL = "ann@example.org"
PASSWORD = "correct horse battery 马"
LINK = re.compile(r"http://\S+/#welcome=([A-Za-z0-9]{43})")


@pytest.fixture(scope="module")
def accounted_server(model_home: Path) -> Iterator[Server]:
    """A server with accounts, at first without any."""
    with serve(model_home, "--accounts") as server:
        yield server


def setup_link(server: Server) -> re.Match[str]:
    link = LINK.search(server.log.read_text())
    assert link is not None
    return link


@pytest.fixture
def owned(accounted_server: Server) -> Server:
    """The same, with its owner."""
    with httpx.Client(base_url=accounted_server.url, trust_env=False) as http:
        if http.get("/api/session").json()["setup_needed"]:
            body = {"token": setup_link(accounted_server)[1], "email": EMAIL, "password": PASSWORD, "name": "Ann"}
            assert http.post("/api/welcome", json=body).status_code == 200
    return accounted_server


@pytest.fixture(autouse=True)
def _refusals_are_meant(watch: Watch) -> None:
    watch.expected += ["401", "404"]  # the browser logs them; a wrong password and a used link are part of these tests


def sign_in(page: Page, email: str = EMAIL, password: str = PASSWORD) -> None:
    page.get_by_test_id("email").fill(email)
    page.get_by_test_id("password").fill(password)
    page.keyboard.press("Enter")


def open_as_owner(open_page: OpenPage, server: Server, path: str = "/", **options: str | int) -> Page:
    page = open_page(path, server=server, **options)
    sign_in(page)
    expect(page.get_by_test_id("account")).to_be_attached()
    return page


@contextmanager
def signed_in(server: Server) -> Iterator[httpx.Client]:
    """The owner's other browser."""
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.post("/api/session", json={"email": EMAIL, "password": PASSWORD}).status_code == 200
        assert http.get("/v1/models").status_code == 200
        yield http


def test_from_the_printed_link_to_the_first_answer(open_page: OpenPage, accounted_server: Server, watch: Watch) -> None:
    page = open_page(server=accounted_server)
    expect(page.get_by_test_id("set-up")).to_be_visible()
    assert violations(page) == []
    link = setup_link(accounted_server)
    watch.requests.clear()
    page = open_page(f"/#welcome={link[1]}", server=accounted_server)
    assert page.url == f"{accounted_server.url}/", "the token left the address bar"
    page.get_by_test_id("email").fill(EMAIL)
    page.get_by_test_id("name").fill("Ann")
    page.get_by_test_id("new-password").fill(PASSWORD)
    assert violations(page) == []
    page.get_by_test_id("welcome-button").click()
    expect(page.get_by_test_id("model")).to_be_enabled()
    assert not any(link[1] in url for url in watch.requests)
    stored = page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")
    assert link[1] not in stored
    assert "session" not in stored, "no script can read the cookie"
    keep_it_short(page)
    ask(page, "What is the capital of France?")
    assert "Paris" in wait_for_answer(page, "complete|length")
    page.reload()
    expect(page.get_by_test_id("account")).to_be_visible()
    page = open_page(f"/#welcome={link[1]}", server=accounted_server)
    expect(page.get_by_test_id("bad-link")).to_be_visible()
    assert violations(page) == []


def test_signing_in_and_out(open_page: OpenPage, owned: Server) -> None:
    page = open_page(server=owned)
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    expect(page.get_by_test_id("email")).to_be_focused()
    expect(page.get_by_test_id("composer")).not_to_be_attached()
    sign_in(page, password="not the password")
    expect(page.get_by_test_id("failure")).to_have_text("The email address or the password is wrong.")
    sign_in(page)
    expect(page.get_by_test_id("model")).to_be_enabled()
    other_tab = page.context.new_page()
    other_tab.goto(f"{owned.url}/#/account")
    other_tab.get_by_test_id("sign-out").click()
    expect(other_tab.get_by_test_id("sign-in")).to_be_visible()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange', {bubbles: true}))")
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("sign-in")).to_be_visible()


def test_an_invited_user_comes_in_and_is_kept_out_again(open_page: OpenPage, owned: Server) -> None:
    owner = open_as_owner(open_page, owned, "/#/users")
    owner.get_by_test_id("invite").click()
    owner.get_by_test_id("invite-email").fill("李雷@example.org")
    owner.get_by_test_id("invite-name").fill("李雷")
    owner.get_by_test_id("invite-button").click()
    link = owner.get_by_test_id("secret").input_value()
    owner.keyboard.press("Escape")
    expect(owner.get_by_test_id("secret")).to_be_visible()  # shown once: only its button closes it
    owner.get_by_test_id("invite-done").click()
    guest = open_page(link.removeprefix(owned.url), server=owned)
    expect(guest.get_by_test_id("email")).to_have_value("李雷@example.org")
    guest.get_by_test_id("new-password").fill(PASSWORD)
    guest.keyboard.press("Enter")
    expect(guest.get_by_test_id("model")).to_be_enabled()
    guest.goto(f"{owned.url}/#/users")
    expect(guest.get_by_role("heading", name="My account")).to_be_visible()
    owner.get_by_text("李雷@example.org").click()
    owner.get_by_test_id("suspend").click()
    owner.get_by_test_id("yes").click()
    expect(owner.get_by_test_id("user-dialog").get_by_test_id("status")).to_have_text("Suspended")
    guest.get_by_test_id("back-to-chat").click()
    ask(guest, "Hello")
    expect(guest.get_by_test_id("sign-in")).to_be_visible()
    sign_in(guest, "李雷@example.org")
    expect(guest.get_by_test_id("failure")).to_be_visible()
    owner.get_by_test_id("remove").click()
    owner.get_by_test_id("yes").click()
    expect(owner.get_by_text("李雷@example.org")).to_have_count(0)


def test_a_key_made_here_opens_the_api_until_it_is_revoked(open_page: OpenPage, owned: Server) -> None:
    page = open_as_owner(open_page, owned, "/#/keys")
    page.get_by_test_id("new-key").click()
    page.get_by_test_id("key-name").fill("laptop")
    page.get_by_test_id("make-key").click()
    key = page.get_by_test_id("secret").input_value()
    page.get_by_test_id("key-done").click()
    assert key not in page.content()
    with httpx.Client(base_url=owned.url, trust_env=False, headers={"Authorization": f"Bearer {key}"}) as program:
        assert program.get("/v1/models").status_code == 200
        page.get_by_test_id("keys").get_by_test_id("revoke").click()
        page.get_by_test_id("yes-revoke").click()
        expect(page.get_by_test_id("keys").get_by_test_id("key")).to_have_count(0)
        assert program.get("/v1/models").status_code == 401


@pytest.mark.parametrize("withheld", [False, True])
def test_a_key_is_copied_also_where_the_browser_withholds_its_clipboard(
    open_page: OpenPage, owned: Server, withheld: bool
) -> None:
    page = open_page(server=owned)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    if withheld:  # as on plain http at an address of the local network
        page.add_init_script(
            """
            window.keptClipboard = navigator.clipboard;
            Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true});
            """
        )
    page.goto(f"{owned.url}/#/keys")
    page.reload()
    sign_in(page)
    page.get_by_test_id("new-key").click()
    page.get_by_test_id("key-name").fill("to copy")
    page.get_by_test_id("make-key").click()
    key = page.get_by_test_id("secret").input_value()
    page.get_by_test_id("copy-secret").click()
    expect(page.get_by_test_id("copy-state")).to_have_text("Copied")
    assert page.evaluate("(window.keptClipboard ?? navigator.clipboard).readText()") == key


def test_signing_out_elsewhere_and_a_new_password(open_page: OpenPage, owned: Server) -> None:
    page = open_as_owner(open_page, owned, "/#/account")
    with signed_in(owned) as elsewhere:
        page.reload()
        expect(page.get_by_test_id("end-session").first).to_be_visible()
        page.get_by_test_id("end-other-sessions").click()
        expect(page.get_by_test_id("end-session")).to_have_count(0)
        assert elsewhere.get("/v1/models").status_code == 401
    with signed_in(owned) as elsewhere:
        page.get_by_test_id("old-password").fill(PASSWORD)
        page.get_by_test_id("new-password").fill(PASSWORD)
        page.get_by_test_id("change-password").click()
        expect(page.get_by_text("The password was changed")).to_be_visible()
        assert elsewhere.get("/v1/models").status_code == 401
    page.get_by_test_id("own-name").fill("Ann B.")
    page.get_by_test_id("save-name").click()
    expect(page.get_by_text("Saved")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("own-name")).to_have_value("Ann B.")


def test_the_documentation_uses_the_session(open_page: OpenPage, owned: Server, watch: Watch) -> None:
    watch.expected.append("400")  # the example asks for a model that is not here
    page = open_as_owner(open_page, owned)
    page.goto(f"{owned.url}/docs")
    page.get_by_text("/v1/completions", exact=True).first.click()
    page.get_by_role("button", name="Try it out").first.click()
    with page.expect_response(f"{owned.url}/v1/completions") as answered:
        page.get_by_role("button", name="Execute").first.click()
    assert answered.value.request.headers["x-csrf-token"]
    assert answered.value.status not in (401, 403)


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible_by_the_rules_of_wcag_aa(open_page: OpenPage, owned: Server, theme: str, language: str) -> None:
    page = open_page(server=owned, theme=theme, language=language)
    sign_in(page, password="wrong")
    expect(page.get_by_test_id("failure")).to_be_visible()
    assert violations(page) == []
    sign_in(page)
    expect(page.get_by_test_id("model")).to_be_enabled()
    assert violations(page) == []
    page.get_by_test_id("account").click()
    expect(page.get_by_test_id("sessions").get_by_role("listitem").first).to_be_visible()
    assert violations(page) == []
    page.get_by_test_id("nav-keys").click()
    expect(page.get_by_test_id("keys")).to_be_attached()
    page.get_by_test_id("new-key").click()
    assert violations(page) == []
    page.get_by_test_id("key-name").fill("for axe")
    page.get_by_test_id("make-key").click()
    expect(page.get_by_test_id("secret")).to_be_visible()
    assert violations(page) == []
    page.get_by_test_id("key-done").click()
    page.get_by_test_id("revoke").first.click()
    page.get_by_test_id("yes-revoke").click()
    page.locator("details").click()
    assert violations(page) == []
    page.get_by_test_id("nav-users").click()
    page.get_by_test_id("invite").click()
    assert violations(page) == []
    guest = f"{uuid4()}@example.org"  # the only owner cannot be suspended
    page.get_by_test_id("invite-email").fill(guest)
    page.get_by_test_id("invite-name").fill("To be suspended")
    page.get_by_test_id("invite-button").click()
    page.get_by_test_id("invite-done").click()
    page.get_by_text(guest).click()
    expect(page.get_by_test_id("user-role")).to_be_visible()
    assert violations(page) == []
    page.get_by_test_id("suspend").click()
    assert violations(page) == []


def test_everything_can_be_done_with_the_keyboard(open_page: OpenPage, owned: Server) -> None:
    page = open_page(server=owned)
    expect(page.get_by_test_id("email")).to_be_focused()
    page.keyboard.type(EMAIL)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_test_id("account").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="My account")).to_be_focused()
    reached = []
    for _ in range(32):
        page.keyboard.press("Shift+Tab" if len(reached) < 10 else "Tab")
        reached.append(page.evaluate("document.activeElement.dataset.testid"))
    for name in ("back-to-chat", "language", "theme", "nav-keys", "nav-users", "sign-out", "own-name", "old-password"):
        assert name in reached
    page.get_by_test_id("nav-keys").focus()
    page.keyboard.press("Enter")
    page.get_by_test_id("new-key").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("key-name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("new-key")).to_be_focused()
    page.go_back()
    expect(page.get_by_role("heading", name="My account")).to_be_visible()


def test_fits_a_screen_360_pixels_wide(open_page: OpenPage, owned: Server) -> None:
    page = open_page(server=owned, width=360, height=640, language="en-US")

    def fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        main = page.locator("main:visible")
        assert main.evaluate("main => main.scrollWidth <= main.clientWidth")

    fits()
    sign_in(page)
    expect(page.get_by_test_id("model")).to_be_enabled()
    fits()
    page.get_by_test_id("account").click()
    expect(page.get_by_test_id("sessions").get_by_role("listitem").first).to_be_visible()
    fits()
    page.get_by_test_id("nav-users").click()
    page.get_by_test_id("user").first.click()
    expect(page.get_by_test_id("user-role")).to_be_visible()
    fits()
    dialog = page.get_by_test_id("user-dialog")
    assert dialog.evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider(person={"sub": "subject-ann", "email": EMAIL})
    provider.start()
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def server_with_provider(
    provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A small one, in this process: of the way there and back the model knows nothing."""
    folder = tmp_path_factory.mktemp("oidc")
    with ThreadPoolExecutor(1) as elsewhere:  # in this thread runs Playwright's event loop
        people = elsewhere.submit(settle, folder / "home").result()
    server = start_server(
        make_model_folder(folder / "tiny"),
        accounts=quick_accounts(Database(people.url)),
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_name="Example",
    )
    yield server
    server.stop()


def test_through_the_identity_provider_and_back(
    open_page: OpenPage, provider: IdentityProvider, server_with_provider: RunningServer, watch: Watch
) -> None:
    page = open_page(server=server_with_provider)
    expect(page.get_by_test_id("provider")).to_have_text("Sign in with Example")
    assert violations(page) == []
    page.get_by_test_id("provider").click()
    expect(page.get_by_test_id("provider-problem")).to_contain_text("There is no account here for you")
    assert page.url == f"{server_with_provider.url}/"
    assert violations(page) == []
    provider.person = {"sub": "subject-member", "email": email("member")}
    page.get_by_test_id("provider").click()
    expect(page.get_by_test_id("account")).to_have_attribute("aria-label", "Account: member")
    assert page.url == f"{server_with_provider.url}/"
    assert "session" not in page.evaluate("document.cookie")
    page.reload()
    page.get_by_test_id("account").click()
    page.get_by_test_id("sign-out").click()
    expect(page.get_by_test_id("provider")).to_be_visible()
    # The one foreign origin that the browser may go to, and only there where the person clicked.
    watch.requests = [
        url for url in watch.requests if not url.startswith(f"http://127.0.0.1:{provider.port}/authorize?")
    ]
