"""Who guesses waits, longer each time. A try is counted before the password is looked at, so that a hundred at once are a
hundred tries."""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import ThrottledError
from chatwright.store import clock
from chatwright.store.accounts.secret import digest
from chatwright.store.database import one_at_a_time
from chatwright.store.tables import Throttle

# Tries before the first wait of one second, which then doubles. An address may be a whole company's.
FREE_OF_ACCOUNT = 5
FREE_OF_ADDRESS = 50
LONGEST_WAIT_S = 300
# After so long without a try all is forgotten.
MEMORY_S = 3600


async def count_try(session: AsyncSession, kind: str, name: str, free: int) -> None:
    """Count a try, or raise ThrottledError without counting it: who keeps knocking does not keep others out for ever."""
    now = clock.now()
    await session.execute(delete(Throttle).where(Throttle.tried_at < now - MEMORY_S))
    subject = _subject(kind, name)
    await one_at_a_time(session, subject)
    row = await session.get(Throttle, subject)
    if row is None:
        row = Throttle(subject=subject, tries=0, tried_at=now, blocked_until=0)
        session.add(row)
    wait = row.blocked_until - now
    # None is longer than the longest, unless the clock was set back: then it says nothing, and counting goes on from here.
    if 0 < wait <= LONGEST_WAIT_S:
        raise ThrottledError("Too many attempts: try again in {seconds} s.", seconds=wait)
    row.tries += 1
    row.tried_at = now
    if row.tries >= free:
        row.blocked_until = now + min(2 ** min(row.tries - free, 20), LONGEST_WAIT_S)


async def forget(session: AsyncSession, kind: str, name: str) -> None:
    """It was no guess."""
    await session.execute(delete(Throttle).where(Throttle.subject == _subject(kind, name)))


async def take_back(session: AsyncSession, kind: str, name: str) -> None:
    """The last try was no guess; earlier ones may have been: who has an account of their own clears nothing with it."""
    subject = _subject(kind, name)
    await one_at_a_time(session, subject)
    row = await session.get(Throttle, subject)
    if row is not None:
        row.tries = max(0, row.tries - 1)


def _subject(kind: str, name: str) -> str:
    """Not the name itself: guesses at accounts that do not exist are somebody's data too."""
    return digest(f"{kind}:{name}")
