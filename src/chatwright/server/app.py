"""The app: middlewares, routes, and the models it serves."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from chatwright import __version__
from chatwright.engine.opened import OpenedModel
from chatwright.engine.process.memory import MemoryBudget
from chatwright.engine.text import TextModel
from chatwright.inspection.looking import Looking
from chatwright.jobs.service import Jobs
from chatwright.server import pages
from chatwright.server.access import AccessControl
from chatwright.server.adapters import AdapterShelf
from chatwright.server.batches.answering import Answering
from chatwright.server.batches.runner import BatchRunner
from chatwright.server.body_limit import BodyLimit, Bounds
from chatwright.server.cross_origin import CrossOrigin
from chatwright.server.errors import CrashGuard, ErrorBody, install_error_handlers
from chatwright.server.evals.runner import EvalRunner
from chatwright.server.fine_tuned import FineTunedModels
from chatwright.server.form import FORM_BYTES
from chatwright.server.headers import ResponseHeaders
from chatwright.server.observation import Observation
from chatwright.server.openai.generation import ClientGoneError
from chatwright.server.permission import check_policies
from chatwright.server.provider import Provider
from chatwright.server.routes import include_routes
from chatwright.server.state import ServerState
from chatwright.server.tidying import kept_tidy
from chatwright.settings import Settings
from chatwright.store.accounts.service import Accounts
from chatwright.store.database import Database
from chatwright.store.files import Files, Uploads
from chatwright.store.files.uploads import PART_BYTES

# A file of half a gigabyte over a slow line.
FILE_TIMEOUT_S = 3600.0


def create_app(
    settings: Settings,
    text_models: Sequence[TextModel],
    opened: Sequence[OpenedModel] = (),
    accounts: Accounts | None = None,
    database: Database | None = None,
    budget: MemoryBudget | None = None,
) -> FastAPI:
    """The ASGI app for these models; the first one is what aliases stand for. Closing the app closes the models and the store.

    `opened`: what they were made of, in their order; without it no adapter can be loaded later. `accounts`: then everybody signs
    in. `database`: the store of a server without accounts; with them it is theirs. `budget`: the memory that the models' engines
    share, which looking inside a model takes from too.
    """
    assert text_models, "a server without a model has nothing to answer with"
    models = list(text_models)
    store = accounts.database if accounts is not None else database
    files = Files(store, settings) if store is not None else None
    jobs = Jobs(files.database, files, settings) if files is not None else None
    shelf = AdapterShelf(settings, models, opened)
    state = ServerState(
        settings,
        models,
        shelf,
        Looking(settings, budget or MemoryBudget.of(settings)),
        accounts,
        store,
        files,
        Uploads(files) if files is not None else None,
        provider=Provider(settings) if settings.oidc_issuer is not None and accounts is not None else None,
        jobs=jobs,
        fine_tuned=FineTunedModels(jobs, shelf, models, settings) if jobs is not None else None,
    )

    if settings.moderate:
        _ = state.moderator.classifier  # now, and not with the first request: it may be broken

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.meter.start()
        await state.responses.recover()
        if state.answers is not None:
            await state.answers.recover()
        async with (
            kept_tidy(files, accounts),
            state.batches.running() if state.batches is not None else nullcontext(),
            state.evals.running() if state.evals is not None else nullcontext(),
            jobs.supervisor.running() if jobs is not None else nullcontext(),
        ):
            yield
        await state.responses.close()
        if state.answers is not None:
            await state.answers.close()
        await asyncio.gather(state.looking.close(), *(model.close() for model in models))
        await state.meter.close()
        if accounts is not None:
            await accounts.written()
        if store is not None:
            await store.close()

    app = FastAPI(
        title="Chatwright",
        version=__version__,
        lifespan=lifespan,
        openapi_url="/openapi.json",
        # The page is ours: FastAPI's own loads scripts from a foreign host.
        docs_url=None,
        redoc_url=None,
        # A redirect would go wherever the client's Host header says.
        redirect_slashes=False,
        responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}},
    )
    app.state.server = state
    install_error_handlers(app)
    app.add_exception_handler(ClientGoneError, _nobody_to_answer)
    app.add_exception_handler(ClientDisconnect, _nobody_to_answer)
    include_routes(app)
    pages.install_pages(app, pages.web_folder())

    # The last one added is the outermost: what each request leaves, headers on every answer, what pages of other origins may read,
    # who may come in, how much may be sent.
    bounds = Bounds(settings.body_limit_bytes, settings.read_timeout_s, settings.read_timeout_s)
    app.add_middleware(BodyLimit, bounds=bounds, others=_bounds_of_files(settings))
    app.add_middleware(
        AccessControl,
        api_key=settings.api_key,
        admin_token=settings.admin_token,
        allowed_origins=settings.cors_origins,
        accounts=accounts,
        public_url=settings.public_url,
    )
    app.add_middleware(CrashGuard)
    if settings.cors_origins:
        app.add_middleware(CrossOrigin, origins=settings.cors_origins)
    app.add_middleware(ResponseHeaders)
    level = logging.INFO if settings.log_format == "json" else logging.DEBUG
    app.add_middleware(Observation, metrics=state.meter.metrics, level=level)
    check_policies(app)
    # Last: what batches may hold is what this app has routes for.
    if files is not None:
        answering = Answering.of(app, state)
        state.batches = BatchRunner(app, state, files, answering)
        state.evals = EvalRunner(state, files.database, answering)
    return app


def _bounds_of_files(settings: Settings) -> list[tuple[re.Pattern[str], Bounds]]:
    """The routes that take large bodies."""
    pause_s = settings.read_timeout_s
    return [
        (re.compile(r"(/v1)?/files"), Bounds(settings.file_limit, pause_s, FILE_TIMEOUT_S, FORM_BYTES)),
        (re.compile(r"(/v1)?/uploads/[^/]+/parts"), Bounds(PART_BYTES, pause_s, FILE_TIMEOUT_S, FORM_BYTES)),
    ]


async def _nobody_to_answer(request: Request, error: Exception) -> Response:
    """The client is gone; the status is nginx' for that, and only tests see it."""
    return Response(status_code=499)
