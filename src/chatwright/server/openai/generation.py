"""From a validated body to text events: sampling parameters, several prompts at once, and what happens when the client leaves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Literal, TypeVar

from openai.types import CompletionUsage
from openai.types.completion_usage import PromptTokensDetails
from starlette.requests import Request

from chatwright.engine.protocol import BACKGROUND, SamplingParams
from chatwright.engine.text import Admission, TextEvent, TextFinish, TextModel, TextRequest, random_seed
from chatwright.errors import InvalidRequestError, OverloadedError
from chatwright.server.metering import Bill, Charge
from chatwright.server.openai.requests import SamplingBody
from chatwright.server.permission import actor_of
from chatwright.store.usage.admission import Wanted

T = TypeVar("T")

# Prompts of one HTTP request that are in the engine at the same time; the others wait here and not in the engine's queue,
# so that one request with many prompts does not fill it.
PROMPTS_AT_ONCE = 16
FULL_QUEUE_PAUSE_S = 0.05
# Events that wait here for a client that reads slowly.
MAX_UNREAD = 64


# Where a request's scope says that nobody sits waiting for its answer, and the name of the queue in which it waits.
IN_BACKGROUND = "chatwright.background"


class ClientGoneError(Exception):
    """The client hung up before the answer: there is nobody to answer."""


def sampling_params(body: SamplingBody, model: TextModel, *, max_tokens: int, logprobs: int | None) -> SamplingParams:
    """OpenAI's fields as the engine's parameters. Raises InvalidRequestError for a token id outside the vocabulary."""
    bias = {}
    for key, value in (body.logit_bias or {}).items():
        if not (key.isascii() and key.isdigit()) or int(key) >= model.tokenizer.vocab_size:
            raise InvalidRequestError(
                "logit_bias has the key '{key}', which is no token id of this model (0 to {last}).",
                key=key,
                last=model.tokenizer.vocab_size - 1,
                param="logit_bias",
                code="invalid_value",
            )
        bias[int(key)] = value
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(0, body.top_k or 0),
        min_p=body.min_p or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        logit_bias=bias,
        seed=random_seed() if body.seed is None else body.seed,
        logprobs=logprobs,
    )


def wire_reason(event: TextFinish) -> Literal["stop", "length", "content_filter"]:
    """OpenAI knows no "abort": whoever ended it from outside wanted it to stop."""
    return "stop" if event.reason == "abort" else event.reason


def owner_of(body: SamplingBody) -> str:
    """On whose behalf a request is: the end user whom the client names, if any, in a name of bounded length.

    Users of one key take turns in the queue, and none finds, or times, what the prompts of another left in the cache.
    """
    if not body.user:
        return ""
    digest = hashlib.blake2b(body.user.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return BACKGROUND + digest if body.user.startswith(BACKGROUND) else digest


def on_behalf_of(body: SamplingBody, request: Request) -> None:
    """Put the end user whom the client names under the account that asks: nobody is somebody else by naming them."""
    actor = actor_of(request)
    if actor.user_id is not None:
        body.user = f"{actor.user_id}\n{body.user or ''}"
    if queue := request.scope.get(IN_BACKGROUND):
        body.user = f"{BACKGROUND}{queue} {body.user or ''}"


def usage(n_prompt: int, n_completion: int, n_reused: int | None = None) -> CompletionUsage:
    """Token counts that add up. `n_reused`: tokens of the prompt that came from the cache, where that is told."""
    counts = CompletionUsage(
        prompt_tokens=n_prompt, completion_tokens=n_completion, total_tokens=n_prompt + n_completion
    )
    if n_reused is not None:
        counts.prompt_tokens_details = PromptTokensDetails(cached_tokens=n_reused)
    return counts


async def generate_all(
    model: TextModel,
    requests: Sequence[TextRequest],
    cut_off: asyncio.Event,
    bill: Bill,
    *,
    can_be_shorter: bool,
) -> AsyncGenerator[tuple[int, TextEvent], None]:
    """Events of several prompts as they come, each with its prompt's number. Closing the iterator aborts all of them.

    `bill`: on whose account it goes (`metering.bill_of`). `can_be_shorter`: nobody asked for that length, so that answers end where
    the payer has no more tokens left. Raises LimitReachedError before anything is computed; OverloadedError when there is no room
    for the first prompt, or when `cut_off` is set; EngineError.
    """
    async with (
        bill.charge(model.name, wanted_of(requests, can_be_shorter=can_be_shorter)) as charge,
        aclosing(generate_charged(model, requests, cut_off, charge)) as events,
    ):
        async for item in events:
            yield item


def wanted_of(requests: Sequence[TextRequest], *, can_be_shorter: bool) -> Wanted:
    """What a bill has to be charged for these; see `generate_all`."""
    return Wanted(
        sum(len(request.prompt_ids) for request in requests),
        [(request.n, request.sampling.max_tokens) for request in requests],
        can_be_shorter,
    )


async def generate_charged(
    model: TextModel, requests: Sequence[TextRequest], cut_off: asyncio.Event, charge: Charge
) -> AsyncGenerator[tuple[int, TextEvent], None]:
    """`generate_all` for who has been let in already."""
    requests = [charge.within(request) for request in requests]
    inbox: asyncio.Queue[tuple[int, TextEvent] | Exception | None] = asyncio.Queue()
    # A client that reads slowly holds up its own events where they come from, and fills no memory here.
    room = asyncio.Event()
    room.set()
    places = asyncio.Semaphore(PROMPTS_AT_ONCE)

    async def pump(number: int, request: TextRequest) -> None:
        try:
            async with places:
                while True:
                    charge.prompt(len(request.prompt_ids))
                    try:
                        async with aclosing(model.generate(request)) as events:
                            async for event in events:
                                charge.event(number, event)
                                inbox.put_nowait((number, event))
                                if inbox.qsize() >= MAX_UNREAD:
                                    room.clear()
                                await room.wait()
                        break
                    except OverloadedError:
                        charge.prompt(-len(request.prompt_ids))
                        # The first prompt, which starts first, stands for the request: without room for it the request is
                        # refused. Later ones wait, lest a newcomer that took the place of one ruin what is half done.
                        if number == 0:
                            raise
                        await asyncio.sleep(FULL_QUEUE_PAUSE_S)
            inbox.put_nowait(None)
        except Exception as error:  # noqa: BLE001  carried over to the reader, who raises it
            inbox.put_nowait(error)

    async def end_at_cut_off() -> None:
        await cut_off.wait()
        inbox.put_nowait(OverloadedError("The server is shutting down and ended this answer early. Send it again."))

    tasks = [asyncio.create_task(pump(number, request)) for number, request in enumerate(requests)]
    tasks.append(asyncio.create_task(end_at_cut_off()))
    try:
        n_open = len(requests)
        while n_open:
            item = await inbox.get()
            if inbox.qsize() <= MAX_UNREAD // 2:
                room.set()
            if isinstance(item, Exception):
                raise item
            if item is None:
                n_open -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def reading(bill: Bill, model: TextModel) -> Admission:
    """For what a model reads and answers with no text: vectors, labels, scores. Its tokens go on this bill."""

    @asynccontextmanager
    async def admitted(n_tokens: int) -> AsyncIterator[None]:
        async with bill.charge(model.name, Wanted(n_tokens), "embeddings") as charge:
            charge.prompt(n_tokens)
            yield

    return admitted


async def computed(request: Request, work: Awaitable[T], cut_off: asyncio.Event) -> T:
    """The result of what a model computes without writing text: vectors, labels, scores. When the client hangs up it is cancelled.

    Raises ClientGoneError, OverloadedError when `cut_off` is set, and what `work` raises.
    """
    task = asyncio.ensure_future(work)
    ended = asyncio.create_task(cut_off.wait())
    try:
        await unless_client_leaves(request, asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED))
        if not task.done():
            raise OverloadedError("The server is shutting down and ended this answer early. Send it again.")
        return task.result()
    finally:
        for pending in (task, ended):
            pending.cancel()
        await asyncio.gather(task, ended, return_exceptions=True)


def check_ids(ids: Sequence[int], model: TextModel, *, param: str) -> None:
    """Raise InvalidRequestError for an id that is no token."""
    if max(ids) >= model.tokenizer.vocab_size:
        raise InvalidRequestError(
            "The field {field} has the token id {id}, but this model's ids end at {last}: every model has a vocabulary of its own.",
            field=param,
            id=max(ids),
            last=model.tokenizer.vocab_size - 1,
            param=param,
            code="invalid_value",
        )


async def unless_client_leaves(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`; when the client hangs up first, `work` is cancelled and ClientGoneError is raised."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for pending in (task, watcher):
            if not pending.done():
                pending.cancel()
                with suppress(asyncio.CancelledError):
                    await pending


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
