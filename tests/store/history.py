"""What a database held at each revision: rows as that version wrote them, so that every upgrade is tried with data."""

from __future__ import annotations

from typing import Any

# Revision → table → rows that are new with it. What stands here is never changed, as databases like it are out there.
ROWS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "0001": {
        "users": [
            {
                "id": "user-1",
                "email": "ann@example.org",
                "name": "Ann",
                "role": "owner",
                "status": "active",
                "password_hash": "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
                "created_at": 1_700_000_000,
            },
            {
                "id": "user-2",
                "email": "li@example.org",
                "name": "李雷 🙂",
                "role": "member",
                "status": "invited",
                "password_hash": None,
                "created_at": 1_700_000_001,
            },
        ]
    },
}


def rows_until(revision: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of a database of this revision."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for known, tables in ROWS.items():
        if known <= revision:
            for table, new in tables.items():
                rows.setdefault(table, []).extend(new)
    return rows
