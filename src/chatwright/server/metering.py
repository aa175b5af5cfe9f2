"""The one place that everything passes which makes a model work: `Bill.charge`.

    bill = bill_of(request)                      # or Bill(meter, Payer.of(actor)) where no request waits for the answer
    async with bill.charge(model.name, wanted) as charge:
        ...                                      # generate, answers at most `charge.cap` long; tell `charge` what is used

`charge` admits the request or raises LimitReachedError (429) before anything is computed, leaves `x-ratelimit-*` for the response,
counts what is used, and enters it into the books however the block ends: at its end, when the client hangs up, when the engine
crashes, when the server is killed. `openai.generation.generate_all` does all this for text; it asks for a bill.

Where nothing is limited nothing is written before the answer: one look into the table of limits, and the books afterwards.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from fastapi import Request

from chatwright.engine.text import TextDelta, TextEvent, TextFinish, TextRequest
from chatwright.errors import (
    ConflictError,
    InvalidRequestError,
    LimitReachedError,
    ModelNotFoundError,
    NotFoundError,
    OverloadedError,
)
from chatwright.server.books import Books
from chatwright.server.metrics import Metrics
from chatwright.server.permission import actor_of
from chatwright.store.database import Database
from chatwright.store.usage.admission import Admission, Wanted, admit, limits_for
from chatwright.store.usage.ledger import Entry, Tokens, note
from chatwright.store.usage.payer import Kind, Payer
from chatwright.store.usage.times import SteadyClock

HEADERS = "chatwright.headers"  # where a request's scope keeps headers for its response
BILL = "chatwright.bill"
ARRIVED_AT = "chatwright.arrived_at"
# With these nothing was done for the client, unless something was said before.
REFUSALS = (OverloadedError, InvalidRequestError, ModelNotFoundError, NotFoundError, ConflictError)


class Meter:
    """One per app. `database`: None where there is none; then nothing is limited, and only metrics are kept."""

    def __init__(self, database: Database | None, metrics: Metrics) -> None:
        self.metrics = metrics
        self.database = database
        self.clock = SteadyClock()
        self.books = Books(database, self.clock.now) if database is not None else None

    def start(self) -> None:
        """Count what a server that was killed has left. In the event loop of the server."""
        if self.books is not None:
            self.books.start()

    async def close(self) -> None:
        """Write down what is left."""
        if self.books is not None:
            await self.books.close()

    async def admit(self, entry: Entry, wanted: Wanted) -> Admission:
        """Reserve what a request may use, where it is limited. Raises LimitReachedError, StoreError and its kin: without the
        database nobody knows what is left."""
        free = Admission(entry.reserved)
        if self.database is None or self.books is None:
            return free
        async with self.database.read() as session:
            limits = await limits_for(session, entry.payer, entry.model)
        if not limits:
            return free
        async with self.database.write() as session:
            limits = await limits_for(session, entry.payer, entry.model)  # they may have been changed since
            admission = await admit(session, limits, wanted, entry.started_at)
            entry.reserved = admission.tokens
            # Should the server die before it says more: its prompt it had.
            noted = replace(entry, used=Tokens(wanted.n_prompt))
            entry.may_have_row = True
            await note(session, self.books.server, [noted], entry.started_at)
        entry.noted = noted.used
        return admission


class Charge:
    """What one request uses while it runs. `cap`: answers are at most so long; None: as long as they were to be."""

    def __init__(self, entry: Entry, cap: int | None, metrics: Metrics, arrived_at: float) -> None:
        self.entry = entry
        self.cap = cap
        self._arrived_at = arrived_at
        self._first_token = metrics.first_token.labels(entry.model)
        self._between_tokens = metrics.between_tokens.labels(entry.model)
        self._speed = metrics.speed.labels(entry.model)
        self._is_first = True
        # (prompt, choice) → when its first and its last text came, and its tokens
        self._answers: dict[tuple[int, int], tuple[float, float, int]] = {}

    def within(self, request: TextRequest) -> TextRequest:
        """The same request, with answers that are not longer than they may be."""
        if self.cap is None or request.sampling.max_tokens <= self.cap:
            return request
        return replace(request, sampling=replace(request.sampling, max_tokens=self.cap))

    def prompt(self, n_tokens: int) -> None:
        """The model reads a prompt; negative: it did not, after all."""
        self._use(Tokens(input=n_tokens))

    def event(self, number: int, event: TextEvent) -> None:
        """What the model says of a prompt's answers."""
        if isinstance(event, TextDelta):
            self._delta((number, event.index), len(event.tokens))
        elif isinstance(event, TextFinish):
            if event.index == 0:  # the other choices found what this one computed
                self._use(Tokens(cached=event.reused_tokens))
            first, last, n_tokens = self._answers.pop((number, event.index), (0.0, 0.0, 0))
            if last > first:
                self._speed.observe((n_tokens - 1) / (last - first))

    def _delta(self, choice: tuple[int, int], n_tokens: int) -> None:
        self._use(Tokens(output=n_tokens))
        now = time.monotonic()
        if self._is_first:
            self._is_first = False
            self._first_token.observe(now - self._arrived_at)
        first, last, n_before = self._answers.get(choice, (now, now, 0))
        if n_before:
            self._between_tokens.observe((now - last) / n_tokens)
        self._answers[choice] = (first, now, n_before + n_tokens)

    def _use(self, more: Tokens) -> None:
        used = self.entry.used
        self.entry.used = Tokens(used.input + more.input, used.cached + more.cached, used.output + more.output)


