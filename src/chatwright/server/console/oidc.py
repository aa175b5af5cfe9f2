"""Signing in through an identity provider: the browser is sent there, and comes back with a code.

Both routes end in a redirect to an address of ours or the provider's, made of the settings: nothing of the request says where to.
What went wrong stands behind `#sign-in=` and is told by the page, in its language.
"""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import RedirectResponse

from chatwright.errors import ThrottledError
from chatwright.server.address import own_address
from chatwright.server.client_address import client_address
from chatwright.server.console.wire import NeedAccounts
from chatwright.server.credentials import drop_login, login_token, session_token, set_login, set_session
from chatwright.server.errors import WireError
from chatwright.server.permission import public
from chatwright.server.provider import Provider, ProviderError
from chatwright.server.state import ServerState, State
from chatwright.store.accounts.identities import IdentityRefusedError

log = logging.getLogger(__name__)
# For browsers: no part of the API that programs read about.
router = APIRouter(include_in_schema=False, dependencies=[Depends(public)])

Parameter = Annotated[str | None, Query(max_length=4096)]


async def need_provider(state: State) -> Provider:
    """A dependency: the identity provider. Raises WireError (404) where there is none."""
    if state.provider is None:
        raise WireError(
            404, "This server has no identity provider: CHATWRIGHT_OIDC_ISSUER names one.", code="no_provider"
        )
    return state.provider


NeedProvider = Annotated[Provider, Depends(need_provider)]


@router.get("/oidc/start", status_code=303, response_class=RedirectResponse)
async def start(request: Request, state: State, accounts: NeedAccounts, provider: NeedProvider) -> RedirectResponse:
    """To the identity provider."""
    try:
        login = await accounts.begin_login(client_address(request, state.settings.trusted_proxies))
        url = await provider.authorization_url(login)
    except ThrottledError:
        return _back(state, "busy")
    except ProviderError as error:
        log.warning("The identity provider %s cannot be used: %s", provider.issuer, error)
        return _back(state, "provider")
    response = RedirectResponse(url, 303)
    set_login(response, login.browser, secure=_is_secure(state))
    return response


@router.get("/oidc/callback", status_code=303, response_class=RedirectResponse)
async def come_back(
    request: Request,
    server: State,
    accounts: NeedAccounts,
    provider: NeedProvider,
    code: Parameter = None,
    state: Parameter = None,
    error: Parameter = None,
    iss: Parameter = None,
) -> RedirectResponse:
    """From the identity provider, once, in the browser that was sent there."""
    login = await accounts.end_login(state or "", login_token(request.headers) or "")
    if login is None:
        return _back(server, "state")
    if iss is not None and iss != provider.issuer:  # RFC 9207: the answer of another provider
        return _back(server, "state")
    if error is not None or code is None:
        log.info("The identity provider let nobody through: %.100r", error)
        return _back(server, "refused" if error == "access_denied" else "provider")
    address = client_address(request, server.settings.trusted_proxies)
    try:
        known = await provider.identify(code, login)
        _, token = await accounts.sign_in_as(known, address, new_users=server.settings.oidc_new_users)
    except ProviderError as problem:
        log.warning("The identity provider %s cannot be used: %s", provider.issuer, problem)
        return _back(server, "provider")
    except IdentityRefusedError as refusal:
        return _back(server, refusal.reason)
    before = session_token(request.headers)
    if before is not None:  # a session that somebody else may have put there does not live on
        await accounts.sign_out(before)
    response = _back(server)
    set_session(response, token, secure=_is_secure(server))
    return response


def _back(state: ServerState, problem: str | None = None) -> RedirectResponse:
    """To the page."""
    response = RedirectResponse(f"{own_address(state.settings)}/{f'#sign-in={problem}' if problem else ''}", 303)
    drop_login(response)
    return response


def _is_secure(state: ServerState) -> bool:
    return own_address(state.settings).startswith("https://")
