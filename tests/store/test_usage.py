"""Limits and usage in the store, on both databases: no race lets more through, no row is lost, none lies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from chatwright.errors import ForbiddenError, InvalidRequestError, LimitReachedError, NotFoundError
from chatwright.store.accounts import keys, users
from chatwright.store.actor import OPERATOR, Role, Scope
from chatwright.store.database import Database
from chatwright.store.tables import Limit, Reservation, Usage
from chatwright.store.usage import ledger
from chatwright.store.usage.admission import Admission, Wanted, admit, count, limits_for
from chatwright.store.usage.ledger import Entry, Tokens, note, settle, settle_dead
from chatwright.store.usage.limits import Figure, Subject, list_limits, own_limits, remove_limit, set_limit
from chatwright.store.usage.payer import Payer
from chatwright.store.usage.report import Question, own_usage, usage_of_all
from chatwright.store.usage.times import DAY, SteadyClock, minute_of, month_of, next_month
from tests.store.people import make_user, quick_accounts, set_clock, signed_in

NOW = 1_790_000_000  # 2026-09-21, 14:13:20 UTC
SERVER = "machine/1/2/server-x"


async def limit(database: Database, figures: Mapping[Figure, int | None], **subject: Any) -> None:
    async with database.write() as session:
        await set_limit(session, OPERATOR, Subject(**(subject or {"model": "m"})), figures)


async def begin(
    database: Database, wanted: Wanted, *, payer: Payer = Payer(), model: str = "m", now: int = NOW
) -> tuple[Entry, Admission]:
    """Admit a request as the server does."""
    entry = Entry(payer, model, "completions", now, wanted.tokens())
    async with database.write() as session:
        admission = await admit(session, await limits_for(session, payer, model), wanted, now)
        entry.reserved = admission.tokens
        entry.used = entry.noted = Tokens(wanted.n_prompt)
        await note(session, SERVER, [entry], now)
    return entry, admission


async def end(database: Database, entry: Entry, used: Tokens) -> None:
    async with database.write() as session:
        await settle(session, [replace(entry, used=used, noted=entry.noted)])


async def total(database: Database) -> tuple[int, int]:
    """(requests, tokens) of all rows of usage."""
    async with database.read() as session:
        row = (
            await session.execute(select(func.sum(Usage.requests), func.sum(Usage.input_tokens + Usage.output_tokens)))
        ).one()
    return int(row[0] or 0), int(row[1] or 0)


@pytest.mark.parametrize("subject", ["key", "user", "model"])
async def test_fifty_at_once_get_not_one_token_more_than_there_are(database: Database, subject: str) -> None:
    user = await make_user(quick_accounts(database), "ann@example.org")
    async with database.write() as session:
        key, _ = await keys.make_own_key(session, signed_in(user), "k", [Scope.INFERENCE], None)
    subjects = {"key": {"key_id": key.id}, "user": {"user_id": user.id}, "model": {"model": "m"}}
    await limit(database, {"tokens_per_month": 1000}, **subjects[subject])
    payer = Payer(user.id, key.id)
    spent, before, round_ = 0, -1, 0
    while spent > before:
        wanted = Wanted(3, [(2, 14)], can_be_shorter=round_ % 2 == 1)  # 31 tokens
        round_, before = round_ + 1, spent

        async def one(number: int, wanted: Wanted = wanted) -> tuple[int, int]:
            try:
                entry, admission = await begin(database, wanted, payer=payer)
            except LimitReachedError as error:
                return (0, 0) if error.code == "insufficient_quota" else (10**9, 0)
            used = min(admission.tokens, 3 + number % 28)
            await end(database, entry, Tokens(3, 0, used - 3))
            return used, admission.tokens

        results = await asyncio.gather(*(one(number) for number in range(50)))
        spent += sum(used for used, _ in results)
        assert await total(database) == ((await total(database))[0], spent)
        assert spent <= 1000
    assert 1000 - spent < 31, "what is left is too little for one more"
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Reservation)) == 0


async def test_what_runs_counts_with_all_that_it_may_use(database: Database) -> None:
    await limit(database, {"tokens_per_month": 100})
    first, _ = await begin(database, Wanted(10, [(1, 50)]))
    with pytest.raises(LimitReachedError):
        await begin(database, Wanted(10, [(1, 50)]))
    await end(database, first, Tokens(10, 0, 5))
    second, _ = await begin(database, Wanted(10, [(1, 50)]))
    await end(database, second, Tokens(10, 10, 50))
    assert await total(database) == (2, 75)


async def test_answers_of_no_length_are_cut_to_what_is_left(database: Database) -> None:
    await limit(database, {"tokens_per_month": 100})
    entry, admission = await begin(database, Wanted(10, [(2, 1000), (3, 20)], can_be_shorter=True))
    assert (admission.cap, admission.tokens, entry.reserved) == (18, 100, 100)
    await end(database, entry, Tokens(10, 0, 79))
    entry, admission = await begin(database, Wanted(9, [(1, 20)], can_be_shorter=True))
    assert admission.cap == 2
    await end(database, entry, Tokens(9, 0, 1))
    with pytest.raises(LimitReachedError, match="has 1 of 100 tokens left for this month, and this request may need 2"):
        await begin(database, Wanted(1, [(1, 20)], can_be_shorter=True))


async def test_a_prompt_without_an_answer_is_counted_too(database: Database) -> None:
    await limit(database, {"tokens_per_minute": 10})
    entry, admission = await begin(database, Wanted(10))
    assert (admission.tokens, admission.cap) == (10, None)
    assert admission.headers["x-ratelimit-remaining-tokens"] == "0"
    with pytest.raises(LimitReachedError):
        await begin(database, Wanted(1, [(1, 0)], can_be_shorter=True))
    await end(database, entry, Tokens(10))


async def test_a_minute_has_so_many_requests_and_the_next_one_as_many(database: Database) -> None:
    await limit(database, {"requests_per_minute": 2})
    first, admission = await begin(database, Wanted(1))
    assert admission.headers == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "40s",
    }
    await end(database, first, Tokens(1))
    second, _ = await begin(database, Wanted(1))
    with pytest.raises(LimitReachedError) as refused:
        await begin(database, Wanted(1), now=NOW + 39)
    assert (refused.value.code, refused.value.kind, refused.value.retry_s) == ("rate_limit_exceeded", "requests", 1)
    assert refused.value.headers["x-ratelimit-remaining-requests"] == "0"
    third, _ = await begin(database, Wanted(1), now=NOW + 40)
    for entry in (second, third):
        await end(database, entry, Tokens(1))
    assert await total(database) == (3, 3)


async def test_tokens_of_a_minute(database: Database) -> None:
    await limit(database, {"tokens_per_minute": 100})
    entry, admission = await begin(database, Wanted(10, [(1, 30)]))
    assert admission.headers["x-ratelimit-remaining-tokens"] == "60"
    with pytest.raises(
        LimitReachedError, match=r"Limit 100, Used 40, Requested 61\. Please try again in 40s"
    ) as refused:
        await begin(database, Wanted(11, [(1, 50)]))
    assert (refused.value.kind, refused.value.lasting) == ("tokens", False)
    with pytest.raises(LimitReachedError, match="Request too large") as never:
        await begin(database, Wanted(10, [(1, 91)]))
    assert never.value.lasting, "no minute will ever be long enough"
    await end(database, entry, Tokens(10, 0, 3))
    entry, admission = await begin(database, Wanted(10, [(1, 1000)], can_be_shorter=True))
    assert admission.cap == 77


async def test_so_many_at_the_same_time(database: Database) -> None:
    await limit(database, {"concurrent_requests": 3})
    running = [(await begin(database, Wanted(1), now=NOW - 10 * DAY))[0] for _ in range(3)]
    with pytest.raises(LimitReachedError, match="concurrent") as refused:
        await begin(database, Wanted(1))
    assert refused.value.retry_s == 1
    await end(database, running[0], Tokens(1))
    await begin(database, Wanted(1))


async def test_the_narrowest_of_several_limits_holds(database: Database) -> None:
    user = await make_user(quick_accounts(database), "ann@example.org")
    await limit(database, {"tokens_per_month": 50, "requests_per_minute": 9})
    await limit(database, {"tokens_per_month": 30, "requests_per_minute": 5}, user_id=user.id)
    entry, admission = await begin(database, Wanted(5, [(1, 99)], can_be_shorter=True), payer=Payer(user.id))
    assert admission.cap == 25
    assert admission.headers["x-ratelimit-limit-requests"] == "5"
    await end(database, entry, Tokens(5, 0, 25))
    entry, admission = await begin(database, Wanted(5, [(1, 99)], can_be_shorter=True), payer=Payer("somebody-else"))
    assert admission.cap == 15
    await end(database, entry, Tokens(5, 0, 15))
    with pytest.raises(LimitReachedError, match="the model m"):
        await begin(database, Wanted(1), payer=Payer("somebody-else"))
    await begin(database, Wanted(1), payer=Payer("somebody-else"), model="other")


async def test_a_new_month_is_a_new_budget_and_an_old_clock_is_not(database: Database) -> None:
    await limit(database, {"tokens_per_month": 100, "requests_per_minute": 1})
    entry, _ = await begin(database, Wanted(100))
    await end(database, entry, Tokens(100))
    for back in (0, 1, 60, 3600, DAY, 40 * DAY, 400 * DAY):
        with pytest.raises(LimitReachedError):
            await begin(database, Wanted(1), now=NOW - back)
    entry, _ = await begin(database, Wanted(100), now=next_month(NOW))
    await end(database, entry, Tokens(100))
    for back in (0, 1, 40 * DAY):
        with pytest.raises(LimitReachedError):
            await begin(database, Wanted(1), now=next_month(NOW) - back)


def test_minutes_and_months_are_those_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    assert minute_of(NOW) == NOW - 20
    assert month_of(NOW) == 1_788_220_800  # 2026-09-01
    assert next_month(NOW) == 1_790_812_800  # 2026-10-01
    assert next_month(1_798_761_599) == 1_798_761_600  # the last second of 2026


def test_time_goes_on_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = set_clock(monkeypatch)
    elapsed = [0.0]
    steady = SteadyClock(lambda: elapsed[0])
    assert steady.now() == clock.now
    clock.now -= 3600
    elapsed[0] += 5
    assert steady.now() == clock.now + 3605
    clock.now += 7200
    assert steady.now() == clock.now


async def test_the_next_start_finds_what_a_killed_server_left(database: Database) -> None:
    await limit(database, {"tokens_per_month": 100, "concurrent_requests": 2})
    entry, _ = await begin(database, Wanted(10, [(1, 40)]))
    alive, _ = await begin(database, Wanted(10, [(1, 40)]))
    with pytest.raises(LimitReachedError):
        await begin(database, Wanted(1))
    entry.used = Tokens(10, 4, 7)
    async with database.write() as session:
        await note(session, "killed", [entry], NOW + 1)
        await note(session, SERVER, [alive], NOW + 1)

    async def sweep() -> int:
        async with database.write() as session:
            return await settle_dead(session, lambda server, seen_at: seen_at == NOW + 1 and server != SERVER)

    # `note` does not change whose a reservation is: this one still is the first server's, and lives.
    assert await sweep() == 0
    killed = Entry(Payer("u", "k"), "m", "completions", NOW, 30, Tokens(3, 1, 2))
    async with database.write() as session:
        await note(session, "killed", [killed], NOW + 1)
    found = await asyncio.gather(sweep(), sweep(), sweep())
    assert sorted(found) == [0, 0, 1], "counted once, however many look"
    assert await total(database) == (1, 5)


async def test_who_was_taken_for_dead_is_counted_once(database: Database) -> None:
    entry, _ = await begin(database, Wanted(10, [(1, 40)]))
    async with database.write() as session:
        assert await settle_dead(session, lambda server, seen_at: True) == 1
    assert await total(database) == (1, 10)
    await end(database, entry, Tokens(10, 0, 12))
    assert await total(database) == (1, 22)


async def test_requests_that_were_refused_leave_nothing(database: Database) -> None:
    entry, _ = await begin(database, Wanted(10, [(1, 40)]))
    async with database.write() as session:
        await settle(session, [replace(entry, used=Tokens(), is_counted=False)])
        assert await session.scalar(select(func.count()).select_from(Usage)) == 0
        assert await session.scalar(select(func.count()).select_from(Reservation)) == 0


async def test_two_servers_add_to_the_same_rows(database: Database) -> None:
    def entries(n: int) -> list[Entry]:
        return [
            Entry(Payer(f"user-{number % 3}", ""), f"m{number % 5}", "completions", NOW, 9, Tokens(1, 1, 2))
            for number in range(n)
        ]

    async def server() -> None:
        for _ in range(5):
            async with database.write() as session:
                await settle(session, entries(30))

    await asyncio.gather(*(server() for _ in range(6)))
    assert await total(database) == (900, 2700)


async def test_usage_outlives_user_key_and_limit(database: Database) -> None:
    user = await make_user(quick_accounts(database), "ann@example.org")
    async with database.write() as session:
        key, _ = await keys.make_own_key(session, signed_in(user), "k", [Scope.INFERENCE], None)
    await limit(database, {"tokens_per_month": 100}, user_id=user.id)
    await limit(database, {"tokens_per_month": 100}, key_id=key.id)
    payer = Payer(user.id, key.id)
    first, _ = await begin(database, Wanted(5), payer=payer)
    await end(database, first, Tokens(5))
    running, _ = await begin(database, Wanted(5, [(1, 5)]), payer=payer)
    async with database.write() as session:
        await users.remove_user(session, OPERATOR, user.id)
    await end(database, running, Tokens(5, 0, 2))
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Limit)) == 0
        question = Question(NOW - DAY, NOW + DAY, by=["user_id", "key_id"])
        [row] = await usage_of_all(session, OPERATOR, question)
    assert (row.user_id, row.key_id, row.requests, row.input_tokens, row.output_tokens) == (user.id, key.id, 2, 10, 2)


async def test_usage_is_told_by_time_and_by_whose_it_is(database: Database) -> None:
    ann = await make_user(quick_accounts(database), "ann@example.org")
    li = await make_user(quick_accounts(database), "li@example.org")
    start = minute_of(NOW)
    async with database.write() as session:
        await settle(
            session,
            [
                Entry(Payer(person, "key"), model, "completions", start + offset, 9, Tokens(10, 4, 1))
                for person in (ann.id, li.id)
                for model in ("a", "b")
                for offset in (0, 59, 60, 3600, DAY)
            ]
            + [Entry(Payer(), "e", "embeddings", start, 9, Tokens(7))],
        )
    async with database.read() as session:

        async def asked(**question: Any) -> list[tuple[Any, ...]]:
            rows = await usage_of_all(
                session, OPERATOR, Question(**{"start": start, "end": start + 2 * DAY, **question})
            )
            return [(row.start, row.user_id, row.model, row.requests, row.input_tokens) for row in rows]

        day = NOW - NOW % DAY
        assert await asked() == [(day, None, None, 17, 167), (day + DAY, None, None, 4, 40)]
        assert await asked(kind="embeddings", by=["model"]) == [(day, None, "e", 1, 7)]
        assert await asked(width_s=60, models=["a"], user_ids=[li.id]) == [
            (start, None, None, 2, 20),
            (start + 60, None, None, 1, 10),
            (start + 3600, None, None, 1, 10),
            (start + DAY, None, None, 1, 10),
        ]
        assert await asked(end=start + 60, by=["user_id"], kind="completions") == sorted(
            [(day, ann.id, None, 4, 40), (day, li.id, None, 4, 40)]
        )
        assert await asked(key_ids=["other"]) == []
        mine = await own_usage(session, signed_in(ann), Question(start, start + 60, by=["user_id"], user_ids=[li.id]))
        assert [(row.user_id, row.requests) for row in mine] == [(ann.id, 4)]
        with pytest.raises(ForbiddenError):
            await usage_of_all(session, signed_in(ann), Question(0, NOW))


async def test_old_minutes_become_hours_and_their_sums_stay(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FOLD_AT_ONCE", 7)
    await limit(database, {"tokens_per_month": 10**6})
    hour = NOW - NOW % 3600
    starts = [hour - 2 * DAY + offset for offset in (-7200, -7140, -3660, -3600, -1, 0, 60, DAY)]
    entries = [
        Entry(Payer(user, ""), "m", "completions", start, 9, Tokens(3, 1, 2)) for start in starts for user in ("a", "b")
    ]
    async with database.write() as session:
        await settle(session, entries)

    async def fold_all() -> int:
        n = 0
        while True:
            async with database.write() as session:
                folded = await ledger.fold(session, NOW)
            n += folded
            if not folded:
                return n

    by_hour = Question(0, NOW + DAY, 3600, by=["user_id"])
    async with database.read() as session:
        before = await usage_of_all(session, OPERATOR, by_hour)
    assert sum(await asyncio.gather(fold_all(), fold_all(), fold_all())) == 6, "each minute by one of them"
    async with database.read() as session:
        assert await usage_of_all(session, OPERATOR, by_hour) == before
        left = sorted(await session.scalars(select(Usage.start).where(Usage.user_id == "a")))
        [row] = await list_limits(session, OPERATOR)
        assert (await count(session, row, NOW)).tokens_of_month == 80
    assert [start - hour + 2 * DAY for start in left] == [-7200, -3600, 0, 60, DAY]


async def test_setting_limits(database: Database) -> None:
    accounts = quick_accounts(database)
    owner, admin, member = [
        await make_user(accounts, f"{role.word}@example.org", role) for role in (Role.OWNER, Role.ADMIN, Role.MEMBER)
    ]
    async with database.write() as session:
        key, _ = await keys.make_own_key(session, signed_in(member), "k", [Scope.INFERENCE], None)
        for subject in (Subject(user_id=member.id), Subject(key_id=key.id), Subject(model="m")):
            row = await set_limit(session, signed_in(admin), subject, {"tokens_per_month": 5})
            assert row is not None
            assert (row.tokens_per_month, row.requests_per_minute) == (5, None)
        again = await set_limit(session, signed_in(admin), Subject(model="m"), {"requests_per_minute": 7})
        assert again is not None
        assert (again.tokens_per_month, again.requests_per_minute) == (5, 7)
        assert len(await own_limits(session, signed_in(member))) == 2
        assert await own_limits(session, signed_in(owner)) == []
        for subject in (Subject(user_id="nobody"), Subject(key_id="nothing")):
            with pytest.raises(NotFoundError):
                await set_limit(session, OPERATOR, subject, {"tokens_per_month": 5})
        for subject in (Subject(), Subject(key_id=key.id, model="m"), Subject(model="")):
            with pytest.raises(InvalidRequestError):
                await set_limit(session, OPERATOR, subject, {"tokens_per_month": 5})
        with pytest.raises(InvalidRequestError):
            await set_limit(session, OPERATOR, Subject(model="m"), {"tokens_per_month": -1})
        with pytest.raises(ForbiddenError, match="owner"):
            await set_limit(session, signed_in(admin), Subject(user_id=owner.id), {"tokens_per_month": 5})
        for actor in (signed_in(member), replace(signed_in(admin), scopes=frozenset({Scope.INFERENCE}))):
            for work in (
                list_limits(session, actor),
                set_limit(session, actor, Subject(model="m"), {"tokens_per_month": None}),
                remove_limit(session, actor, again.id),
            ):
                with pytest.raises(ForbiddenError):
                    await work
        await remove_limit(session, signed_in(admin), row.id)
        with pytest.raises(NotFoundError):
            await remove_limit(session, signed_in(admin), "limit-none")
        none = await set_limit(session, OPERATOR, Subject(user_id=member.id), {"tokens_per_month": None})
        assert none is None, "a limit without figures is none"
    async with database.read() as session:
        assert [limit.key_id for limit in await list_limits(session, OPERATOR)] == [key.id]


async def test_a_limit_of_nothing_lets_nothing_through(database: Database) -> None:
    for figure in ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_month"):
        await limit(database, {figure: 0})  # type: ignore[dict-item]
        with pytest.raises(LimitReachedError):
            await begin(database, Wanted(1, [(1, 10)], can_be_shorter=True))
        await limit(database, {figure: None})  # type: ignore[dict-item]
    async with database.read() as session:
        row = Limit(model="m")
        assert (await count(session, row, NOW)).running == 0
