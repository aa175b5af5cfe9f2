"""What the server asks of accounts: who is this, let them in, let them choose a password. Each is a transaction or two; no
transaction is open while a password is hashed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sqlalchemy import delete, exists, select

from chatwright.errors import InvalidRequestError, NotSignedInError, StorageError, StoreError, StoreUnavailableError
from chatwright.store import clock
from chatwright.store.accounts import identities, links, recognise, sessions, throttle, users
from chatwright.store.accounts.emails import clean_email
from chatwright.store.accounts.passwords import Passwords, check_password
from chatwright.store.accounts.recognise import Recognised
from chatwright.store.accounts.secret import digest
from chatwright.store.actor import NOBODY, OPERATOR, Actor
from chatwright.store.database import Database
from chatwright.store.tables import Session, User

ACCOUNT, ADDRESS, PROVIDER = "account", "address", "provider"


class Accounts:
    """One per process. Methods raise StoreError and its kin besides what they name."""

    def __init__(self, database: Database, passwords: Passwords | None = None) -> None:
        self.database = database
        self._passwords = passwords or Passwords()
        self._expiry = clock.Expiry()
        # Credential → the note of its use that is on its way to the store.
        self._notes: dict[str | None, asyncio.Task[None]] = {}

    async def actor_of_key(self, text: str) -> Actor:
        """Who sends this key, or NOBODY."""
        await self._look_at_clock()
        async with self.database.read() as session:
            found = await recognise.by_key(session, text, self._expiry.now())
        return await self._noted(found)

    async def actor_of_session(self, token: str) -> Actor:
        """Who has this session, or NOBODY."""
        await self._look_at_clock()
        async with self.database.read() as session:
            found = await recognise.by_session(session, token, self._expiry.now())
        return await self._noted(found)

    async def written(self) -> None:
        """Wait until the uses of keys and sessions so far are written down."""
        await asyncio.gather(*self._notes.values())

    async def close_what_is_over(self) -> None:
        """End keys, sessions and links for good whose time is up, whatever the clock says later."""
        async with self.database.write() as session:
            await recognise.close_what_is_over(session, self._expiry.now())
        self._expiry.follow()

    async def has_users(self) -> bool:
        """Whether there is an account at all."""
        async with self.database.read() as session:
            return bool(await session.scalar(select(exists().select_from(User))))

    async def setup_token(self) -> str | None:
        """For the link that the console prints; None when there are users."""
        async with self.database.write() as session:
            return await links.make_setup_link(session, OPERATOR)

    async def sign_in(self, email: str, password: str, address: str) -> tuple[User, str]:
        """(user, token of a new session). Raises ThrottledError; NotSignedInError, the same and as late whether there is no such
        account, it is suspended, or the password is wrong."""
        try:
            account = clean_email(email)
        except InvalidRequestError:
            account = ""
        await self._look_at_clock()
        async with self.database.write() as session:
            await throttle.count_try(session, ADDRESS, address, throttle.FREE_OF_ADDRESS)
            await throttle.count_try(session, ACCOUNT, account, throttle.FREE_OF_ACCOUNT)
            user = await session.scalar(select(User).where(User.email == account))
        known = user.password_hash if user is not None and user.status == "active" else None
        is_right = await self._passwords.verify(known, password)
        renewed = (
            await self._passwords.hash(password) if is_right and known and self._passwords.is_outdated(known) else None
        )
        async with self.database.write() as session:
            # Looked at again: they may have been suspended, or have changed the password, while it was hashed.
            user = await session.get(User, user.id) if user is not None else None
            if not is_right or user is None or user.status != "active" or user.password_hash != known:
                raise NotSignedInError("The email address or the password is wrong.")
            await throttle.forget(session, ACCOUNT, account)
            await throttle.take_back(session, ADDRESS, address)
            if renewed is not None:
                user.password_hash = renewed
            return user, await sessions.begin_session(session, user)

    async def sign_out(self, token: str) -> None:
        """End a session, if it is one."""
        async with self.database.write() as session:
            await session.execute(delete(Session).where(Session.token_hash == digest(token)))

    async def look_at_link(self, token: str, address: str) -> links.LinkedUser:
        """Raises NotFoundError, ThrottledError."""
        await self._look_at_clock()
        async with self.database.write() as session:
            await throttle.count_try(session, ADDRESS, address, throttle.FREE_OF_ADDRESS)
            # Here, as the next transaction leaves nothing where it refuses.
            await recognise.close_what_is_over(session, self._expiry.now())
        async with self.database.write() as session:
            found = await links.look_at_link(session, token)
            await throttle.take_back(session, ADDRESS, address)
        return found

    async def use_link(
        self, token: str, password: str, address: str, *, email: str | None = None, name: str | None = None
    ) -> tuple[User, str]:
        """Set the password that a link is for: (user, token of a new session).

        Raises NotFoundError, ThrottledError, InvalidRequestError for a weak password, or no address for the first owner.
        """
        linked = await self.look_at_link(token, address)
        check_password(password, linked.email or clean_email(email or ""))
        hashed = await self._passwords.hash(password)
        async with self.database.write() as session:
            user = await links.use_link(session, token, hashed, email, name)
            await throttle.forget(session, ACCOUNT, user.email)
            return user, await sessions.begin_session(session, user)

    async def begin_login(self, address: str) -> identities.Login:
        """A browser is on its way to the identity provider. Raises ThrottledError: each takes a row."""
        await self._look_at_clock()
        async with self.database.write() as session:
            await throttle.count_try(session, PROVIDER, address, throttle.FREE_OF_ADDRESS)
            return await identities.begin_login(session)

    async def end_login(self, state: str, browser: str) -> identities.Login | None:
        """It came back; None where it is not the one that was sent, or not for the first time."""
        await self._look_at_clock()
        async with self.database.write() as session:
            return await identities.end_login(session, state, browser, self._expiry.now())

    async def sign_in_as(self, known: identities.KnownAs, address: str, *, new_users: bool) -> tuple[User, str]:
        """Let in whom the identity provider named: (user, token of a new session). Raises IdentityRefusedError."""
        async with self.database.write() as session:
            user = await identities.user_of(session, known, new_users=new_users)
            await throttle.take_back(session, PROVIDER, address)
            return user, await sessions.begin_session(session, user)

    async def change_password(self, actor: Actor, old: str, new: str) -> str:
        """Change one's own password. All sessions end; the token of a new one is returned. Raises NotSignedInError for a wrong old
        password, ThrottledError, InvalidRequestError for a weak one."""
        async with self.database.write() as session:
            user = await users.get_account(session, actor)
            await throttle.count_try(session, ACCOUNT, user.email, throttle.FREE_OF_ACCOUNT)
        known = user.password_hash
        if not await self._passwords.verify(known, old):
            raise InvalidRequestError("The old password is wrong.", param="old_password", code="wrong_password")
        check_password(new, user.email)
        hashed = await self._passwords.hash(new)
        async with self.database.write() as session:
            user = await users.get_account(session, actor)
            if user.status != "active" or user.password_hash != known:
                raise NotSignedInError("The email address or the password is wrong.")
            user.password_hash = hashed
            await throttle.forget(session, ACCOUNT, user.email)
            await session.execute(delete(Session).where(Session.user_id == user.id))
            return await sessions.begin_session(session, user)

    async def set_password(self, actor: Actor, user_id: str, password: str) -> None:
        """For the command line: a user's password, set by whoever may change the user."""
        async with self.database.read() as session:
            user = await users.get_user(session, actor, user_id)
        check_password(password, user.email)
        hashed = await self._passwords.hash(password)
        async with self.database.write() as session:
            token = await links.make_link(session, actor, user_id)
            await session.flush()
            await links.use_link(session, token, hashed, None, None)

    async def _look_at_clock(self) -> None:
        """Before anything is made by a clock that was set back: close what was over before."""
        if self._expiry.is_set_back:
            # A database that takes no writes opens none of it either: `Expiry` does not follow the clock.
            with suppress(StoreError, StoreUnavailableError, StorageError):
                await self.close_what_is_over()

    async def _noted(self, found: Recognised) -> Actor:
        if found.is_over:
            # Refused it is in any case; a database that can not be written hears of it at the next sweep.
            with suppress(StoreError, StoreUnavailableError, StorageError):
                await self.close_what_is_over()
        credential = found.actor.credential
        if found.actor is not NOBODY and found.is_stale and credential not in self._notes:
            # Beside the request, which waits for no writer.
            task = self._notes[credential] = asyncio.create_task(self._note(found.actor))
            task.add_done_callback(lambda _: self._notes.pop(credential))
        return found.actor

    async def _note(self, actor: Actor) -> None:
        # Only a figure: a database that can not be written keeps nobody out.
        with suppress(StoreError, StoreUnavailableError, StorageError):
            async with self.database.write() as session:
                await recognise.note_use(session, actor)
