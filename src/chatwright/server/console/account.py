"""One's own account: name, password, and the browsers that are signed in."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from chatwright.server.console.session import SessionObject, begin
from chatwright.server.console.wire import Body, Deleted, NeedAccounts, Text, UserObject
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import Permit
from chatwright.server.state import State
from chatwright.store.accounts import sessions, users
from chatwright.store.actor import Actor
from chatwright.store.policy import Action

router = APIRouter(route_class=JsonRoute, tags=["account"])
Owner = Annotated[Actor, Depends(Permit(Action.USE_ACCOUNT))]


class RenameBody(Body):
    """What may be changed of oneself. A role is none of it."""

    name: Text


class PasswordBody(Body):
    """The old password is the proof that it is not just an open browser."""

    old_password: Text
    new_password: Text


class BrowserSession(BaseModel):
    """A browser that is signed in. `current`: the one that asks."""

    object: Literal["browser_session"] = "browser_session"
    id: str
    created_at: int
    seen_at: int
    expires_at: int
    current: bool


class BrowserSessions(BaseModel):
    """The newest first."""

    object: Literal["list"] = "list"
    data: list[BrowserSession]


@router.get("/account")
async def get_account(actor: Owner, accounts: NeedAccounts) -> UserObject:
    """Oneself."""
    async with accounts.database.read() as session:
        return UserObject.of(await users.get_account(session, actor))


@router.patch("/account")
async def rename(body: RenameBody, actor: Owner, accounts: NeedAccounts) -> UserObject:
    """Change one's name."""
    async with accounts.database.write() as session:
        return UserObject.of(await users.rename(session, actor, body.name))


@router.post("/account/password")
async def change_password(
    body: PasswordBody, actor: Owner, request: Request, response: Response, state: State, accounts: NeedAccounts
) -> SessionObject:
    """Change one's password. All other browsers are signed out, and this one gets a new session."""
    token = await accounts.change_password(actor, body.old_password, body.new_password)
    async with accounts.database.read() as session:
        user = await users.get_account(session, actor)
    return begin(user, token, request, response, state)


@router.get("/account/sessions")
async def list_sessions(actor: Owner, accounts: NeedAccounts) -> BrowserSessions:
    """The browsers that are signed in as oneself."""
    async with accounts.database.read() as session:
        rows = await sessions.list_sessions(session, actor)
    return BrowserSessions(
        data=[
            BrowserSession(
                id=row.id,
                created_at=row.created_at,
                seen_at=row.seen_at,
                expires_at=row.expires_at,
                current=row.id == actor.credential,
            )
            for row in rows
        ]
    )


@router.delete("/account/sessions")
async def end_other_sessions(actor: Owner, accounts: NeedAccounts) -> BrowserSessions:
    """Sign all other browsers out. What is left is the one that asks."""
    async with accounts.database.write() as session:
        await sessions.end_other_sessions(session, actor)
    return await list_sessions(actor, accounts)


@router.delete("/account/sessions/{session_id}")
async def end_session(session_id: str, actor: Owner, accounts: NeedAccounts) -> Deleted:
    """Sign a browser out."""
    async with accounts.database.write() as session:
        await sessions.end_session(session, actor, session_id)
    return Deleted(id=session_id)
