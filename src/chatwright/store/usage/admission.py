"""Whether a request may run: what is left for its key, its user and its model, counted and reserved in one transaction.

What was used is nowhere but in the rows of `usage`, what runs nowhere but in those of `reservations`; a limit is compared with
their sum. So a figure that could go wrong on its own does not exist, and no race lets more through: whoever reserves holds the
limit's lock, and whoever ends gives back no more than they had. A request belongs to the minute and the month in which it began.
What the rows say of the future (the clock was set back) counts as now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sqlalchemy import BindParameter, ColumnElement, Select, bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import Detail, LimitReachedError
from chatwright.store.database import one_at_a_time
from chatwright.store.tables import Limit, Reservation, Usage
from chatwright.store.usage.payer import Payer
from chatwright.store.usage.times import MINUTE, minute_of, month_of, next_month

# What runs ends at any time: who has too much of it may ask again soon.
RETRY_OF_CONCURRENT_S = 1


@dataclass(frozen=True)
class Wanted:
    """What a request may come to: the tokens of its prompts, and for each prompt (answers, tokens of each at most).

    `can_be_shorter`: nobody said how long the answers shall be, so that they may be cut to what is left.
    """

    n_prompt: int
    answers: Sequence[tuple[int, int]] = ()
    can_be_shorter: bool = False

    def tokens(self, cap: int | None = None) -> int:
        """All of them, with answers of `cap` tokens at most."""
        return self.n_prompt + sum(n * (most if cap is None else min(most, cap)) for n, most in self.answers)

    def cap_for(self, left: int) -> int | None:
        """How long each answer may be so that `tokens(cap)` is within `left`; None where not even one token is."""
        n = sum(n for n, most in self.answers if most)
        cap = (left - self.n_prompt) // n if n and self.can_be_shorter else 0
        return cap if cap > 0 else None


@dataclass(frozen=True)
class Headroom:
    """Of a limit of a minute: how much it is, what is left of it, and in how many seconds all of it will be again."""

    limit: int
    remaining: int
    reset_s: int


@dataclass(frozen=True)
class Admission:
    """`cap`: how long each answer may be; None: as long as was asked for. `tokens`: what was reserved. `requests_left`,
    `tokens_left`: of the limit of a minute that is nearest to its end, where there is one."""

    tokens: int
    cap: int | None = None
    requests_left: Headroom | None = None
    tokens_left: Headroom | None = None

    @property
    def headers(self) -> dict[str, str]:
        """As OpenAI's headers tell it."""
        found = {}
        for name, room in (("requests", self.requests_left), ("tokens", self.tokens_left)):
            if room is not None:
                found[f"x-ratelimit-limit-{name}"] = str(room.limit)
                found[f"x-ratelimit-remaining-{name}"] = str(max(0, room.remaining))
                found[f"x-ratelimit-reset-{name}"] = f"{room.reset_s}s"
        return found


@dataclass(frozen=True)
class Counted:
    """What counts against a limit: ended and running together."""

    requests_of_minute: int
    tokens_of_minute: int
    tokens_of_month: int
    running: int


async def limits_for(session: AsyncSession, payer: Payer, model: str) -> Sequence[Limit]:
    """Those that a request has to keep to."""
    # "" is nobody's id.
    return (await session.scalars(_limits(), {"model": model, "user": payer.user_id, "key": payer.key_id})).all()


async def admit(session: AsyncSession, limits: Sequence[Limit], wanted: Wanted, now: int) -> Admission:
    """What a request that has to keep to these limits may use. Whoever is admitted writes their reservation in this transaction.

    Raises LimitReachedError.
    """
    for limit in limits:  # everybody in the order of ids
        await one_at_a_time(session, f"limit {limit.id}")
    counts = [(limit, await count(session, limit, now)) for limit in limits]
    wait_s = minute_of(now) + MINUTE - now
    requests = [
        Headroom(limit.requests_per_minute, limit.requests_per_minute - counted.requests_of_minute, wait_s)
        for limit, counted in counts
        if limit.requests_per_minute is not None
    ]
    tokens = [
        Headroom(limit.tokens_per_minute, limit.tokens_per_minute - counted.tokens_of_minute, wait_s)
        for limit, counted in counts
        if limit.tokens_per_minute is not None
    ]
    cap = None
    try:
        for limit, counted in counts:
            _check_requests(limit, counted, wait_s)
            cap = _cap(limit, counted, wanted, cap, now)
    except LimitReachedError as error:
        error.headers = Admission(0, None, _nearest(requests, 0), _nearest(tokens, 0)).headers
        raise
    taken = wanted.tokens(cap)
    return Admission(taken, cap, _nearest(requests, 1), _nearest(tokens, taken))


def _check_requests(limit: Limit, counted: Counted, wait_s: int) -> None:
    """Raise LimitReachedError where one more is one too many."""
    if limit.concurrent_requests is not None and counted.running >= limit.concurrent_requests:
        raise _too_many_at_once(limit, counted)
    if limit.requests_per_minute is not None and counted.requests_of_minute >= limit.requests_per_minute:
        raise _too_many_requests(limit, counted, wait_s)


def _cap(limit: Limit, counted: Counted, wanted: Wanted, cap: int | None, now: int) -> int | None:
    """How long answers may be, that were to be `cap` long, so that their tokens keep to the limit. Raises LimitReachedError."""
    if limit.tokens_per_minute is not None:
        left = limit.tokens_per_minute - counted.tokens_of_minute
        if wanted.tokens(cap) > left:
            cap = wanted.cap_for(left)
            if cap is None:
                raise _too_many_tokens(limit, counted, wanted, minute_of(now) + MINUTE - now)
    if limit.tokens_per_month is not None:
        left = limit.tokens_per_month - counted.tokens_of_month
        if wanted.tokens(cap) > left:
            cap = wanted.cap_for(left)
            if cap is None:
                raise _budget_is_used_up(limit, counted, wanted, next_month(now) - now)
    return cap


