"""`keys`: API keys of users, by the machine's operator."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from chatwright.cli.output import Output
from chatwright.cli.people import shown_time, with_accounts
from chatwright.errors import UsageError
from chatwright.i18n import _

SCOPES = "inference, files, fine-tuning, admin"
LIFE = re.compile(r"(\d{1,4})\s*([hdwy])")
SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
JSON_HELP = "Print JSON."
USER_HELP = "Whose, by email address. Default: the only user's."


def ls(
    context: typer.Context,
    user: Annotated[
        str | None, typer.Option("--user", metavar="EMAIL", help="Only this user's keys.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """List API keys. The keys themselves are shown only when they are made."""
    from chatwright.store.accounts import keys, users
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.actor import OPERATOR

    output: Output = context.obj

    async def work(accounts: Accounts) -> list[dict[str, Any]]:
        async with accounts.database.read() as session:
            emails = {person.id: person.email for person in await users.list_users(session, OPERATOR)}
            whose = (await users.find_user(session, OPERATOR, user)).id if user is not None else None
            return [
                {
                    "id": key.id,
                    "key": f"sk-cw-{key.prefix}-…",
                    "name": key.name,
                    "user": emails[key.user_id],
                    "scopes": key.scopes.split(),
                    "created_at": key.created_at,
                    "expires_at": key.expires_at,
                    "revoked_at": key.revoked_at,
                    "used_at": key.used_at,
                }
                for key in await keys.list_keys_of_users(session, OPERATOR, whose)
            ]

    rows = with_accounts(output, work)
    if as_json:
        output.json(rows)
        return
    output.table(
        [_("ID"), _("KEY"), _("NAME"), _("USER"), _("SCOPES"), _("EXPIRES"), _("LAST USED")],
        [
            [
                row["id"],
                row["key"],
                row["name"],
                row["user"],
                ", ".join(row["scopes"]),
                # Closed when its time was up: that is the time to show.
                _("revoked") if row["revoked_at"] not in (None, row["expires_at"]) else shown_time(row["expires_at"]),
                shown_time(row["used_at"]),
            ]
            for row in rows
        ],
    )


def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for, such as laptop.")],
    user: Annotated[str | None, typer.Option("--user", metavar="EMAIL", help=USER_HELP, show_default=False)] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="What it may be used for: inference, files, fine-tuning, admin; may be given several times. Default: inference.",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How long it is good: 12h, 90d, 8w, 1y. Default: for ever.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Make an API key and print it, this once."""
    from chatwright.store import clock
    from chatwright.store.accounts import keys, users
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.actor import OPERATOR

    output: Output = context.obj
    scopes = _scopes(scope or ["inference"])
    expires_at = clock.now() + _seconds(expires) if expires is not None else None

    async def work(accounts: Accounts) -> tuple[str, str]:
        async with accounts.database.write() as session:
            if user is not None:
                owner = await users.find_user(session, OPERATOR, user)
            else:
                everybody = await users.list_users(session, OPERATOR)
                if len(everybody) != 1:
                    raise UsageError("Whose key shall it be? Name the user with --user EMAIL.")
                owner = everybody[0]
            row, key = await keys.make_key_for_user(session, OPERATOR, owner.id, name, scopes, expires_at)
            return row.id, key

    key_id, key = with_accounts(output, work)
    if as_json:
        output.json({"id": key_id, "key": key, "expires_at": expires_at})
        return
    output.say(_("Keep it: it is not shown again. `chatwright keys revoke {id}` ends it.", id=key_id))
    output.data(key)


def revoke(
    context: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `keys ls`.")]
) -> None:
    """End a key at once."""
    from chatwright.store.accounts import keys
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.actor import OPERATOR

    output: Output = context.obj

    async def work(accounts: Accounts) -> None:
        async with accounts.database.write() as session:
            await keys.revoke_key_of_user(session, OPERATOR, None, key_id)

    with_accounts(output, work)
    output.say(_("The key {id} opens nothing any more.", id=key_id))


def _scopes(words: list[str]) -> list[Any]:
    from chatwright.store.actor import Scope

    given = [word.strip() for text in words for word in text.split(",")]
    for word in given:
        if word not in set(Scope):
            raise UsageError("--scope is one of {choices}, not {value!r}.", choices=SCOPES, value=word[:40])
    return [Scope(word) for word in given]


def _seconds(text: str) -> int:
    match = LIFE.fullmatch(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise UsageError("--expires takes a time such as 12h, 90d, 8w or 1y, not {value!r}.", value=text[:40])
    return int(match[1]) * SECONDS[match[2]]
