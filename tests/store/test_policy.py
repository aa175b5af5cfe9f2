"""The policy: who may do what, written out by hand, and that every action has a rule."""

from __future__ import annotations

import inspect
from itertools import product

import pytest

from chatwright.errors import ChatwrightError, ForbiddenError, NotFoundError, NotSignedInError
from chatwright.store.actor import NOBODY, OPEN, OPERATOR, SCOPES_OF_ROLE, SERVER_KEY, Actor, Role, Scope, Via
from chatwright.store.policy import RULES, Action, Resource, authorize, owns


def person(role: Role) -> Actor:
    return Actor(Via.SESSION, f"user-{role.word}", role, SCOPES_OF_ROLE[role], "session-1")


def key(role: Role, *scopes: Scope) -> Actor:
    return Actor(Via.KEY, f"user-{role.word}", role, frozenset(scopes), "key-1")


WHO = {
    "nobody": NOBODY,
    "open": OPEN,
    "server key": SERVER_KEY,
    "files key": key(Role.MEMBER, Scope.FILES, Scope.FINE_TUNING),
    "inference key": key(Role.MEMBER, Scope.INFERENCE),
    "admin key": key(Role.ADMIN, Scope.ADMIN),
    "member": person(Role.MEMBER),
    "admin": person(Role.ADMIN),
    "owner": person(Role.OWNER),
    "operator": OPERATOR,
}
ALL = set(WHO)
PERSONS = {"member", "admin", "owner"}
ADMINS = {"admin key", "admin", "owner", "operator"}
MAY: dict[Action, set[str]] = {
    Action.READ_API: ALL - {"nobody"},
    Action.READ_MODELS: ALL - {"nobody"},
    Action.GENERATE: ALL - {"nobody", "files key", "admin key"},
    Action.CHANGE_MODELS: ADMINS,
    Action.USE_ACCOUNT: PERSONS,
    Action.USE_KEYS: PERSONS,
    Action.USE_CONVERSATIONS: PERSONS,
    Action.READ_USERS: ADMINS,
    Action.CHANGE_USERS: ADMINS,
    Action.READ_KEYS_OF_USERS: ADMINS,
    Action.REVOKE_KEYS_OF_USERS: ADMINS,
    Action.MAKE_KEYS_FOR_USERS: {"operator"},
    Action.READ_OWN_USAGE: PERSONS,
    Action.READ_USAGE: ADMINS,
    Action.READ_LIMITS: ADMINS,
    Action.CHANGE_LIMITS: ADMINS,
    Action.READ_METRICS: ADMINS | {"open"},
    Action.USE_JOBS: PERSONS | {"files key", "operator"},
    Action.RUN_JOBS: {"operator"},
    Action.USE_FILES: {"files key", "member", "admin", "owner", "operator"},
    Action.USE_BATCHES: {"files key", "member", "admin", "owner", "operator"},
    Action.USE_RESPONSES: {"inference key", "operator", *PERSONS},
    Action.USE_EVALS: {"inference key", "operator", *PERSONS},
}


def outcome(actor: Actor, action: Action, resource: Resource | None = None) -> type[ChatwrightError] | None:
    try:
        authorize(actor, action, resource)
    except ChatwrightError as error:
        return type(error)
    return None


def test_every_action_has_a_rule_and_a_line_here() -> None:
    assert set(RULES) == set(Action) == set(MAY)


@pytest.mark.parametrize("action", Action)
def test_who_may_do_it(action: Action) -> None:
    for name, actor in WHO.items():
        wanted = None if name in MAY[action] else NotSignedInError if name == "nobody" else ForbiddenError
        assert outcome(actor, action) is wanted, name


def test_what_belongs_to_others_does_not_exist() -> None:
    for role in Role:
        actor = person(role)
        for action in (Action.USE_ACCOUNT, Action.USE_KEYS, Action.USE_CONVERSATIONS):
            assert outcome(actor, action, Resource(actor.user_id)) is None
            assert outcome(actor, action, Resource("user-other")) is NotFoundError
            assert outcome(actor, action, Resource(None)) is NotFoundError


def test_what_a_program_keeps_is_its_users_alone() -> None:
    for action in (Action.USE_RESPONSES, Action.USE_EVALS):
        for name in ("owner", "admin", "inference key", "operator"):
            assert outcome(WHO[name], action, Resource("user-other")) is NotFoundError, name
            wanted = None if name == "operator" else NotFoundError
            assert outcome(WHO[name], action, Resource(None)) is wanted, name
        for name in ("open", "server key"):
            assert outcome(WHO[name], action, Resource(None)) is ForbiddenError, name


def test_nobody_acts_on_those_above() -> None:
    for actor, role in product(("admin", "owner", "admin key", "operator"), Role):
        wanted = ForbiddenError if actor.startswith("admin") and role is Role.OWNER else None
        assert outcome(WHO[actor], Action.CHANGE_USERS, Resource("user-x", role)) is wanted, (actor, role)
    assert outcome(WHO["member"], Action.CHANGE_USERS, Resource("user-member", Role.MEMBER)) is ForbiddenError


def test_a_role_that_was_taken_away_opens_nothing() -> None:
    """A key keeps its scopes, its user may have lost the role."""
    demoted = Actor(Via.KEY, "user-1", Role.MEMBER, frozenset(Scope), "key-1")
    for action in (Action.CHANGE_USERS, Action.CHANGE_MODELS):
        assert outcome(demoted, action) is ForbiddenError


def test_the_policy_is_one_function() -> None:
    assert list(inspect.signature(authorize).parameters) == ["actor", "action", "resource"]


def test_what_is_nobodys_is_the_operators() -> None:
    assert [name for name, actor in WHO.items() if owns(actor, None)] == ["operator"]
    assert not any(owns(actor, "user-other") for actor in WHO.values())
    assert owns(person(Role.MEMBER), "user-member")
