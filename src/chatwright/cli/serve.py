"""`serve`: the web app and the API, for the models named, or for the default one, which is pulled when it is missing."""

from __future__ import annotations

import ipaddress
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import SecretStr

from chatwright.cli.adapters import Chosen, resolve_model, with_adapters
from chatwright.cli.output import Output, read_settings
from chatwright.errors import ChatwrightError, InUseError, ModelNotFoundError, UsageError
from chatwright.i18n import _, describe_error, format_size
from chatwright.machine import cpu_quota

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chatwright.engine.text import TextModel
    from chatwright.hub import ModelsFolder
    from chatwright.settings import Settings
    from chatwright.store.database import Database


def serve(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Models to serve: names or paths. Without one, the default model."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1, this machine only.")
    ] = None,
    port: Annotated[str | None, typer.Option(metavar="PORT", help="Port to listen on. Default: 8000.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Key that clients must send. Others can read a command line: CHATWRIGHT_API_KEY_FILE is safer.",
        ),
    ] = None,
    accounts: Annotated[
        bool,
        typer.Option(
            "--accounts", help="Everybody signs in; the first start prints a link. Always so once there is a user."
        ),
    ] = False,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:0 or mps.")] = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="Precision of the weights: auto, int8, int4, bf16 or fp32.", show_default=False
        ),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory for all models together, such as 4GB. Default: most of what is free.",
            show_default=False,
        ),
    ] = None,
    moderate: Annotated[
        bool,
        typer.Option("--moderate", help="Refuse requests, and end answers, that moderation classifies as harmful."),
    ] = False,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Serve the model with the LoRA adapter in DIR too, as NAME; may be given several times.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve the web app and an OpenAI-compatible API."""
    from chatwright.cli.db import warn_of_network
    from chatwright.cli.home import sole_server
    from chatwright.store.url import database_url

    output: Output = context.obj
    settings = read_settings(
        {
            "host": host,
            "port": port,
            "api_key": api_key,
            "accounts": accounts or None,
            "device": device,
            "quantization": quantization,
            "memory_limit": memory_limit,
            "moderate": moderate or None,
        }
    )
    output.log_to_stderr(settings)
    # Every server has a database, also the one that makes it now.
    warn_of_network(database_url(settings), output)
    settings = with_accounts_of_store(settings)
    if not is_loopback(settings.host) and settings.api_key is None and not settings.accounts:
        raise UsageError(
            "Listening on {host} would open this server to others, so it needs a key: set CHATWRIGHT_API_KEY or --api-key, let"
            " everybody sign in with --accounts, or listen on 127.0.0.1.",
            host=settings.host,
        )
    check_provider(settings)
    try:
        sock = bind(settings.host, settings.port)
    except InUseError:
        # Another Chatwright on this home? Then say that: on another port it would be refused too.
        with sole_server(settings.home, ""):
            raise
    with ExitStack() as stack:
        stack.enter_context(sock)
        stack.enter_context(_ended_by_signals())
        settings = settings.model_copy(update={"port": sock.getsockname()[1]})
        _serve(models or [], adapter or [], settings, sock, output, stack)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGINT end the block as exceptions, so that everything is cleaned up (exit codes 0 and 130).

    That is for the time of pulling and loading: a running server handles both itself, and leaves with 0.
    """

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, interrupt),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve(
    names: Sequence[str],
    adapters: Sequence[str],
    settings: Settings,
    sock: socket.socket,
    output: Output,
    stack: ExitStack,
) -> None:
    from chatwright.cli.home import sole_server
    from chatwright.hub import ModelsFolder

    made_token = settings.admin_token is None
    if made_token:
        settings = settings.model_copy(update={"admin_token": SecretStr(secrets.token_urlsafe(32))})
    assert settings.admin_token is not None
    url = f"http://{_shown_host(settings.host)}:{settings.port}"
    if not stack.enter_context(sole_server(settings.home, url, settings.admin_token.get_secret_value())):
        output.say(_("The home folder {path} cannot be written: nothing will be kept.", path=settings.home))
    if sentence := quota_sentence(cpu_quota()):
        output.say(sentence)
    folder = ModelsFolder(settings.models_dir)
    chosen = with_adapters(find_models(names, settings, folder, output), adapters)
    for model in chosen:
        if folder.owns(model.path):
            stack.enter_context(folder.in_use(model.base or model.name, url))

    database, setup_token = open_database(settings, output)

    from chatwright.engine.opened import open_model
    from chatwright.engine.process.memory import MemoryBudget
    from chatwright.engine.process.supervised import in_processes

    budget = MemoryBudget.of(settings)
    opened = [open_model(model.path, model.name, settings, model.adapter) for model in chosen]
    text_models = in_processes(opened, settings, budget)

    # While the engine's process imports PyTorch.
    from chatwright.server.app import create_app
    from chatwright.server.run import run_server
    from chatwright.store.accounts.service import Accounts

    accounts = Accounts(database) if settings.accounts and database is not None else None
    output.say(loading_sentence(chosen[0]))
    for model in chosen[1:]:
        beside = model.path == chosen[0].path
        output.say(loading_sentence(model) if beside else waiting_sentence(model, budget.limit_bytes))
    run_server(
        create_app(settings, text_models, opened, accounts, database, budget),
        settings,
        sock,
        on_started=lambda: announce(url, text_models, settings, made_token, setup_token, output),
        on_draining=lambda n: _say_draining(n, settings, output),
    )


