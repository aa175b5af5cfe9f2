"""`users`: who may sign in, by the machine's operator."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from chatwright.cli.output import Output, choice, read_settings
from chatwright.cli.people import server_address, shown_time, welcome_link, with_accounts
from chatwright.errors import UsageError
from chatwright.i18n import _

ROLES = ("owner", "admin", "member")
EMAIL = typer.Argument(metavar="EMAIL", help="The user's email address.")
JSON_HELP = "Print JSON."


def ls(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """List the users."""
    from chatwright.store.accounts import users
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.actor import OPERATOR

    output: Output = context.obj

    async def work(accounts: Accounts) -> list[dict[str, Any]]:
        async with accounts.database.read() as session:
            return [
                {
                    "id": user.id,
                    "email": user.email,
                    "name": user.name,
                    "role": user.role,
                    "status": user.status,
                    "created_at": user.created_at,
                }
                for user in await users.list_users(session, OPERATOR)
            ]

    rows = with_accounts(output, work)
    if as_json:
        output.json(rows)
        return
    status = {"invited": _("invited"), "active": _("active"), "suspended": _("suspended")}
    output.table(
        [_("EMAIL"), _("NAME"), _("ROLE"), _("STATUS"), _("SINCE")],
        [
            [row["email"], row["name"], row["role"], status[row["status"]], shown_time(row["created_at"])]
            for row in rows
        ],
    )


def add(
    context: typer.Context,
    email: Annotated[str, EMAIL],
    role: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="owner, admin or member. Default: owner for the first, then member.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What they are called.", show_default=False)] = None,
    password: Annotated[
        bool, typer.Option("--password", help="Read a password from standard input instead of printing a link.")
    ] = False,
) -> None:
    """Add a user, and print the link with which they choose a password."""
    from chatwright.store.accounts import links, users
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.actor import OPERATOR, Role

    output: Output = context.obj
    chosen = choice(role, "--role", *ROLES)
    given = _read_password() if password else None

    async def work(accounts: Accounts) -> tuple[str | None, bool]:
        if given is not None:
            from chatwright.store.accounts.passwords import check_password

            check_password(given, email)  # before there is a user without one
        async with accounts.database.write() as session:
            is_first = not await users.list_users(session, OPERATOR)
            user = await users.add_user(session, OPERATOR, email, name, Role.of(chosen) if chosen else None)
            if given is None:
                return await links.make_link(session, OPERATOR, user.id), is_first
        await accounts.set_password(OPERATOR, user.id, given)
        return None, is_first

    token, is_first = with_accounts(output, work, create=True)
    if token is None:
        output.say(_("{email} can sign in.", email=email))
    else:
        _print_link(output, token)
    if is_first:  # from then on no server runs without
        output.say(_("With accounts a server asks everybody to sign in: restart one that runs without them."))


def link(context: typer.Context, email: Annotated[str, EMAIL]) -> None:
    """Print a new link with which a user chooses a password, the first or a new one."""
    from chatwright.store.accounts import links, users
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.actor import OPERATOR

    output: Output = context.obj

    async def work(accounts: Accounts) -> str:
        async with accounts.database.write() as session:
            user = await users.find_user(session, OPERATOR, email)
            return await links.make_link(session, OPERATOR, user.id)

    _print_link(output, with_accounts(output, work))


def role(
    context: typer.Context,
    email: Annotated[str, EMAIL],
    new: Annotated[str, typer.Argument(metavar="ROLE", help="owner, admin or member.")],
) -> None:
    """Change what a user may do. Keys that could do more can do it no longer."""
    from chatwright.store.accounts import users
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.actor import OPERATOR, Role

    output: Output = context.obj
    chosen = Role.of(choice(new, "ROLE", *ROLES))

    async def work(accounts: Accounts) -> None:
        async with accounts.database.write() as session:
            user = await users.find_user(session, OPERATOR, email)
            await users.change_role(session, OPERATOR, user.id, chosen)

    with_accounts(output, work)
    output.say(_("{email} is now: {role}.", email=email, role=chosen.word))


def suspend(context: typer.Context, email: Annotated[str, EMAIL]) -> None:
    """Keep a user out at once: sessions end, keys are revoked for good, links and the password open nothing."""
    _change(context, email, "suspend")
    context.obj.say(_("{email} is suspended: sessions have ended, keys are revoked.", email=email))


def resume(context: typer.Context, email: Annotated[str, EMAIL]) -> None:
    """Let a suspended user in again, by their password. Keys have to be made anew."""
    _change(context, email, "resume")
    context.obj.say(_("{email} can sign in.", email=email))


def rm(
    context: typer.Context,
    email: Annotated[str, EMAIL],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a user and all that is theirs."""
    if not yes and not typer.confirm(_("Remove {email} and all that is theirs?", email=email)):
        return
    from chatwright.store.accounts import users
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.actor import OPERATOR
    from chatwright.store.files import Files

    async def work(accounts: Accounts) -> None:
        async with accounts.database.read() as session:
            user = await users.find_user(session, OPERATOR, email)
        leaving = Files(accounts.database, read_settings()).leaving_with(user.id)
        async with leaving, accounts.database.write() as session:
            await users.remove_user(session, OPERATOR, user.id)

    with_accounts(context.obj, work)
    context.obj.say(_("{email} is removed.", email=email))


def _change(context: typer.Context, email: str, what: str) -> None:
    from chatwright.store.accounts import users
    from chatwright.store.accounts.service import Accounts
    from chatwright.store.actor import OPERATOR

    async def work(accounts: Accounts) -> None:
        async with accounts.database.write() as session:
            user = await users.find_user(session, OPERATOR, email)
            await getattr(users, what)(session, OPERATOR, user.id)

    with_accounts(context.obj, work)


def _print_link(output: Output, token: str) -> None:
    output.say(_("Give them this link, over a way that you trust. It is good once, for three days:"))
    output.data(welcome_link(server_address(read_settings()), token))


def _read_password() -> str:
    if sys.stdin.isatty():
        from getpass import getpass

        first = getpass(_("Password: "))
        if getpass(_("Once more: ")) != first:
            raise UsageError("The two passwords differ.")
        return first
    return sys.stdin.readline().rstrip("\r\n")
