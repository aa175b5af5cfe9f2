"""What each route needs: every one declares an action, or that it is public. The app does not start with one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from chatwright.server.access import ACTOR, PUBLIC_FOLDER, is_public, require_admin
from chatwright.store.actor import NOBODY, Actor, Scope, Via
from chatwright.store.policy import RULES, Action, authorize

# Routes that FastAPI makes itself.
OTHERS = {"/openapi.json": Action.READ_API}


class Permit:
    """A dependency: whoever asks may do `action`, else 401 or 403. Gives the Actor."""

    def __init__(self, action: Action) -> None:
        self.action = action

    async def __call__(self, request: Request) -> Actor:
        """Raises NotSignedInError, ForbiddenError, WireError."""
        actor = actor_of(request)
        rule = RULES[self.action]
        is_open = rule.open and actor.via is Via.OPEN
        needs_more = rule.scope not in (None, Scope.INFERENCE)
        if request.app.state.server.accounts is None and needs_more and not is_open:
            require_admin(request)  # says where the token is to be found
        authorize(actor, self.action)
        return actor


async def public() -> None:
    """A dependency of the routes that are for everybody."""


def actor_of(request: Request) -> Actor:
    """Who asks."""
    actor: Actor = request.scope.get(ACTOR, NOBODY)
    return actor


@dataclass(frozen=True)
class RoutePolicy:
    """`action`: None where the route is public."""

    method: str
    path: str
    action: Action | None


def route_policies(app: FastAPI) -> Iterator[RoutePolicy]:
    """Every route of the app with its policy. Raises AssertionError for one without, or one whose path and policy disagree."""
    for method, path, dependant in _routes(app.routes):
        if dependant is None and path in OTHERS:
            yield RoutePolicy(method, path, OTHERS[path])
            continue
        if dependant is None and path == PUBLIC_FOLDER.rstrip("/"):
            yield RoutePolicy(method, path, None)
            continue
        assert dependant is not None, f"{path} has no policy, and its kind of route can not have one"
        calls = list(_calls(dependant))
        permits = [call.action for call in calls if isinstance(call, Permit)]
        is_for_all = any(call is public for call in calls)
        assert is_for_all != bool(permits), f"{method} {path} must declare an action (Permit), or that it is public"
        assert is_for_all == is_public(path, accounts=True), (
            f"{method} {path}: its policy and access.PUBLIC_PATHS disagree"
        )
        assert len(set(permits)) <= 1, f"{method} {path} declares several actions"
        yield RoutePolicy(method, path, permits[0] if permits else None)


def check_policies(app: FastAPI) -> None:
    """Raise AssertionError for a route without a policy."""
    for _ in route_policies(app):
        pass


def _routes(routes: Any) -> Iterator[tuple[str, str, Any]]:
    for route in routes:
        if isinstance(route, Mount):
            yield "GET", route.path, None
        elif isinstance(route, APIRoute):
            for method in sorted(route.methods or {"GET"}):
                yield method, route.path, route.dependant
        elif isinstance(route, Route):
            for method in sorted(route.methods or {"GET"}):
                yield method, route.path, None
        else:
            # FastAPI's router of routers.
            included = getattr(route, "effective_route_contexts", None)
            assert included is not None, f"unknown kind of route: {route!r}"
            for context in included():
                for method in sorted(context.methods):
                    yield method, context.path, context.dependant


def _calls(dependant: Any) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)