def with_accounts_of_store(settings: Settings) -> Settings:
    """The same settings, with accounts where there are users: forgetting a flag must not open what was closed.

    Raises StoreError and its kin: a database that can not be read may hold users.
    """
    from chatwright.settings import database_is_named

    if not (settings.accounts or database_is_named(settings)):
        return settings

    import asyncio

    from chatwright.store.accounts.service import Accounts
    from chatwright.store.opening import opened

    async def look() -> bool:
        # `create`: it is named, or was begun and not finished.
        async with opened(settings, create=True) as database:
            return await Accounts(database).has_users()

    return settings.model_copy(update={"accounts": asyncio.run(look()) or settings.accounts})


def check_provider(settings: Settings) -> None:
    """Raises UsageError where people could not sign in through the identity provider that is named."""
    if settings.oidc_issuer is None:
        return
    if not settings.accounts:
        raise UsageError(
            "To sign in through {issuer} there must be accounts: start with --accounts.", issuer=settings.oidc_issuer
        )
    if settings.public_url is None and not is_loopback(settings.host):
        raise UsageError(
            "{issuer} has to send people back to an address of this server: name it with CHATWRIGHT_PUBLIC_URL.",
            issuer=settings.oidc_issuer,
        )


def open_database(settings: Settings, output: Output) -> tuple[Database | None, str | None]:
    """The store for the server's own event loop, and where nobody has an account and everybody needs one, the token for the first
    owner. None where it cannot be made on a server without accounts, which says so and goes on without.

    Raises StoreError and its kin where there are accounts.
    """
    import asyncio

    from chatwright.store.accounts.service import Accounts
    from chatwright.store.database import Database
    from chatwright.store.opening import opened
    from chatwright.store.url import database_url

    async def make() -> str | None:
        async with opened(settings, create=True) as database:
            return await Accounts(database).setup_token() if settings.accounts else None

    try:
        return Database(database_url(settings)), asyncio.run(make())
    except ChatwrightError as error:
        if settings.accounts:
            raise
        output.say(_("What needs the database is off: {problem}", problem=describe_error(error)))
        return None, None


