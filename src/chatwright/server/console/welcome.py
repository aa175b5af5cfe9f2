"""Links that are good once: choosing the first password, or a new one."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from chatwright.server.client_address import client_address
from chatwright.server.console.session import SessionObject, begin
from chatwright.server.console.wire import Body, NeedAccounts, Text
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import public
from chatwright.server.state import State

router = APIRouter(route_class=JsonRoute, tags=["session"], dependencies=[Depends(public)])


class LookBody(Body):
    """The part of the link behind #welcome=."""

    token: Text


class LinkObject(BaseModel):
    """What a link is for: "setup" makes the first owner, who gives an address. `email`: whose link it is."""

    object: Literal["link"] = "link"
    purpose: Literal["setup", "invitation", "reset"]
    email: str | None


class WelcomeBody(Body):
    """The password that is chosen. `email`: of the first owner only."""

    token: Text
    password: Text
    email: Text | None = None
    name: Text | None = None


@router.post("/welcome/look")
async def look_at_link(body: LookBody, request: Request, state: State, accounts: NeedAccounts) -> LinkObject:
    """What a link is for. 404 for one that is used, replaced, expired or made up."""
    found = await accounts.look_at_link(body.token, client_address(request, state.settings.trusted_proxies))
    return LinkObject.model_validate(found, from_attributes=True)


@router.post("/welcome")
async def use_link(
    body: WelcomeBody, request: Request, response: Response, state: State, accounts: NeedAccounts
) -> SessionObject:
    """Set the password and sign in. The link is used up."""
    address = client_address(request, state.settings.trusted_proxies)
    user, token = await accounts.use_link(body.token, body.password, address, email=body.email, name=body.name)
    return begin(user, token, request, response, state)
