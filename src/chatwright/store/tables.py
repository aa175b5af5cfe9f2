"""The tables, as SQLAlchemy maps them. Rows are plain values: nothing is loaded behind the reader's back.

Times are whole seconds of Unix time. Ids are texts made here (`ids`), never counted by the database, so that rows can move
between databases. A table comes with the code that uses it, and with a migration. There are:

- users, sessions, api_keys, links (setup, invitation, reset), throttle, identities and oidc_logins;
- conversations and messages of the web app, a tree of rows; a turn that is being written has a row in generations;
- limits (of a key, user or model), reservations (what running requests may use) and usage (what was used);
- files (contents under the home folder by id), uploads and upload_parts, batches;
- jobs, which point at run folders, and what they say;
- responses and response_items, api_conversations and api_conversation_items, stored_completions with their messages and metadata:
  what programs leave on /v1. `user_id` NULL: the machine's operator;
- evals, eval_runs and eval_items.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chatwright.store.ids import ID_LENGTH

# Names of our own for every constraint: a migration that changes one must know what it is called, on both databases.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(naming_convention=NAMES)


class User(Base):
    """A person. `password_hash` is None until they chose a password by their invitation."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('owner', 'admin', 'member')", name="role"),
        CheckConstraint("status IN ('invited', 'active', 'suspended')", name="status"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str | None] = mapped_column(String(300))
    created_at: Mapped[int] = mapped_column(BigInteger)


def _user_id() -> Mapped[str]:
    """Whose row it is; it goes with them."""
    return mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)


class Session(Base):
    """A browser that is signed in. Of its token only a digest is kept."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str] = _user_id()
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    seen_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)


class ApiKey(Base):
    """A key of a user. `prefix` is the part that names it, `secret_hash` the digest of the part that nobody else knows; `scopes`:
    words with spaces between them."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str] = _user_id()
    prefix: Mapped[str] = mapped_column(String(20), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    used_at: Mapped[int | None] = mapped_column(BigInteger)


class Link(Base):
    """A link that is good once: for the first owner, a new user, or one who forgot their password."""

    __tablename__ = "links"
    __table_args__ = (
        CheckConstraint("purpose IN ('setup', 'invitation', 'reset')", name="purpose"),
        CheckConstraint("(purpose = 'setup') = (user_id IS NULL)", name="user"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[str] = mapped_column(String(16))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)


class Identity(Base):
    """Whom an identity provider knows as this user: one of each provider's. An address that the provider gives to somebody else
    does not open the account of who had it before."""

    __tablename__ = "identities"
    __table_args__ = (UniqueConstraint("issuer", "subject"), UniqueConstraint("user_id", "issuer"))

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str] = _user_id()
    issuer: Mapped[str] = mapped_column(String(500))
    subject: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[int] = mapped_column(BigInteger)


class OidcLogin(Base):
    """A browser that is on its way to the provider and back, once. Of what it carries only digests are kept."""

    __tablename__ = "oidc_logins"

    state_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    browser_hash: Mapped[str] = mapped_column(String(64))
    nonce: Mapped[str] = mapped_column(String(64))
    verifier: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


class Throttle(Base):
    """How often something was tried. `subject`: a digest of an account or an address."""

    __tablename__ = "throttle"

    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    tries: Mapped[int] = mapped_column(Integer)
    tried_at: Mapped[int] = mapped_column(BigInteger, index=True)
    blocked_until: Mapped[int] = mapped_column(BigInteger)


class Limit(Base):
    """What a key, a user or a model (one of them) may use; None: as much as they like."""

    __tablename__ = "limits"
    __table_args__ = (
        CheckConstraint(
            "CASE WHEN key_id IS NULL THEN 0 ELSE 1 END + CASE WHEN user_id IS NULL THEN 0 ELSE 1 END"
            " + CASE WHEN model IS NULL THEN 0 ELSE 1 END = 1",
            name="subject",
        ),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), unique=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    model: Mapped[str | None] = mapped_column(String(200), unique=True)
    requests_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    concurrent_requests: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_month: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Reservation(Base):
    """A request that runs, at most `tokens` long, and what it has used so far. `server`: the process that answers it; `seen_at`:
    when that last said so. No foreign keys: a user who is removed meanwhile has used it all the same."""

    __tablename__ = "reservations"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    server: Mapped[str] = mapped_column(String(300))
    user_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    key_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    model: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[int] = mapped_column(BigInteger)
    seen_at: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)


