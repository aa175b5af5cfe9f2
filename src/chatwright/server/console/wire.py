"""What bodies and answers of /api have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, StringConstraints

from chatwright.server.errors import WireError
from chatwright.server.state import State
from chatwright.store.accounts.service import Accounts
from chatwright.store.tables import ApiKey, User

# Longer than any good value: what is wrong is told by the code that knows better.
Text = Annotated[str, StringConstraints(max_length=1000)]
RoleName = Literal["owner", "admin", "member"]
ScopeName = Literal["inference", "files", "fine-tuning", "admin"]


class Body(BaseModel):
    """A request: nothing may be sent that is not read. A field too many could be one that sets what nobody may set."""

    model_config = ConfigDict(extra="forbid", strict=True)


class UserObject(BaseModel):
    """A user, without what they sign in with."""

    object: Literal["user"] = "user"
    id: str
    email: str
    name: str
    role: RoleName
    status: Literal["invited", "active", "suspended"]
    created_at: int

    @classmethod
    def of(cls, user: User) -> UserObject:
        """From the row."""
        return cls.model_validate(user, from_attributes=True)


class KeyObject(BaseModel):
    """A key, without the key. `prefix`: how it begins."""

    object: Literal["api_key"] = "api_key"
    id: str
    name: str
    prefix: str
    scopes: list[ScopeName]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    used_at: int | None

    @classmethod
    def of(cls, key: ApiKey) -> KeyObject:
        """From the row."""
        return cls.model_validate(
            {
                "id": key.id,
                "name": key.name,
                "prefix": f"sk-cw-{key.prefix}",
                "scopes": key.scopes.split(),
                "created_at": key.created_at,
                "expires_at": key.expires_at,
                "revoked_at": key.revoked_at,
                "used_at": key.used_at,
            }
        )


class KeyObjects(BaseModel):
    """Keys, the oldest first."""

    object: Literal["list"] = "list"
    data: list[KeyObject]


class Deleted(BaseModel):
    """It is gone."""

    id: str
    deleted: Literal[True] = True


async def need_accounts(state: State) -> Accounts:
    """A dependency: the accounts of this server. Raises WireError (404) where there are none."""
    if state.accounts is None:
        raise WireError(404, "This server has no accounts. Start it with --accounts.", code="no_accounts")
    return state.accounts


NeedAccounts = Annotated[Accounts, Depends(need_accounts)]
