"""`limits`: what keys, users and models may use, by the machine's operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, number, read_settings
from chatwright.cli.people import with_accounts
from chatwright.errors import NotFoundError, UsageError
from chatwright.i18n import _

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from chatwright.store.accounts.service import Accounts
    from chatwright.store.usage.limits import Figure, Subject

JSON_HELP = "Print JSON."
KEY = typer.Option("--key", metavar="ID", help="Of this API key, by its id from `keys ls`.", show_default=False)
USER = typer.Option("--user", metavar="EMAIL", help="Of this user, with all their keys.", show_default=False)
MODEL = typer.Option("--model", metavar="NAME", help="Of this model, by everybody together.", show_default=False)
NO_LIMIT = "none"
MOST = 10**15


def ls(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """List limits. What is not in the list is not limited."""
    from chatwright.store.accounts import keys, users
    from chatwright.store.actor import OPERATOR
    from chatwright.store.usage.limits import FIGURES, list_limits

    output: Output = context.obj

    async def work(accounts: Accounts) -> list[dict[str, Any]]:
        async with accounts.database.read() as session:
            emails = {user.id: user.email for user in await users.list_users(session, OPERATOR)}
            names = {key.id: key.name for key in await keys.list_keys_of_users(session, OPERATOR, None)}
            return [
                {
                    "id": limit.id,
                    "key_id": limit.key_id,
                    "key_name": names.get(limit.key_id or ""),
                    "user": emails.get(limit.user_id or ""),
                    "model": limit.model,
                    **{name: getattr(limit, name) for name in FIGURES},
                }
                for limit in await list_limits(session, OPERATOR)
            ]

    rows = with_accounts(output, work)
    if as_json:
        output.json(rows)
        return
    output.table(
        [_("LIMIT OF"), _("REQUESTS/MIN"), _("TOKENS/MIN"), _("AT ONCE"), _("TOKENS/MONTH")],
        [[_shown(row), *("-" if row[name] is None else f"{row[name]:,}" for name in FIGURES)] for row in rows],
    )


def set_(
    context: typer.Context,
    key: Annotated[str | None, KEY] = None,
    user: Annotated[str | None, USER] = None,
    model: Annotated[str | None, MODEL] = None,
    requests_per_minute: Annotated[
        str | None, typer.Option(metavar="N", help="Requests a minute; none: no limit.", show_default=False)
    ] = None,
    tokens_per_minute: Annotated[
        str | None,
        typer.Option(metavar="N", help="Tokens a minute, of prompts and answers; none: no limit.", show_default=False),
    ] = None,
    concurrent: Annotated[
        str | None, typer.Option(metavar="N", help="Requests at the same time; none: no limit.", show_default=False)
    ] = None,
    tokens_per_month: Annotated[
        str | None,
        typer.Option(metavar="N", help="Tokens a calendar month (UTC); none: no limit.", show_default=False),
    ] = None,
) -> None:
    """Limit what a key, a user or a model may use. What is not named stays as it is."""
    from chatwright.store.actor import OPERATOR
    from chatwright.store.usage.limits import set_limit

    output: Output = context.obj
    given = {
        "requests_per_minute": (requests_per_minute, "--requests-per-minute"),
        "tokens_per_minute": (tokens_per_minute, "--tokens-per-minute"),
        "concurrent_requests": (concurrent, "--concurrent"),
        "tokens_per_month": (tokens_per_month, "--tokens-per-month"),
    }
    figures: dict[Figure, int | None] = {
        name: None if text == NO_LIMIT else number(text, option, least=0, most=MOST, whole=True)  # type: ignore[misc]
        for name, (text, option) in given.items()
        if text is not None
    }
    if not figures:
        raise UsageError("Say what shall be limited: {options}.", options=", ".join(o for _text, o in given.values()))
    _check_one(key, user, model)

    async def work(accounts: Accounts) -> None:
        async with accounts.database.write() as session:
            await set_limit(session, OPERATOR, await _subject(session, key, user, model), figures)

    with_accounts(output, work, create=True)
    if model is not None and not _is_here(model):
        output.say(
            _(
                "No model called {name} is here: the limit counts for whatever a server calls so. `chatwright ls` shows the models"
                " that are here.",
                name=model,
            )
        )
    output.say(_("The limit is set. It holds from the next request on, also of a running server."))


def rm(
    context: typer.Context,
    key: Annotated[str | None, KEY] = None,
    user: Annotated[str | None, USER] = None,
    model: Annotated[str | None, MODEL] = None,
) -> None:
    """Take the limits of a key, a user or a model away."""
    from chatwright.store.actor import OPERATOR
    from chatwright.store.usage.limits import remove_limit_of

    output: Output = context.obj
    _check_one(key, user, model)

    async def work(accounts: Accounts) -> bool:
        async with accounts.database.write() as session:
            return await remove_limit_of(session, OPERATOR, await _subject(session, key, user, model))

    if not with_accounts(output, work):
        raise NotFoundError("There is no such limit: `chatwright limits ls` shows them.")
    output.say(_("The limit is gone."))


def _is_here(model: str) -> bool:
    """Whether it lies in the models folder, or is a training job's, which lies elsewhere."""
    from chatwright.hub.folder import ModelsFolder

    return model.startswith("ft:") or ModelsFolder(read_settings().models_dir).find(model) is not None


def _check_one(key: str | None, user: str | None, model: str | None) -> None:
    if sum(given is not None for given in (key, user, model)) != 1:
        raise UsageError("Say whose limit it is: --key, --user or --model, one of them.")


async def _subject(session: AsyncSession, key: str | None, user: str | None, model: str | None) -> Subject:
    from chatwright.store.accounts import users
    from chatwright.store.actor import OPERATOR
    from chatwright.store.usage.limits import Subject

    if user is not None:
        return Subject(user_id=(await users.find_user(session, OPERATOR, user)).id)
    return Subject(key_id=key, model=model)


def _shown(row: dict[str, Any]) -> str:
    if row["model"]:
        return _("the model {name}", name=row["model"])
    return row["user"] or _("the key {name} ({id})", name=row["key_name"], id=row["key_id"])