class Usage(Base):
    """What ended, of requests that began in the minute from `start` on; after some days, in the hour. `id`: made of what the row is
    about, so that a row is there once. `user_id`, `key_id`: "" for nobody; no foreign keys: a row outlives whom it is about."""

    __tablename__ = "usage"
    __table_args__ = (Index(None, "user_id", "start"), Index(None, "key_id", "start"), Index(None, "model", "start"))

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, index=True)
    user_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    key_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    model: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(16))
    requests: Mapped[int] = mapped_column(BigInteger)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)


def _size_bytes() -> Mapped[int]:
    """How large the texts of a row are, with what belongs to it: see `kept`."""
    return mapped_column(BigInteger, server_default=text("0"))


def _user_id_or_operator(*, index: bool = True) -> Mapped[str | None]:
    """Whose row it is, and it goes with them; None: the operator's of this machine. `index`: where no index of the table begins
    with it."""
    return mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=index or None)


class File(Base):
    """A file. Its content lies in the home folder, by its id (`files.folder`); `filename` is only what its user calls it."""

    __tablename__ = "files"
    __table_args__ = (CheckConstraint("status IN ('uploaded', 'processed', 'error')", name="status"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str | None] = _user_id_or_operator()
    purpose: Mapped[str] = mapped_column(String(32))
    filename: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    status_details: Mapped[str | None] = mapped_column(String(1000))
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)
    expires_at: Mapped[int | None] = mapped_column(BigInteger, index=True)


class Upload(Base):
    """A file that comes in parts. `size_bytes`: how large it shall become; `file_id`: what it became."""

    __tablename__ = "uploads"
    __table_args__ = (CheckConstraint("status IN ('pending', 'completed', 'cancelled')", name="status"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str | None] = _user_id_or_operator()
    purpose: Mapped[str] = mapped_column(String(32))
    filename: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    mime_type: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    file_expires_after_s: Mapped[int | None] = mapped_column(BigInteger)
    file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


class UploadPart(Base):
    """A piece of an upload; its content lies in the home folder too."""

    __tablename__ = "upload_parts"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Batch(Base):
    """Many requests in a file, answered when there is time. `errors`, `user_metadata`: JSON, never looked into by the database.
    `key_id`: by which key it was begun, on whose account it goes; no foreign key, as in `Usage`.

    `input_file_id` and those of the results stay when the files are deleted: they say what there was.
    """

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint(
            "status IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled')",
            name="status",
        ),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str | None] = _user_id_or_operator()
    key_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    endpoint: Mapped[str] = mapped_column(String(64))
    input_file_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    output_file_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    error_file_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    output_lives_s: Mapped[int | None] = mapped_column(BigInteger)
    user_metadata: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), index=True)
    model: Mapped[str | None] = mapped_column(String(200))
    errors: Mapped[str | None] = mapped_column(Text)
    n_total: Mapped[int] = mapped_column(Integer)
    n_completed: Mapped[int] = mapped_column(Integer)
    n_failed: Mapped[int] = mapped_column(Integer)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    in_progress_at: Mapped[int | None] = mapped_column(BigInteger)
    finalizing_at: Mapped[int | None] = mapped_column(BigInteger)
    completed_at: Mapped[int | None] = mapped_column(BigInteger)
    failed_at: Mapped[int | None] = mapped_column(BigInteger)
    expired_at: Mapped[int | None] = mapped_column(BigInteger)
    cancelling_at: Mapped[int | None] = mapped_column(BigInteger)
    cancelled_at: Mapped[int | None] = mapped_column(BigInteger)


