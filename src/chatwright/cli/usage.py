"""`usage`: who used how much, by the machine's operator."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, number
from chatwright.cli.people import with_accounts
from chatwright.errors import UsageError
from chatwright.i18n import _

if TYPE_CHECKING:
    from chatwright.store.accounts.service import Accounts

JSON_HELP = "Print JSON."
GROUPS = ("day", "user", "key", "model")
MOST_DAYS = 3660


def usage(
    context: typer.Context,
    days: Annotated[
        str | None, typer.Option(metavar="N", help="Of so many days, today included. Default: 31.", show_default=False)
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="GROUPS",
            help="A row for each day, user, key or model, or several of these with commas. Default: day,model.",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="EMAIL", help="Only of this user.", show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="ID", help="Only of this API key.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Only of this model.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Show requests and tokens of the server's users, keys and models. Days are those of UTC."""
    from chatwright.store import clock
    from chatwright.store.accounts import keys, users
    from chatwright.store.actor import OPERATOR
    from chatwright.store.usage.report import Group, Question, usage_of_all
    from chatwright.store.usage.times import DAY

    output: Output = context.obj
    n_days = number(days or "31", "--days", least=1, most=MOST_DAYS, whole=True)
    groups = _groups(by or "day,model")
    columns: dict[str, Group] = {"user": "user_id", "key": "key_id", "model": "model"}
    today = clock.now() - clock.now() % DAY
    start, end = today - (n_days - 1) * DAY, today + DAY

    async def work(accounts: Accounts) -> list[dict[str, Any]]:
        async with accounts.database.read() as session:
            emails = {person.id: person.email for person in await users.list_users(session, OPERATOR)}
            names = {found.id: found.name for found in await keys.list_keys_of_users(session, OPERATOR, None)}
            whose = (await users.find_user(session, OPERATOR, user)).id if user is not None else None
            question = Question(
                start,
                end,
                # One bucket for all days, where they are not told apart: buckets begin at multiples of their width.
                DAY if "day" in groups else end,
                [columns[group] for group in groups if group in columns],
                user_ids=None if whose is None else [whose],
                key_ids=None if key is None else [key],
                models=None if model is None else [model],
            )
            return [
                {
                    **({"day": datetime.fromtimestamp(row.start, UTC).strftime("%Y-%m-%d")} if "day" in groups else {}),
                    **(_named("user", row.user_id, emails) if "user" in groups else {}),
                    **(_named("key", row.key_id, names) if "key" in groups else {}),
                    **({"model": row.model} if "model" in groups else {}),
                    "requests": row.requests,
                    "input_tokens": row.input_tokens,
                    "cached_tokens": row.cached_tokens,
                    "output_tokens": row.output_tokens,
                }
                for row in await usage_of_all(session, OPERATOR, question)
            ]

    rows = with_accounts(output, work)
    if as_json:
        output.json(rows)
        return
    headings = {"day": _("DAY"), "user": _("USER"), "key": _("KEY"), "model": _("MODEL")}
    output.table(
        [*(headings[group] for group in groups), _("REQUESTS"), _("INPUT"), _("CACHED"), _("OUTPUT")],
        [
            [
                *(str(row[group] or "-") for group in groups),
                *(f"{row[name]:,}" for name in ("requests", "input_tokens", "cached_tokens", "output_tokens")),
            ]
            for row in rows
        ],
    )


def _named(what: str, row_id: str | None, names: dict[str, str]) -> dict[str, str | None]:
    """The id, and the name that goes with it: the id where it belongs to somebody who is gone."""
    return {what: names.get(row_id, row_id) if row_id else None, f"{what}_id": row_id or None}


def _groups(text: str) -> list[str]:
    given = {word.strip() for word in text.split(",")}
    for word in given:
        if word not in GROUPS:
            raise UsageError(
                "{option} is one of {choices}, not {value!r}.",
                option="--by",
                choices=", ".join(GROUPS),
                value=word[:40],
            )
    return [group for group in GROUPS if group in given]