async def count(session: AsyncSession, limit: Limit, now: int) -> Counted:
    """What counts against a limit now. One statement, which sees one state: what ends meanwhile is in one of the two tables."""
    subject: Subject = "key_id" if limit.key_id is not None else "user_id" if limit.user_id is not None else "model"
    values = {"value": getattr(limit, subject), "minute": minute_of(now), "month": month_of(now)}
    row = (await session.execute(_count(subject), values)).one()
    ended_requests, minute_tokens, month_tokens, new, minute_reserved, month_reserved, n_running = map(int, row)
    return Counted(ended_requests + new, minute_tokens + minute_reserved, month_tokens + month_reserved, n_running)


Subject = Literal["key_id", "user_id", "model"]


# Statements that every request needs are built once: building costs more than running.
@cache
def _limits() -> Select[Limit]:
    subjects = (Limit.model == bindparam("model"), Limit.user_id == bindparam("user"), Limit.key_id == bindparam("key"))
    return select(Limit).where(or_(*subjects)).order_by(Limit.id)


@cache
def _count(subject: Subject) -> Select[Any]:
    minute: BindParameter[int] = bindparam("minute")
    month: BindParameter[int] = bindparam("month")
    value: BindParameter[str] = bindparam("value")
    used, running = getattr(Usage, subject) == value, getattr(Reservation, subject) == value
    spent = Usage.input_tokens + Usage.output_tokens
    return select(
        _sum(Usage.requests, used, Usage.start >= minute),
        _sum(spent, used, Usage.start >= minute),
        _sum(spent, used, Usage.start >= month),
        select(func.count()).where(running, Reservation.started_at >= minute).scalar_subquery(),
        _sum(Reservation.tokens, running, Reservation.started_at >= minute),
        _sum(Reservation.tokens, running, Reservation.started_at >= month),
        select(func.count()).where(running).scalar_subquery(),
    )


def _sum(column: Any, *conditions: ColumnElement[bool]) -> Any:
    return select(func.coalesce(func.sum(column), 0)).where(*conditions).scalar_subquery()


def _nearest(rooms: Sequence[Headroom], taken: int) -> Headroom | None:
    """The one with the least left, after so much is taken of each."""
    rooms = [Headroom(room.limit, room.remaining - taken, room.reset_s) for room in rooms]
    return min(rooms, key=lambda room: room.remaining, default=None)


def _name(limit: Limit) -> Detail:
    if limit.key_id is not None:
        return Detail("this API key")
    return Detail("this user") if limit.user_id is not None else Detail("the model {name}", name=limit.model)


def _too_many_at_once(limit: Limit, counted: Counted) -> LimitReachedError:
    return LimitReachedError(
        "Rate limit reached for {subject} on concurrent requests: Limit {limit}, Running {running}. Please try again in"
        " {seconds}s.",
        subject=_name(limit),
        limit=limit.concurrent_requests,
        running=counted.running,
        seconds=RETRY_OF_CONCURRENT_S,
        code="rate_limit_exceeded",
        kind="requests",
        retry_s=RETRY_OF_CONCURRENT_S,
    )


def _too_many_requests(limit: Limit, counted: Counted, wait_s: int) -> LimitReachedError:
    return LimitReachedError(
        "Rate limit reached for {subject} on requests per min (RPM): Limit {limit}, Used {used}, Requested 1. Please try again in"
        " {seconds}s.",
        subject=_name(limit),
        limit=limit.requests_per_minute,
        used=counted.requests_of_minute,
        seconds=wait_s,
        code="rate_limit_exceeded",
        kind="requests",
        retry_s=wait_s,
    )


def _too_many_tokens(limit: Limit, counted: Counted, wanted: Wanted, wait_s: int) -> LimitReachedError:
    assert limit.tokens_per_minute is not None
    least = wanted.n_prompt + 1 if wanted.can_be_shorter and wanted.answers else wanted.tokens()
    if least > limit.tokens_per_minute:
        return LimitReachedError(
            "Request too large for {subject} on tokens per min (TPM): Limit {limit}, Requested {requested}. Ask for a shorter"
            " answer, or shorten the prompt.",
            subject=_name(limit),
            limit=limit.tokens_per_minute,
            requested=least,
            code="rate_limit_exceeded",
            kind="tokens",
            retry_s=wait_s,
            lasting=True,
        )
    return LimitReachedError(
        "Rate limit reached for {subject} on tokens per min (TPM): Limit {limit}, Used {used}, Requested {requested}. Please try"
        " again in {seconds}s.",
        subject=_name(limit),
        limit=limit.tokens_per_minute,
        used=counted.tokens_of_minute,
        requested=least,
        seconds=wait_s,
        code="rate_limit_exceeded",
        kind="tokens",
        retry_s=wait_s,
    )


def _budget_is_used_up(limit: Limit, counted: Counted, wanted: Wanted, wait_s: int) -> LimitReachedError:
    assert limit.tokens_per_month is not None
    return LimitReachedError(
        "You exceeded your current quota: {subject} has {left} of {limit} tokens left for this month, and this request may need"
        " {requested}.",
        subject=_name(limit),
        left=max(0, limit.tokens_per_month - counted.tokens_of_month),
        limit=limit.tokens_per_month,
        requested=wanted.n_prompt + 1 if wanted.can_be_shorter and wanted.answers else wanted.tokens(),
        code="insufficient_quota",
        kind="insufficient_quota",
        retry_s=wait_s,
        lasting=True,
    )
