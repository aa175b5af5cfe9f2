"""Users and their keys, for administrators."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from chatwright.server.address import own_address
from chatwright.server.console.wire import (
    Body,
    Deleted,
    KeyObject,
    KeyObjects,
    NeedAccounts,
    RoleName,
    Text,
    UserObject,
)
from chatwright.server.errors import WireError
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import Permit
from chatwright.server.state import ServerState, State
from chatwright.store.accounts import keys, links, users
from chatwright.store.actor import Actor, Role
from chatwright.store.policy import Action

router = APIRouter(route_class=JsonRoute, tags=["users"])
Reader = Annotated[Actor, Depends(Permit(Action.READ_USERS))]
Changer = Annotated[Actor, Depends(Permit(Action.CHANGE_USERS))]
KeyReader = Annotated[Actor, Depends(Permit(Action.READ_KEYS_OF_USERS))]
KeyRevoker = Annotated[Actor, Depends(Permit(Action.REVOKE_KEYS_OF_USERS))]


class UserObjects(BaseModel):
    """The oldest first."""

    object: Literal["list"] = "list"
    data: list[UserObject]


class AddUserBody(Body):
    """Who is invited, and as what; at most as what one is oneself."""

    email: Text
    name: Text | None = None
    role: RoleName = "member"


class ChangeUserBody(Body):
    """What is not given stays. Suspending ends sessions and revokes keys for good."""

    role: RoleName | None = None
    status: Literal["active", "suspended"] | None = None


class LinkBody(Body):
    """Nothing has to be said."""


class WelcomeLink(BaseModel):
    """To be given to the user over a way that one trusts: `url` is good once, for three days."""

    object: Literal["welcome_link"] = "welcome_link"
    url: str


class InvitedUser(UserObject):
    """A new user, with the link by which they choose a password."""

    url: str


@router.get("/users")
async def list_users(actor: Reader, accounts: NeedAccounts) -> UserObjects:
    """All users."""
    async with accounts.database.read() as session:
        return UserObjects(data=[UserObject.of(user) for user in await users.list_users(session, actor)])


@router.post("/users")
async def add_user(body: AddUserBody, actor: Changer, state: State, accounts: NeedAccounts) -> InvitedUser:
    """Invite somebody."""
    async with accounts.database.write() as session:
        user = await users.add_user(session, actor, body.email, body.name, Role.of(body.role))
        token = await links.make_link(session, actor, user.id)
        return InvitedUser(**UserObject.of(user).model_dump(), url=_url(state, token))


@router.get("/users/{user_id}")
async def get_user(user_id: str, actor: Reader, accounts: NeedAccounts) -> UserObject:
    """One user."""
    async with accounts.database.read() as session:
        return UserObject.of(await users.get_user(session, actor, user_id))


@router.patch("/users/{user_id}")
async def change_user(user_id: str, body: ChangeUserBody, actor: Changer, accounts: NeedAccounts) -> UserObject:
    """Change what a user may do, keep them out, or let them in again."""
    if body.role is None and body.status is None:
        raise WireError(400, "Say what shall change: role or status.", code="missing")
    async with accounts.database.write() as session:
        if body.role is not None:
            user = await users.change_role(session, actor, user_id, Role.of(body.role))
        if body.status is not None:
            change = users.suspend if body.status == "suspended" else users.resume
            user = await change(session, actor, user_id)
        return UserObject.of(user)


@router.delete("/users/{user_id}")
async def remove_user(user_id: str, actor: Changer, state: State, accounts: NeedAccounts) -> Deleted:
    """Remove a user and all that is theirs."""
    leaving = state.files.leaving_with(user_id) if state.files is not None else nullcontext()
    async with leaving, accounts.database.write() as session:
        await users.remove_user(session, actor, user_id)
    if state.jobs is not None:
        state.jobs.supervisor.forget_user()
    return Deleted(id=user_id)


@router.post("/users/{user_id}/link")
async def make_link(
    user_id: str, actor: Changer, state: State, accounts: NeedAccounts, body: LinkBody | None = None
) -> WelcomeLink:
    """A new link by which a user chooses a password; earlier ones are good no more."""
    async with accounts.database.write() as session:
        return WelcomeLink(url=_url(state, await links.make_link(session, actor, user_id)))


@router.get("/users/{user_id}/keys")
async def list_keys_of_user(user_id: str, actor: KeyReader, accounts: NeedAccounts) -> KeyObjects:
    """A user's keys."""
    async with accounts.database.read() as session:
        rows = await keys.list_keys_of_users(session, actor, user_id)
    return KeyObjects(data=[KeyObject.of(row) for row in rows])


@router.delete("/users/{user_id}/keys/{key_id}")
async def revoke_key_of_user(user_id: str, key_id: str, actor: KeyRevoker, accounts: NeedAccounts) -> KeyObject:
    """End a user's key at once."""
    async with accounts.database.write() as session:
        return KeyObject.of(await keys.revoke_key_of_user(session, actor, user_id, key_id))


def _url(state: ServerState, token: str) -> str:
    return f"{own_address(state.settings)}/#welcome={token}"