def find_models(names: Sequence[str], settings: Settings, folder: ModelsFolder, output: Output) -> list[Chosen]:
    """The models named, or the default one, pulled when it is missing.

    Raises UsageError for a model named twice or at too great length, ModelNotFoundError, and what a pull raises.
    """
    from chatwright.hub.names import LONGEST_NAME

    if not names:
        return [Chosen(*default_model(settings, folder, output))]
    found = [resolve_model(name, folder) for name in names]
    for model in found:
        if sum(model.name == other.name for other in found) > 1:
            raise UsageError("Two of the models are called {name}: serve one of them.", name=model.name)
        if len(model.name) > LONGEST_NAME:
            raise UsageError(
                "The name {name} is too long, {most} characters are the most: rename the file or folder.",
                name=model.name,
                most=LONGEST_NAME,
            )
    return found


def quota_sentence(cores: float | None) -> str | None:
    """What to expect where the container leaves less than a core."""
    if cores is None or cores >= 1:
        return None
    return _(
        "The container is limited to {quota:g} of a CPU core: one thread computes, is stopped when that is used up, and answers "
        "come as much slower. Give it one core or more, for example with `docker run --cpus 2`.",
        quota=cores,
    )


def loading_sentence(model: Chosen) -> str:
    """What is loaded, an adapter with its base."""
    if model.adapter is None:
        return _("Loading {name}…", name=model.name)
    return _("Loading {name}: {base} with the adapter in {path}…", name=model.name, base=model.base, path=model.adapter)


def waiting_sentence(model: Chosen, limit_bytes: int) -> str:
    """When a model that is not the first one is loaded."""
    return _(
        "{name} will be loaded when it is first used, and unloaded when others need its memory ({limit} for all).",
        name=model.name,
        limit=format_size(limit_bytes),
    )


def default_model(settings: Settings, folder: ModelsFolder, output: Output) -> tuple[str, Path]:
    """(name, path) of the default model; pulled first when it is missing."""
    from chatwright.cli.progress import PullProgress
    from chatwright.hub import pull

    try:
        return folder.resolve(settings.default_model, allow_path=True)
    except ModelNotFoundError:
        output.say(_("The default model {name} is not here yet: fetching it once.", name=settings.default_model))
    with PullProgress(output) as progress:
        model = pull(settings.default_model, folder, progress)
    return model.name, model.path


def bind(host: str, port: int) -> socket.socket:
    """A listening socket's address, taken early. Raises InUseError with a free port, UsageError for a wrong host."""
    try:
        family, _kind, _proto, _canonical, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise UsageError("The host {host} is not an address of this machine: try 127.0.0.1.", host=host) from error
    # asyncio switches Nagle's algorithm off for connections of sockets that name TCP; with it each token of a stream waits until
    # the client has acknowledged the one before, 40 ms on Linux.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if socket.has_dualstack_ipv6() and family == socket.AF_INET6 and host == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        reuse_address(sock)
        sock.bind(address)
        # At once, though nothing is answered before the model is loaded: until one of them listens, two sockets may share a port.
        sock.listen(128)
    except PermissionError as error:
        sock.close()
        raise UsageError(
            "Port {port} is reserved for the system: choose one from 1024 up, with --port.", port=port
        ) from error
    except OSError as error:
        sock.close()
        if not _is_taken(error):
            raise UsageError("The host {host} is not an address of this machine: try 127.0.0.1.", host=host) from error
        raise InUseError(
            "Port {port} is taken by another program: try `chatwright serve --port {free}`.",
            port=port,
            free=free_port(host),
        ) from error
    return sock


