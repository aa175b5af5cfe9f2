"""The answer to one line, after as many tries as it takes the server to have room for it."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI

from chatwright.server.batches.dispatch import Answer, Dispatcher, new_request_id
from chatwright.server.batches.share import Share
from chatwright.server.errors import error_object
from chatwright.server.state import ServerState
from chatwright.store.actor import Actor

PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# A crash may be the line's fault; an engine that is started again needs a moment.
TRIES_AFTER_CRASH = 3
# What asks for an answer that does not come with the line: in pieces, or later, and then beside the share that batches have.
UNANSWERABLE = {
    "stream": "A request of a batch cannot be streamed: leave out stream.",
    "background": "A batch waits for its answers, so none of them can be in the background: leave out background.",
}


class Answering:
    """Shared by all batches and runs of evals of a server: together they have one share of its engines."""

    def __init__(self, dispatcher: Dispatcher, share: Share, most_line_bytes: int) -> None:
        self.most_line_bytes = most_line_bytes
        self.at_once = share.most
        self._dispatcher = dispatcher
        self._share = share

    @classmethod
    def of(cls, app: FastAPI, state: ServerState) -> Answering:
        """By an app that has all its routes."""
        share = Share(state.settings.batch_lines, lambda own: sum(state.load()) - own)
        return cls(Dispatcher(app), share, state.settings.body_limit_bytes)

    async def answer(self, actor: Actor, batch_id: str, endpoint: str, body: dict[str, Any]) -> Answer:
        """What a client of this actor would get. Cancelling it ends the work."""
        for field, sentence in UNANSWERABLE.items():
            if body.get(field):
                return Answer(400, new_request_id(), error_object(400, sentence, field, "unsupported_parameter"))
        n_crashes, pause_s = 0, PAUSE_S
        while True:
            async with self._share.place(_n_choices(body)):
                answer = await self._dispatcher.post(actor, endpoint, body, batch_id)
            if answer.status >= 500 and answer.status != 503:
                n_crashes += 1
                if n_crashes >= TRIES_AFTER_CRASH:
                    return answer
            elif answer.status not in (429, 503) or _code(answer) == "insufficient_quota":
                return answer
            await asyncio.sleep(max(pause_s, min(answer.retry_after_s or 0.0, LONGEST_PAUSE_S)))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _n_choices(body: dict[str, Any]) -> int:
    """Roughly how many answers a line asks the engine for; what is too much is refused by the route."""
    n, prompt = body.get("n"), body.get("prompt")
    n_prompts = len(prompt) if isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt) else 1
    return (n if isinstance(n, int) and 0 < n <= 128 else 1) * min(n_prompts, 128)


def _code(answer: Answer) -> Any:
    error = answer.body.get("error") if isinstance(answer.body, dict) else None
    return error.get("code") if isinstance(error, dict) else None
