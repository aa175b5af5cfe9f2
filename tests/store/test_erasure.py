"""A removed user leaves nothing that names them, in whatever table there is (GDPR, article 17)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, String, Table, Text, func, insert, select
from sqlalchemy.engine import URL, Connection

from chatwright.store import schema
from chatwright.store.accounts import users
from chatwright.store.actor import OPERATOR
from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.tables import Base
from tests.store.test_database import user
from tests.store.test_migrations import fill, on

# Tables whose rows outlive whom they are about, and why that is no personal data any more, or has a reason.
OUTLIVE = {
    "usage": "bills of a month stay true: an id that nothing else knows, and sums; never content",
    "reservations": "a request that runs has used what it used; gone when it ends, or with the next start",
}
WHOSE = {"user_id", "owner_id", "created_by", "key_id"}
LI = "user-2"


def keys_to_users(table: Table) -> list[ForeignKey]:
    return [key for key in table.foreign_keys if key.column.table.name == "users"]


def test_every_row_of_a_user_goes_with_them_or_says_why_not() -> None:
    """Also in tables to come."""
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if column.name in WHOSE and table.name not in OUTLIVE:
                # the key that began a work may be gone before it; the row goes with its user
                goes_along = column.name == "key_id" and keys_to_users(table)
                assert column.foreign_keys or goes_along, f"{table.name}.{column.name} would stay"
        for key in table.foreign_keys:
            if key.column.table is table:  # a tree goes as a whole
                continue
            assert key.ondelete in ("CASCADE", "SET NULL"), (
                f"{table.name} would keep {key.column.table.name} from going"
            )
        for key in keys_to_users(table):
            assert key.ondelete == "CASCADE", table.name
    assert set(OUTLIVE) <= set(Base.metadata.tables)


async def test_a_removed_user_leaves_nothing_that_names_them(url: URL) -> None:
    await upgrade(url)
    await on(url, fill(schema.head()))
    database = Database(url)

    def give_all_to(user_id: str) -> Any:
        """Each table that has owners has something of this user's."""

        def work(connection: Connection) -> None:
            for table in Base.metadata.sorted_tables:
                for key in keys_to_users(table):
                    column = key.parent
                    if column.name == "user_id" and "key_id" not in table.columns:
                        owned = column.is_not(None)
                        connection.execute(table.update().where(owned).values({column: user_id}))
                    found = connection.scalar(select(func.count()).select_from(table).where(column == user_id))
                    assert found or "key_id" in table.columns, f"{table.name}: give tests/store/history.py a row"

        return work

    async with database.write() as session:
        session.add(user(7))
        await session.execute(
            insert(Base.metadata.tables["limits"]), [{"id": "limit-9", "user_id": LI, "created_at": 1_700_000_000}]
        )
    await on(url, give_all_to(LI))
    async with database.write() as session:
        await users.remove_user(session, OPERATOR, LI)

    def look(connection: Connection) -> list[str]:
        found = []
        for table in Base.metadata.sorted_tables:
            if table.name in OUTLIVE:
                continue
            texts = [column for column in table.columns if isinstance(column.type, String | Text)]
            for row in connection.execute(select(*texts)) if texts else ():
                if any(word in str(value) for value in row for word in (LI, "li@example.org", "李雷")):
                    found.append(f"{table.name}: {row}")
        return found

    assert await on(url, look) == []

    def count(connection: Connection) -> dict[str, int]:
        return {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }

    left = await on(url, count)
    # With a conversation go its messages and what is being written, as nobody else has any.
    assert {table: left[table] for table in ("sessions", "api_keys", "conversations", "messages", "generations")} == {
        "sessions": 0,
        "api_keys": 0,
        "conversations": 0,
        "messages": 0,
        "generations": 0,
    }
    await database.close()
