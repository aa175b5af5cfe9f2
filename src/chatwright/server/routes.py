"""All routes, and under which addresses they are: OpenAI's under /v1 and, for clients of old, without it; the web app's under /api.

What each needs is declared here for a whole router, or in it for each route (`permission.Permit`).
"""

from __future__ import annotations

from fastapi import Depends, FastAPI, Security
from fastapi.security import HTTPBearer

from chatwright.server import health, scrape
from chatwright.server.anthropic import messages
from chatwright.server.console import (
    account,
    answers,
    conversations,
    explain,
    limits,
    oidc,
    session,
    usage,
    users,
    welcome,
)
from chatwright.server.console import keys as own_keys
from chatwright.server.openai import (
    adapters,
    chat,
    classify,
    completions,
    embeddings,
    fine_tunes,
    fine_tuning,
    legacy,
    moderations,
    organization,
    rerank,
    stored,
    tokens,
    uploads,
)
from chatwright.server.openai import batches as openai_batches
from chatwright.server.openai import files as openai_files
from chatwright.server.openai import models as served
from chatwright.server.openai.evals import routes as evals
from chatwright.server.openai.responses import conversations as api_conversations
from chatwright.server.openai.responses import routes as responses
from chatwright.server.permission import Permit
from chatwright.store.policy import Action


def include_routes(app: FastAPI) -> None:
    """Include all routers."""
    # Checks nothing, AccessControl does: it describes the key, so that /docs can ask for it.
    key = Security(HTTPBearer(auto_error=False, description="The server's API key, where it has one."))
    app.include_router(health.router)
    app.include_router(scrape.router, dependencies=[key])
    for router, action in (
        (completions.router, Action.GENERATE),
        (chat.router, Action.GENERATE),
        (embeddings.router, Action.GENERATE),
        (tokens.router, Action.GENERATE),
        (classify.router, Action.GENERATE),
        (rerank.router, Action.GENERATE),
        (moderations.router, Action.GENERATE),
        (served.router, Action.READ_MODELS),
        (legacy.router, Action.GENERATE),
    ):
        allowed = Depends(Permit(action))
        app.include_router(router, prefix="/v1", dependencies=[key, allowed])
        # openai < 1.0 is often pointed at the bare address, without /v1.
        app.include_router(router, include_in_schema=False, dependencies=[allowed])
    app.include_router(messages.router, prefix="/v1", dependencies=[key, Depends(Permit(Action.GENERATE))])
    for router in (
        openai_files.router,
        uploads.router,
        uploads.parts_router,
        openai_batches.router,
        openai_batches.bodiless_router,
        fine_tuning.create_router,
        fine_tuning.router,
        fine_tunes.create_router,
        fine_tunes.router,
        served.delete_router,
    ):
        app.include_router(router, prefix="/v1", dependencies=[key])
        app.include_router(router, include_in_schema=False)
    for kept in (
        responses.router,
        responses.bare_router,
        api_conversations.router,
        stored.router,
        evals.router,
        evals.bare_router,
    ):
        app.include_router(kept, prefix="/v1", dependencies=[key])
    app.include_router(adapters.router, prefix="/v1", dependencies=[key])
    app.include_router(organization.router, prefix="/v1", dependencies=[key])
    for console in (
        session.router,
        oidc.router,
        welcome.router,
        account.router,
        own_keys.router,
        users.router,
        conversations.router,
        answers.router,
        usage.router,
        limits.router,
        explain.router,
    ):
        app.include_router(console, prefix="/api", dependencies=[key])
