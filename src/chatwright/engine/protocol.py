"""The Engine protocol: token ids in, a stream of token events out.

Engines know nothing of text: chat templates, stop strings and detokenising live above (`chatwright.engine.text`), so that a
local engine, one in another process and a remote one behave alike. What comes out is msgspec's: it crosses a socket as it is,
and costs a fifth of a frozen dataclass to make, for each token of each stream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from msgspec import Struct

FinishReason = Literal["stop", "length", "abort", "error", "grammar"]


# How owners begin whose work may wait, such as batches: while a prompt of somebody else is computed it stands still.
BACKGROUND = "background:"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen.

    Order: penalties and `logit_bias` change the logits; temperature 0 takes the largest; otherwise the logits are divided by
    the temperature and cut by `top_k` (0: off), `top_p` and `min_p`, in this order. `presence_penalty` and
    `frequency_penalty` count generated tokens (OpenAI), `repetition_penalty` prompt and generated tokens (CTRL, Keskar et
    al. 2019). `seed` fixes choice `i` of a request whatever else runs and however large `n` is. `logprobs`: how many
    alternatives to report for each token (0: only the token's own log probability; None: none).
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    logprobs: int | None = None
    stop_ids: frozenset[int] = frozenset()


GrammarKind = Literal["json_schema", "lark", "regex"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must look like: a JSON Schema (as JSON text), a grammar in llguidance's Lark, or a regular expression."""

    kind: GrammarKind
    text: str


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt to be continued `n` times. `id` is unique among the living requests of an engine.

    `prompt_logprobs`: how many alternatives to report for each prompt token (None: do not score the prompt). `owner`: on whose
    behalf; places in the queue are shared out among owners, and cached prompts are never shared between them. `adapter`: the name
    of a loaded adapter, or None for the model as it is. `grammar`: what every choice must look like.
    """

    id: str
    prompt_ids: Sequence[int]
    sampling: SamplingParams
    n: int = 1
    prompt_logprobs: int | None = None
    owner: str = ""
    adapter: str | None = None
    grammar: Grammar | None = None


class TokenLogprobs(Struct, frozen=True, array_like=True):
    """Natural-log probability of a token under the model itself (before penalties and temperature), and the likeliest
    tokens at its place as (id, log probability), best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class PromptEvent(Struct, frozen=True, array_like=True, tag="prompt"):
    """Scores of prompt tokens from position `start` on; the first token of a prompt has none (None)."""

    start: int
    scores: tuple[TokenLogprobs | None, ...]


class TokenEvent(Struct, frozen=True, array_like=True, tag="token"):
    """Choice `index` goes on with `token_id`."""

    index: int
    token_id: int
    scores: TokenLogprobs | None = None


class FinishEvent(Struct, frozen=True, array_like=True, tag="finish"):
    """Choice `index` is over. "stop": a token of `stop_ids` came; it is no token event of its own, but comes with this one; or the
    grammar is fulfilled. "grammar": the grammar came to its limits, `error` says how.
    `reused_tokens`: how many tokens of the prompt were found in the cache instead of being computed."""

    index: int
    reason: FinishReason
    error: str | None = None
    stop_token: TokenEvent | None = None
    reused_tokens: int = 0


EngineEvent = PromptEvent | TokenEvent | FinishEvent


class EngineStats(Struct, frozen=True, array_like=True):
    """A snapshot. `heartbeat_age_s` is the time since the engine's loop last turned: large means that it hangs or died.

    `blocks_used`: blocks of the cache that running choices hold; `blocks_cached`: those that nobody holds and that keep a
    beginning for the next who comes with it; the others of `blocks_total` are free. `reused_tokens` (found in the cache instead
    of being computed) and `preemptions` count since the engine started.

    `alive`: requests are welcome. An engine that is not loaded yet (`loaded`) can be alive; `problem` says in a sentence why one
    is not.
    """

    running: int
    waiting: int
    cached_tokens: int
    heartbeat_age_s: float
    alive: bool
    blocks_total: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    reused_tokens: int = 0
    preemptions: int = 0
    loaded: bool = True
    problem: str = ""


class Engine(Protocol):
    """What every engine can do. Prompts must be non-empty, of valid ids, and fit `max_context` together with `max_tokens`."""

    @property
    def max_context(self) -> int:
        """Tokens that one choice can hold, prompt and answer together."""
        ...

    async def ready(self) -> None:
        """Load what is not loaded yet, once for all who wait for it.

        Raises what loading raises, OverloadedError while there is no room in memory, EngineError when the engine is dead.
        """
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        """Events of all choices as they come, one `FinishEvent` per choice. Closing the iterator aborts what still runs.

        Raises OverloadedError when the queue is full, InvalidRequestError when the grammar cannot be used.
        """
        ...

    async def score(self, prompt_ids: Sequence[int], top: int = 0) -> list[TokenLogprobs | None]:
        """Log probability of every prompt token given those before it; None for the first."""
        ...

    async def embed(self, prompt_ids: Sequence[int]) -> list[float]:
        """One vector for a text, (d_model,): of a decoder the mean of the last layer's hidden states, of an encoder what its folder
        says (sentence-transformers: mostly that mean, scaled to length one)."""
        ...

    async def load_adapter(self, name: str, path: str) -> None:
        """Put the LoRA adapter in a folder beside the model, for requests that name it. What runs goes on meanwhile.

        Raises InUseError where an adapter of that name is loaded, ModelNotFoundError, InvalidModelError for one that does not fit.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Take an adapter away: no new request gets it, those that use it end with it, and with the last of them its memory is
        given back. Another one may take its name at once. Raises ModelNotFoundError."""
        ...

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End one choice, or all of a request. Unknown ids are ignored: the request may just have ended by itself."""
        ...

    def stats(self) -> EngineStats:
        """Counts and the age of the heartbeat, without waiting for the engine."""
        ...

    async def probe(self) -> float:
        """Seconds that one round trip through the engine's loop takes. Raises EngineError when the engine is dead."""
        ...

    async def close(self) -> None:
        """Abort everything and free the engine."""
        ...