def reuse_address(sock: socket.socket) -> None:
    """Let a restarted server take its port back at once. On Windows that option would steal a port in use."""
    import os

    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def free_port(host: str) -> int:
    """A port that is free at this moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_taken(error: OSError) -> bool:
    import errno

    return error.errno == errno.EADDRINUSE


def _shown_host(host: str) -> str:
    """The host to write into a URL: one that a browser on this machine can open."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 — compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def announce(
    url: str,
    models: Sequence[TextModel],
    settings: Settings,
    made_token: bool,
    setup_token: str | None,
    output: Output,
) -> None:
    """What a person needs to know, once, when the server listens."""
    key = settings.api_key is not None or settings.accounts
    header = ' -H "Authorization: Bearer $CHATWRIGHT_API_KEY"' if key else ""
    lines = [
        "",
        _("Chatwright is running: {url}", url=url),
        _("Models: {names}", names=", ".join(model.name for model in models)),
        *(sentence for model in models if (sentence := languages_sentence(model.name, model.languages))),
        _who_sentence(settings),
        *_moderation_sentence(settings),
        *_setup_sentences(settings, url, setup_token),
        _("API: {url}/v1   documentation: {url}/docs", url=url),
        *_token_sentence(settings, made_token),
        *_example(url, models, header),
        _("Ctrl-C stops the server."),
        "",
    ]
    output.say("\n".join(lines))


def _who_sentence(settings: Settings) -> str:
    """Who can come in."""
    if settings.accounts:
        return _("Everybody signs in, or sends an API key of their own: `chatwright users`, `chatwright keys`.")
    if settings.api_key is not None:
        return _("Clients must send the API key.")
    return _("No key is needed; only this machine can connect.")


def _moderation_sentence(settings: Settings) -> Sequence[str]:
    """That some requests will be refused, which nobody sees otherwise until one is."""
    if not settings.moderate:
        return ()
    return (_("Moderation is on: requests that it classifies as harmful are refused, answers end there."),)


def _setup_sentences(settings: Settings, url: str, setup_token: str | None) -> Sequence[str]:
    """How the first owner comes in, and what travels readable."""
    from chatwright.cli.people import welcome_link

    lines = []
    if setup_token is not None:
        link = welcome_link(settings.public_url or url, setup_token)
        lines.append(
            _(
                "Nobody has an account yet. The first owner makes theirs here, once, within three days: {link}",
                link=link,
            )
        )
    if settings.accounts and not is_loopback(settings.host) and not (settings.public_url or "").startswith("https://"):
        lines.append(
            _(
                "Passwords and keys travel readable over plain HTTP: put a proxy with TLS in front, and its address into"
                " CHATWRIGHT_PUBLIC_URL."
            )
        )
    return lines


def _token_sentence(settings: Settings, made_token: bool) -> Sequence[str]:
    """The token for changes, where the user does not know it yet."""
    if not made_token or settings.admin_token is None:
        return ()
    return (_("Admin token, for you alone: {token}", token=settings.admin_token.get_secret_value()),)


def _example(url: str, models: Sequence[TextModel], header: str) -> Sequence[str]:
    """A request to the first model that writes text: a chat, or a text to be continued where it has not learned to chat."""
    model = next((model for model in models if model.writes_text), None)
    if model is None:
        return ()
    path, asked = "chat/completions", '"messages": [{"role": "user", "content": "Hello"}]'
    if model.template is None:
        path, asked = "completions", '"prompt": "Once upon a time"'
    return (
        _("Try it:"),
        f"  curl {url}/v1/{path}{header} -H 'Content-Type: application/json' \\",
        f"""    -d '{{"model": "{model.name}", "temperature": 0.2, {asked}}}'""",
    )


def _say_draining(n_running: int, settings: Settings, output: Output) -> None:
    """Why the server does not end at once."""
    if n_running:
        output.say(
            _(
                "Finishing {n} answers, {seconds} s at most; Ctrl-C ends them now.",
                n=n_running,
                seconds=round(settings.graceful_timeout_s),
            )
        )


def languages_sentence(name: str, languages: Sequence[str]) -> str:
    """What the model's metadata says of its languages; '' when it says nothing."""
    known = {"en": _("English"), "zh": _("Chinese")}
    if not languages:
        return ""
    if len(languages) == 1:
        return _("{name} speaks {spoken} only.", name=name, spoken=known.get(languages[0], languages[0]))
    return _("{name} speaks {spoken}.", name=name, spoken=", ".join(known.get(code, code) for code in languages))