class Job(Base):
    """Long work. The truth is its folder, `jobs/ID` of the home folder `place`; this row points at it and repeats what lists show.

    `number`: counted up, the order of the queue and of lists. `state`: what it is, or is to be: a process may need a moment to
    follow. `parameters`, `chosen`: JSON, what was asked for, and the numbers that came of it. `model_name`: what its result is
    called as a model, `model_state`: whether there is one. `journal`: JSON, how far the folder's journals were read into events.
    `tries`: starts since it last got on.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "state IN ('validating', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')", name="state"
        ),
        CheckConstraint("model_state IN ('none', 'ready', 'deleted')", name="model_state"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str | None] = _user_id_or_operator()
    number: Mapped[int] = mapped_column(BigInteger, unique=True)
    place: Mapped[str] = mapped_column(String(ID_LENGTH))
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), index=True)
    parameters: Mapped[str] = mapped_column(Text)
    chosen: Mapped[str | None] = mapped_column(Text)
    model_name: Mapped[str] = mapped_column(String(400), unique=True)
    model_state: Mapped[str] = mapped_column(String(16))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_param: Mapped[str | None] = mapped_column(String(64))
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    result_file_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    journal: Mapped[str] = mapped_column(Text)
    n_events: Mapped[int] = mapped_column(Integer)
    tries: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)
    estimated_finish: Mapped[int | None] = mapped_column(BigInteger)


class JobEvent(Base):
    """Something that happened to a job. `data`: JSON."""

    __tablename__ = "job_events"
    __table_args__ = (CheckConstraint("level IN ('info', 'warn', 'error')", name="level"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    created_at: Mapped[int] = mapped_column(BigInteger)
    level: Mapped[str] = mapped_column(String(8))
    type: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[str | None] = mapped_column(Text)


class ResponseRow(Base):
    """A response of `/v1/responses`.

    While `status` is queued or in_progress, `server` writes it and says so in `seen_at`; `cancel_asked`: somebody told another
    server that it shall end. `head`: the wire's object without output, as JSON. `pieces`: in which pieces the output was streamed.
    No foreign keys to what came before: that may be deleted while this stays.
    """

    __tablename__ = "responses"
    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled')", name="status"
        ),
        Index(None, "user_id", "size_bytes"),
        Index(None, "server", "status"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str | None] = _user_id_or_operator(index=False)
    status: Mapped[str] = mapped_column(String(16))
    previous_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    conversation_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    head: Mapped[str] = mapped_column(Text)
    pieces: Mapped[str | None] = mapped_column(Text)
    server: Mapped[str] = mapped_column(String(64))
    seen_at: Mapped[int] = mapped_column(BigInteger)
    cancel_asked: Mapped[bool] = mapped_column(Boolean)
    size_bytes: Mapped[int] = _size_bytes()
    created_at: Mapped[int] = mapped_column(BigInteger)


class ResponseItemRow(Base):
    """Something said in a response, to the model or by it: the wire's item as JSON in `content`. `number` counts within it."""

    __tablename__ = "response_items"
    __table_args__ = (UniqueConstraint("response_id", "number"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    response_id: Mapped[str] = mapped_column(ForeignKey("responses.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    is_output: Mapped[bool] = mapped_column(Boolean)
    content: Mapped[str] = mapped_column(Text)


class ApiConversation(Base):
    """A conversation of `/v1/conversations`, which programs lead. `labels`: its metadata, as JSON; `size_bytes`: of its items."""

    __tablename__ = "api_conversations"
    __table_args__ = (Index(None, "user_id", "size_bytes"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str | None] = _user_id_or_operator(index=False)
    labels: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = _size_bytes()
    created_at: Mapped[int] = mapped_column(BigInteger)


class ApiConversationItem(Base):
    """Something said in it. Of a response that belongs to it these are copies: either can be deleted without the other."""

    __tablename__ = "api_conversation_items"
    __table_args__ = (UniqueConstraint("conversation_id", "number"),)

    conversation_id: Mapped[str] = mapped_column(
        ForeignKey("api_conversations.id", ondelete="CASCADE"), primary_key=True
    )
    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    number: Mapped[int] = mapped_column(Integer)
    content: Mapped[str] = mapped_column(Text)


class StoredCompletion(Base):
    """A chat completion that was to be kept. `position`: when it was made, in nanoseconds, to tell those of one second apart.
    `body`: the wire's object without metadata, as JSON."""

    __tablename__ = "stored_completions"
    __table_args__ = (Index(None, "user_id", "position"), Index(None, "user_id", "size_bytes"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str | None] = _user_id_or_operator(index=False)
    position: Mapped[int] = mapped_column(BigInteger)
    model: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = _size_bytes()
    created_at: Mapped[int] = mapped_column(BigInteger)


class StoredMessage(Base):
    """What it was an answer to. `content`: the wire's message as JSON."""

    __tablename__ = "stored_messages"

    completion_id: Mapped[str] = mapped_column(
        ForeignKey("stored_completions.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    content: Mapped[str] = mapped_column(Text)


class StoredLabel(Base):
    """A pair of its metadata, by which it is found."""

    __tablename__ = "stored_labels"
    __table_args__ = (Index(None, "name", "value"),)

    completion_id: Mapped[str] = mapped_column(
        ForeignKey("stored_completions.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))


class Eval(Base):
    """What answers are measured by. `source`, `criteria`, `user_metadata`: JSON, never looked into by the database. `position`:
    when it was made, in nanoseconds, to tell those of one second apart."""

    __tablename__ = "evals"
    __table_args__ = (Index(None, "user_id", "position"), Index(None, "user_id", "size_bytes"))

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str | None] = _user_id_or_operator(index=False)
    position: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(200))
    source: Mapped[str] = mapped_column(Text)
    criteria: Mapped[str] = mapped_column(Text)
    user_metadata: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[int] = _size_bytes()
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)


class EvalRun(Base):
    """One time that all items were measured. `source`: what was asked for, as JSON, without the items: those are rows.

    While `status` is queued or in_progress, `server` works on it and says so in `seen_at`. `tallies`: JSON, what passed by
    criterion and what was used by model; they and the counts change in one transaction with the items that they are about.
    `key_id`: as in `Batch`.
    """

    __tablename__ = "eval_runs"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'in_progress', 'completed', 'canceled', 'failed')", name="status"),
        Index(None, "eval_id", "position"),
        Index(None, "user_id", "size_bytes"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    eval_id: Mapped[str] = mapped_column(ForeignKey("evals.id", ondelete="CASCADE"))
    user_id: Mapped[str | None] = _user_id_or_operator(index=False)
    position: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(200))
    source: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(400))
    user_metadata: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[int] = _size_bytes()
    key_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    status: Mapped[str] = mapped_column(String(16), index=True)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    server: Mapped[str] = mapped_column(String(64))
    seen_at: Mapped[int] = mapped_column(BigInteger)
    n_total: Mapped[int] = mapped_column(Integer)
    n_passed: Mapped[int] = mapped_column(Integer)
    n_failed: Mapped[int] = mapped_column(Integer)
    n_errored: Mapped[int] = mapped_column(Integer)
    tallies: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)


class EvalItem(Base):
    """An item of a run. `content`, `given`: the item, and the sample that came with it; `results`, `sample`: what became of it. All
    JSON. `number`: its place, from 0."""

    __tablename__ = "eval_items"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'pass', 'fail', 'error')", name="status"),
        UniqueConstraint("run_id", "number"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("eval_runs.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    content: Mapped[str] = mapped_column(Text)
    given: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(8))
    results: Mapped[str | None] = mapped_column(Text)
    sample: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Conversation(Base):
    """A conversation of a user in the web app. `title` is "" until something was said.

    `active_message_id`: the last message of the branch that is shown. No foreign key: the two tables would refer to each other,
    and messages go only with their conversation.
    """

    __tablename__ = "conversations"
    __table_args__ = (Index(None, "user_id", "updated_at", "id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(100))
    active_message_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)


class Message(Base):
    """What one side said: a node of the conversation's tree. Siblings are versions of each other, the oldest with the lowest
    `number`, which counts within the conversation; so parents come before their children.

    `finish_reason` of an answer is None as long as a row in `generations` stands for whoever writes it. `error`: the sentence for
    one that was not finished, as `wording` keeps it.
    """

    __tablename__ = "messages"
    __table_args__ = (
        CheckConstraint("role IN ('user', 'assistant')", name="role"),
        CheckConstraint(
            "finish_reason IN ('stop', 'length', 'cancelled', 'interrupted', 'error')", name="finish_reason"
        ),
        UniqueConstraint("conversation_id", "id"),
        UniqueConstraint("conversation_id", "number"),
        # Both columns: a parent is of the same conversation. Deferrable for `copying`, where children may come first. No cascade:
        # SQLite would go down a long conversation message by message, and give up at a thousand.
        ForeignKeyConstraint(
            ["conversation_id", "parent_id"],
            ["messages.conversation_id", "messages.id"],
            deferrable=True,
            initially="IMMEDIATE",
        ),
        Index(None, "conversation_id", "parent_id"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    parent_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    number: Mapped[int] = mapped_column(Integer)
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(200))
    finish_reason: Mapped[str | None] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(Text)
    prompt_tokens: Mapped[int | None] = mapped_column(Integer)
    completion_tokens: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Generation(Base):
    """An answer that is being written: one a conversation at a time. `server`: by which server; `seen_at`: when that last said so.

    `stop_asked`: somebody wants it to end, and may have told another server than the one that writes.
    """

    __tablename__ = "generations"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), unique=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), unique=True)
    server: Mapped[str] = mapped_column(String(64))
    stop_asked: Mapped[bool] = mapped_column(Boolean)
    started_at: Mapped[int] = mapped_column(BigInteger)
    seen_at: Mapped[int] = mapped_column(BigInteger)
