"""Users who sign in through an identity provider: browsers on their way there and back, and whose account an identity opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import ForbiddenError, InvalidRequestError
from chatwright.store import clock
from chatwright.store.accounts.emails import clean_email, clean_name
from chatwright.store.accounts.secret import TOKEN, digest, new_token, same
from chatwright.store.actor import Role
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import new_id
from chatwright.store.tables import Identity, Link, OidcLogin, User

# To sign in at the provider, with a second factor.
LOGIN_LIFE_S = 600

Refusal = Literal["stranger", "suspended", "other_identity", "no_owner"]


class IdentityRefusedError(ForbiddenError):
    """The provider knows who it is, and they may not come in."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__("Whom the identity provider named may not sign in here ({reason}).", reason=reason)
        self.reason = reason


@dataclass(frozen=True)
class Login:
    """What a browser takes along (`state` to the provider, `browser` in a cookie), and what its answer is checked with."""

    state: str
    browser: str
    nonce: str
    verifier: str


@dataclass(frozen=True)
class KnownAs:
    """What a provider says about somebody. `email`: only where the provider has verified it."""

    issuer: str
    subject: str
    email: str | None
    name: str | None


async def begin_login(session: AsyncSession) -> Login:
    """A new way to the provider. Those on which nobody came back in time are forgotten."""
    now = clock.now()
    await session.execute(delete(OidcLogin).where(OidcLogin.expires_at <= now))
    login = Login(state=new_token(), browser=new_token(), nonce=new_token(), verifier=new_token())
    session.add(
        OidcLogin(
            state_hash=digest(login.state),
            browser_hash=digest(login.browser),
            nonce=login.nonce,
            verifier=login.verifier,
            expires_at=now + LOGIN_LIFE_S,
        )
    )
    return login


async def end_login(session: AsyncSession, state: str, browser: str, now: int) -> Login | None:
    """Who comes back with this state, in the browser that was sent: once, as the state is used up whatever comes of it. None for
    any other."""
    if TOKEN.fullmatch(state) is None:
        return None
    gone = delete(OidcLogin).where(OidcLogin.state_hash == digest(state))
    row = (
        await session.execute(
            gone.returning(OidcLogin.browser_hash, OidcLogin.nonce, OidcLogin.verifier, OidcLogin.expires_at)
        )
    ).one_or_none()
    if row is None or row.expires_at <= now or not same(row.browser_hash, digest(browser)):
        return None
    return Login(state, browser, row.nonce, row.verifier)


async def user_of(session: AsyncSession, known: KnownAs, *, new_users: bool) -> User:
    """Whose account this opens: theirs who came this way before, theirs who has the verified address, or a new member's.

    Raises IdentityRefusedError.
    """
    await one_at_a_time(session, "users")
    linked = select(User).join(Identity, Identity.user_id == User.id)
    linked = linked.where(Identity.issuer == known.issuer, Identity.subject == known.subject)
    user = await session.scalar(linked)
    if user is None:
        user = await _by_email(session, known, new_users)
        session.add(
            Identity(
                id=new_id("identity"),
                user_id=user.id,
                issuer=known.issuer,
                subject=known.subject,
                created_at=clock.now(),
            )
        )
    if user.status == "suspended":
        raise IdentityRefusedError("suspended")
    if user.status == "invited":
        user.status = "active"
        # They are in; a link that lies around somewhere shall not let anybody else in.
        await session.execute(delete(Link).where(Link.user_id == user.id))
    await session.flush()
    return user


async def _by_email(session: AsyncSession, known: KnownAs, new_users: bool) -> User:
    try:
        email = clean_email(known.email) if known.email is not None else None
    except InvalidRequestError:
        email = None
    user = await session.scalar(select(User).where(User.email == email)) if email is not None else None
    if user is not None:
        other = select(exists().where(Identity.user_id == user.id, Identity.issuer == known.issuer))
        if await session.scalar(other):
            # The provider gave the address to somebody else.
            raise IdentityRefusedError("other_identity")
        return user
    if not new_users or email is None:
        raise IdentityRefusedError("stranger")
    if not await session.scalar(select(exists().select_from(User))):
        # Nobody becomes owner by coming first, and with a member there would be no link any more that makes one.
        raise IdentityRefusedError("no_owner")
    user = User(
        id=new_id("user"),
        email=email,
        name=_name(known.name, email),
        role=Role.MEMBER.word,
        status="active",
        password_hash=None,
        created_at=clock.now(),
    )
    session.add(user)
    await session.flush()
    return user


def _name(name: str | None, email: str) -> str:
    try:
        return clean_name(name or "")
    except InvalidRequestError:
        return email.partition("@")[0][:100]
