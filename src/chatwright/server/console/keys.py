"""One's own API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from chatwright.server.console.wire import Body, KeyObject, KeyObjects, NeedAccounts, ScopeName, Text
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import Permit
from chatwright.store.accounts import keys
from chatwright.store.actor import Actor, Scope
from chatwright.store.policy import Action

router = APIRouter(route_class=JsonRoute, tags=["keys"])
Owner = Annotated[Actor, Depends(Permit(Action.USE_KEYS))]


class MakeKeyBody(Body):
    """`scopes`: inference alone, where none are named. `expires_at`: Unix time; without it the key is good until it is revoked."""

    name: Text
    scopes: Annotated[list[ScopeName], Field(min_length=1, max_length=20)] | None = None
    expires_at: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class NewKey(KeyObject):
    """`key`: the key itself, told this once."""

    key: str


@router.get("/keys")
async def list_keys(actor: Owner, accounts: NeedAccounts) -> KeyObjects:
    """One's keys, also those that open nothing any more."""
    async with accounts.database.read() as session:
        return KeyObjects(data=[KeyObject.of(row) for row in await keys.list_own_keys(session, actor)])


@router.post("/keys")
async def make_key(body: MakeKeyBody, actor: Owner, accounts: NeedAccounts) -> NewKey:
    """Make a key. It can do no more than who makes it."""
    async with accounts.database.write() as session:
        scopes = [Scope(name) for name in body.scopes or ["inference"]]
        row, key = await keys.make_own_key(session, actor, body.name, scopes, body.expires_at)
    return NewKey(**KeyObject.of(row).model_dump(), key=key)


@router.delete("/keys/{key_id}")
async def revoke_key(key_id: str, actor: Owner, accounts: NeedAccounts) -> KeyObject:
    """End a key at once. 404 for the keys of others."""
    async with accounts.database.write() as session:
        return KeyObject.of(await keys.revoke_own_key(session, actor, key_id))