@dataclass(frozen=True)
class Bill:
    """On whose account something goes, and where its figures are left for the response and the log: `headers`, `entries`."""

    meter: Meter
    payer: Payer
    arrived_at: float = field(default_factory=time.monotonic)
    headers: MutableMapping[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    @asynccontextmanager
    async def charge(self, model: str, wanted: Wanted, kind: Kind = "completions") -> AsyncIterator[Charge]:
        """Admit, count and settle. `model`: the name under which it is served, never an alias. Raises LimitReachedError."""
        meter = self.meter
        entry = Entry(self.payer, model, kind, meter.clock.now(), wanted.tokens())
        try:
            admission = await meter.admit(entry, wanted)
        except LimitReachedError:
            raise
        except BaseException:
            # The client hung up, or the database went away, maybe just when the reservation was there.
            if meter.books is not None:
                entry.is_counted = False
                meter.books.end(entry)
            raise
        self.headers.update(admission.headers)
        self.entries.append(entry)
        if meter.books is not None:
            meter.books.begin(entry)
        refused = False
        try:
            yield Charge(entry, admission.cap, meter.metrics, self.arrived_at)
        except REFUSALS:
            refused = not entry.used.output
            raise
        finally:
            self._end(entry, refused)
        if meter.books is not None:
            await meter.books.written(entry)

    def _end(self, entry: Entry, refused: bool) -> None:
        if refused:
            entry.used, entry.is_counted = Tokens(), False
        else:
            metrics = self.meter.metrics
            metrics.model_requests.labels(entry.model, entry.kind).inc()
            metrics.prompt_tokens.labels(entry.model).inc(entry.used.input)
            metrics.cached_tokens.labels(entry.model).inc(entry.used.cached)
            metrics.generation_tokens.labels(entry.model).inc(entry.used.output)
        if self.meter.books is not None:
            self.meter.books.end(entry)


def bill_of(request: Request) -> Bill:
    """The bill of whoever asks, whose headers the response will have. The same one for the whole request."""
    scope = request.scope
    if BILL not in scope:
        meter: Meter = request.app.state.server.meter
        headers = scope.setdefault(HEADERS, {})
        scope[BILL] = Bill(meter, Payer.of(actor_of(request)), scope.get(ARRIVED_AT, time.monotonic()), headers)
    bill: Bill = scope[BILL]
    return bill
