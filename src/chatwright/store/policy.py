"""The one policy for access: what may be done, and by whom. Routes declare an action, repositories ask again with the resource."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chatwright.errors import ForbiddenError, NotFoundError, NotSignedInError
from chatwright.store.actor import Actor, Role, Scope, Via


class Action(StrEnum):
    """Everything that can be done. A new route needs one of these, or a new one with its rule."""

    READ_API = "read the API's description"
    READ_MODELS = "list models"
    GENERATE = "generate text"
    CHANGE_MODELS = "change what is served"
    USE_ACCOUNT = "see and change one's own account"
    USE_KEYS = "see, make and revoke one's own keys"
    USE_CONVERSATIONS = "see, lead and delete one's own conversations"
    READ_USERS = "see users"
    CHANGE_USERS = "add, change, suspend and remove users"
    READ_KEYS_OF_USERS = "see the keys of users"
    REVOKE_KEYS_OF_USERS = "revoke keys of users"
    MAKE_KEYS_FOR_USERS = "make keys for users"
    READ_OWN_USAGE = "see what one has used, and may use"
    READ_USAGE = "see what everybody has used"
    READ_LIMITS = "see limits"
    CHANGE_LIMITS = "set limits"
    READ_METRICS = "read metrics"
    USE_FILES = "see, upload and delete one's own files"
    USE_BATCHES = "see, begin and cancel one's own batches"
    USE_JOBS = "train models, and delete them"
    RUN_JOBS = "carry out everybody's jobs"
    USE_RESPONSES = "keep, see, change and delete one's own responses, conversations and completions of the API"
    USE_EVALS = "make, run, see and delete one's own evals"


@dataclass(frozen=True)
class Rule:
    """`scope`: what a credential must be good for. `role`: what its user must be at least; None where none is needed.

    `person`: never by a key: a key that could make keys, or change a password, would be more than it says.
    `operator`: by the machine's operator only. A key made for somebody else acts as them: no administrator shall be able to.
    `known`: by those alone who can be told from others: users, and the operator.
    `others`: what one must be to do it to what belongs to others; None: it never can be done.
    `open`: also without the admin token where a server is open to its own machine.
    """

    scope: Scope | None = None
    role: Role | None = None
    person: bool = False
    operator: bool = False
    known: bool = False
    others: Role | None = None
    open: bool = False


RULES: dict[Action, Rule] = {
    Action.READ_API: Rule(),
    Action.READ_MODELS: Rule(others=Role.ADMIN),
    Action.GENERATE: Rule(Scope.INFERENCE),
    Action.CHANGE_MODELS: Rule(Scope.ADMIN, Role.ADMIN),
    Action.USE_ACCOUNT: Rule(role=Role.MEMBER, person=True),
    Action.USE_KEYS: Rule(role=Role.MEMBER, person=True),
    # Nobody else's business, administrators' least of all; and a key for inference is not one to what was said.
    Action.USE_CONVERSATIONS: Rule(Scope.INFERENCE, Role.MEMBER, person=True),
    Action.READ_USERS: Rule(Scope.ADMIN, Role.ADMIN, others=Role.ADMIN),
    Action.CHANGE_USERS: Rule(Scope.ADMIN, Role.ADMIN, others=Role.ADMIN),
    Action.READ_KEYS_OF_USERS: Rule(Scope.ADMIN, Role.ADMIN, others=Role.ADMIN),
    Action.REVOKE_KEYS_OF_USERS: Rule(Scope.ADMIN, Role.ADMIN, others=Role.ADMIN),
    Action.MAKE_KEYS_FOR_USERS: Rule(Scope.ADMIN, Role.OWNER, operator=True, others=Role.OWNER),
    Action.READ_OWN_USAGE: Rule(role=Role.MEMBER, person=True),
    Action.READ_USAGE: Rule(Scope.ADMIN, Role.ADMIN, others=Role.ADMIN),
    Action.READ_LIMITS: Rule(Scope.ADMIN, Role.ADMIN, others=Role.ADMIN),
    Action.CHANGE_LIMITS: Rule(Scope.ADMIN, Role.ADMIN, others=Role.ADMIN),
    Action.READ_METRICS: Rule(Scope.ADMIN, Role.ADMIN, open=True),
    # Also administrators see only their own: what is uploaded may be as private as a conversation.
    Action.USE_FILES: Rule(Scope.FILES),
    # From files to files; to begin one is to generate too, which is asked for beside it.
    Action.USE_BATCHES: Rule(Scope.FILES),
    # What somebody trains, and on what, is theirs alone; of their models administrators see the names.
    Action.USE_JOBS: Rule(Scope.FINE_TUNING),
    Action.RUN_JOBS: Rule(Scope.ADMIN, Role.OWNER, operator=True, others=Role.OWNER),
    # What a key has said, the same user's keys may read: it is the program's own memory.
    Action.USE_RESPONSES: Rule(Scope.INFERENCE, known=True),
    # What is measured are answers; files that are read, and completions that were kept, are asked for beside it.
    Action.USE_EVALS: Rule(Scope.INFERENCE, known=True),
}


@dataclass(frozen=True)
class Resource:
    """What is acted on. `owner_id`: None for what belongs to the machine's operator, as all does on a server without accounts.
    `role`: of the user that it is, or belongs to, where rank counts."""

    owner_id: str | None
    role: Role | None = None


def authorize(actor: Actor, action: Action, resource: Resource | None = None) -> None:
    """Pass, or raise NotSignedInError (401), ForbiddenError (403), or NotFoundError (404) for what belongs to others: whether it
    exists is theirs to know."""
    rule = RULES[action]
    if actor.via is Via.NOBODY:
        raise NotSignedInError("Sign in, or send an API key as 'Authorization: Bearer KEY'.")
    if rule.open and actor.via is Via.OPEN:
        return
    if rule.person and actor.via is not Via.SESSION:
        raise ForbiddenError("This is for signed-in users only: no key opens it.")
    if rule.operator and actor.via is not Via.OPERATOR:
        raise ForbiddenError("Only the machine's operator may do this, with the command line.")
    if rule.scope is not None and rule.scope not in actor.scopes:
        if actor.via is Via.KEY:
            raise ForbiddenError("This API key lacks the scope {scope}.", scope=rule.scope.value)
        raise ForbiddenError("You may not do this: it is for administrators.")
    if rule.known and actor.user_id is None and actor.via is not Via.OPERATOR:
        if action is not Action.USE_RESPONSES:
            raise ForbiddenError(
                "Who asks cannot be told from others here, so nothing is kept for later. Use a key of a user, on a server that was"
                " started with --accounts, or the admin token as the key."
            )
        raise ForbiddenError(
            "Who asks cannot be told from others here, so nothing is kept for later. Use a key of a user, on a server that was"
            " started with --accounts, or the admin token as the key; or send store: false, and the whole conversation each time."
        )
    if rule.role is not None and (actor.role is None or actor.role < rule.role):
        raise ForbiddenError("You may not do this: it is for administrators.")
    if resource is None:
        return
    own = owns(actor, resource.owner_id)
    if not own and (rule.others is None or actor.role is None or actor.role < rule.others):
        raise NotFoundError("There is nothing of that id.")
    if resource.role is not None and (actor.role is None or resource.role > actor.role):
        raise ForbiddenError("Only owners may do this to an owner.")


def owns(actor: Actor, owner_id: str | None) -> bool:
    """Whether what belongs to `owner_id` is the actor's own. Nobody's is the operator's: with the server's own key and on an open
    server many may ask, and none of them can be told from another."""
    if owner_id is None:
        return actor.via is Via.OPERATOR
    return owner_id == actor.user_id
