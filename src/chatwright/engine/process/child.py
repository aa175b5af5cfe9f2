"""The main of an engine's process: `python -m chatwright.engine.process.child SOCKET PARENT`, started by the server only.

SOCKET is the number of an inherited socket, PARENT the server's process id. Signals that mean the server as well (Ctrl-C in a
terminal, a service manager's SIGTERM to the whole group) are blocked from the start: this process leaves when the server says so,
or ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from chatwright.engine.process import wire
from chatwright.engine.process.host import DEAD_ENGINE_EXIT_CODE, EngineHost
from chatwright.engine.process.lifeline import die_with_parent
from chatwright.engine.protocol import Engine
from chatwright.settings import Settings

log = logging.getLogger(__name__)


def main() -> None:
    """Serve one model until the server goes."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent)
    # Before it is told what to load: that takes as long as the server takes to come up itself.
    threading.Thread(target=_import_engine, name="import", daemon=True).start()
    asyncio.run(_serve(socket.socket(fileno=descriptor)))


async def _serve(sock: socket.socket) -> NoReturn:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_crash)
    sock.setblocking(False)
    _, host = await loop.create_unix_connection(lambda: EngineHost(_load), sock=sock)
    _leave(await host.ended)


def _crash(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A bug on the event loop, where nobody else would hear of it: a new process does better than half of this one."""
    error = context.get("exception")
    trace = "".join(traceback.format_tb(error.__traceback__)) if error else ""
    log.critical("%s: %s\n%s", context["message"], type(error).__name__, trace)
    _leave(DEAD_ENGINE_EXIT_CODE)


def _leave(code: int) -> NoReturn:
    """Not by returning from main: the interpreter would wait for a model that is still being loaded."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _import_engine() -> None:
    """PyTorch comes with it. What goes wrong here goes wrong again in `_load`, where somebody hears of it."""
    with suppress(Exception):
        import chatwright.engine.load  # noqa: F401


def _load(start: wire.Start) -> Engine:
    logging.basicConfig(level=start.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    from chatwright.engine.load import load_engine

    adapters = {name: Path(path) for name, path in start.adapters.items()}
    return load_engine(Path(start.path), start.name, Settings(**start.settings), adapters)


if __name__ == "__main__":
    main()
