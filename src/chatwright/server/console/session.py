"""Signing in and out, and who is signed in."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from chatwright.server.address import own_address
from chatwright.server.client_address import client_address
from chatwright.server.console.wire import Body, NeedAccounts, Text, UserObject
from chatwright.server.credentials import csrf_token, drop_session, session_token, set_session
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import actor_of, public
from chatwright.server.state import ServerState, State
from chatwright.store.accounts import users
from chatwright.store.actor import NOBODY, Via
from chatwright.store.tables import User

router = APIRouter(route_class=JsonRoute, tags=["session"], dependencies=[Depends(public)])


class SignInBody(Body):
    """Who one is, and the proof."""

    email: Text
    password: Text


class SignInProvider(BaseModel):
    """Through whom one may sign in beside a password: what the button says, and where it leads."""

    name: str
    url: str


class SessionObject(BaseModel):
    """Who asks. `accounts`: whether this server has any; `setup_needed`: nobody is there yet, and the first owner comes by the link
    that the server printed. `provider`: of identities, where there is one. `user`: None where nobody is signed in. `csrf_token`: to
    be sent as X-CSRF-Token with every request of this session that changes something."""

    object: Literal["session"] = "session"
    accounts: bool
    setup_needed: bool
    provider: SignInProvider | None
    user: UserObject | None
    scopes: list[str]
    csrf_token: str | None


@router.get("/session")
async def get_session(request: Request, state: State) -> SessionObject:
    """Who is signed in, if anybody."""
    actor = actor_of(request)
    accounts = state.accounts
    user = None
    if accounts is not None and actor.via is Via.SESSION:
        async with accounts.database.read() as session:
            user = await users.get_account(session, actor)
    return SessionObject(
        accounts=accounts is not None,
        setup_needed=accounts is not None and actor is NOBODY and not await accounts.has_users(),
        provider=_provider(state),
        user=UserObject.of(user) if user is not None else None,
        scopes=sorted(actor.scopes),
        csrf_token=csrf_token(session_token(request.headers) or "") if user is not None else None,
    )


@router.post("/session")
async def sign_in(
    body: SignInBody, request: Request, response: Response, state: State, accounts: NeedAccounts
) -> SessionObject:
    """Sign in. 401 for a wrong address or password, which of them is not told; 429 after too many tries."""
    address = client_address(request, state.settings.trusted_proxies)
    user, token = await accounts.sign_in(body.email, body.password, address)
    before = session_token(request.headers)
    if before is not None:  # a session that somebody else may have put there does not live on
        await accounts.sign_out(before)
    return begin(user, token, request, response, state)


@router.delete("/session")
async def sign_out(request: Request, response: Response, state: State, accounts: NeedAccounts) -> SessionObject:
    """Sign out, this browser only."""
    token = session_token(request.headers)
    if token is not None:
        await accounts.sign_out(token)
    drop_session(response)
    return SessionObject(
        accounts=True, setup_needed=False, provider=_provider(state), user=None, scopes=[], csrf_token=None
    )


def begin(user: User, token: str, request: Request, response: Response, state: ServerState) -> SessionObject:
    """Give the browser its cookie, and the page what it needs."""
    # The page's own address says whether it came over TLS, which ends at a proxy; a browser writes it, no page can.
    address = state.settings.public_url or request.headers.get("origin", "")
    set_session(response, token, secure=address.startswith("https://"))
    scopes = sorted(scope.value for scope in users.scopes_of(user))
    return SessionObject(
        accounts=True,
        setup_needed=False,
        provider=_provider(state),
        user=UserObject.of(user),
        scopes=scopes,
        csrf_token=csrf_token(token),
    )


def _provider(state: ServerState) -> SignInProvider | None:
    """At our own address, which is where the provider sends people back to: a cookie of another name of ours would not be there."""
    if state.provider is None:
        return None
    return SignInProvider(name=state.provider.name, url=f"{own_address(state.settings)}/api/oidc/start")
