"""The web app: built files out of the package, and a sentence where they were not built."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from chatwright.server.permission import public

router = APIRouter(include_in_schema=False)

NOT_BUILT = (
    "Chatwright is running; its web app was not built. Run `make web` in the source tree and start the server again.\n"
    "Chatwright 正在运行，但网页应用尚未构建。请在源码目录运行 `make web`，然后重启服务。\n"
    "The API is at /v1.\n"
)
PAGES = {"/": "index.html", "/docs": "docs.html", "/favicon.svg": "favicon.svg", "/licenses.txt": "licenses.txt"}


class ImmutableFiles(StaticFiles):
    """Files whose names carry a hash of their content: browsers may keep them for ever."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with its cache header."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def web_folder() -> Path:
    """Where the built web app lies, if it does."""
    return Path(str(files("chatwright"))) / "web_dist"


def install_pages(app: FastAPI, folder: Path) -> None:
    """Serve the web app's pages and assets."""

    def add_page(path: str, file: Path) -> None:
        def page() -> Response:
            if not file.is_file():
                return PlainTextResponse(NOT_BUILT)
            return FileResponse(file, headers={"Cache-Control": "no-cache"})

        app.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False, dependencies=[Depends(public)])

    for path, name in PAGES.items():
        add_page(path, folder / name)
    if (folder / "assets").is_dir():
        app.mount("/assets", ImmutableFiles(directory=folder / "assets"), name="assets")
