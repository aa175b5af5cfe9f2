"""Answers that keep to a grammar: compiled beside the engine's loop, a mask over the vocabulary for each step in it.

llguidance does both. What can come from strangers is bounded three times: by its size before anything reads it; by a trial
in a child process with limits of the kernel (`grammar_worker`), as some schemas of a few kilobytes compile for a minute; and in
each step by llguidance's own limits, which count work and not time, so that the same answer always meets the same end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from chatwright.engine.protocol import Grammar
from chatwright.engine.vocabulary import Vocabulary
from chatwright.errors import EngineError, InvalidRequestError
from chatwright.tokenizer.line_worker import LineWorker, WorkerBrokenError, WorkerStartError
from chatwright.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

MAX_GRAMMAR_BYTES = 256 * 1024
# Grammars that are kept compiled, and refusals that are remembered.
CACHED_GRAMMARS = 32
# A trial has its limits of CPU time (`grammar_worker`); on a busy machine they take longer to reach.
TRIAL_LIMIT_S = 20.0
# Steps of the engine take tens of milliseconds. What llguidance counts bounds a mask to 15 ms for every hostile grammar that was
# tried; one that finds a way around that has two slow steps and no third. One alone was seen of a harmless grammar, on a machine
# where four processes shared two cores.
SLOW_STEP_S = 0.1
SLOW_STEPS = 2
# A lexer that other answers have filled up is replaced in the middle of a step: only where that is quick.
QUICK_COMPILE_S = 0.05
# JSON as people write it, on one line or indented, without room for a small model to write blanks for ever.
WHITESPACE = r" |\n {0,16}"
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 10_000,
    # About 350 bytes each.
    "max_lexer_states": 50_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,  # they quote the answer
}
NICE = 5


class GrammarFailedError(Exception):
    """An answer cannot go on: the grammar came to its limits, or allows nothing more."""


@dataclass(frozen=True)
class _Compiled:
    """A grammar ready for use, and the CPU seconds that took. Its copies share one lexer, which grows as answers go new ways."""

    prototype: LLMatcher
    seconds: float


class Constraint:
    """The way of one choice through a grammar."""

    def __init__(self, compiler: GrammarCompiler, grammar: Grammar, compiled: _Compiled) -> None:
        self._compiler = compiler
        self._grammar = grammar
        self._compiled: _Compiled | None = compiled
        self._matcher = compiled.prototype.deep_copy()
        self._taken: list[int] = []
        self._n_slow = 0

    def mask(self, logits_V: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits with minus infinity for every token that may not come next. (V,) → (V,), a copy.

        Raises GrammarFailedError.
        """
        started = time.thread_time()
        bits = self._bitmask()
        if time.thread_time() - started > SLOW_STEP_S:
            self._n_slow += 1
            if self._n_slow >= SLOW_STEPS:
                raise GrammarFailedError("it takes too long to follow")
        allowed = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little").view(np.bool_)
        n = min(len(allowed), len(logits_V))  # a model may have rows for tokens that its tokenizer does not
        masked = np.full_like(logits_V, -np.inf)
        np.copyto(masked[:n], logits_V[:n], where=allowed[:n])
        if not allowed[:n].any():
            raise GrammarFailedError("no token of this model goes on with it")
        return masked

    def advance(self, token_id: int) -> bool:
        """The token was chosen. Whether the answer is now complete, and nothing could follow. Raises GrammarFailedError."""
        self._taken.append(token_id)
        if not self._matcher.consume_token(token_id):
            self._renew()
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def _bitmask(self) -> bytes:
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            self._renew()
            bits = self._matcher.compute_bitmask()
            if self._matcher.is_error():
                raise GrammarFailedError("it is too complex")
        return bits

    def _renew(self) -> None:
        """Start again with a lexer of one's own, where the shared one may be to blame, so that no answer depends on others."""
        compiled, self._compiled = self._compiled, None
        if compiled is None:
            raise GrammarFailedError("it is too complex")
        self._compiler.discard(self._grammar, compiled)
        if compiled.seconds > QUICK_COMPILE_S:
            raise GrammarFailedError("it is too complex")
        self._matcher = self._compiler.matcher(self._grammar)
        if not self._matcher.consume_tokens(self._taken):
            raise GrammarFailedError("it is too complex")


class GrammarCompiler:
    """Compiles the grammars of one model's requests, off the event loop, and keeps the latest.

    load_tokenizer: gives the model's tokenizer, when the first grammar comes.
    """

    def __init__(self, load_tokenizer: Callable[[], Tokenizer]) -> None:
        self._load_tokenizer = load_tokenizer
        self._lock = threading.Lock()
        # A grammar that cannot be used is remembered with the reason.
        self._cache: OrderedDict[Grammar, _Compiled | str] = OrderedDict()
        # One thread: a queue of grammars, at a low priority, must not take the engine's cores.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="grammar", initializer=_lower_priority)
        self._worker = LineWorker(Path(__file__).with_name("grammar_worker.py"), first_line=self._first_line)

    async def constraints(self, grammar: Grammar, n: int) -> list[Constraint]:
        """A constraint for each of `n` choices. Raises InvalidRequestError for a grammar that cannot be used."""
        found = self._find(grammar)
        if found is None:
            if len(grammar.text.encode("utf-8", "replace")) > MAX_GRAMMAR_BYTES:
                raise _refusal(f"it is larger than {MAX_GRAMMAR_BYTES // 1024} KiB")
            found = await asyncio.get_running_loop().run_in_executor(self._pool, self._compile, grammar)
        if isinstance(found, str):
            raise _refusal(found)
        return [Constraint(self, grammar, found) for _ in range(n)]

    def close(self) -> None:
        """End the thread and the child process, without waiting for what they do."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._worker.close()

    def matcher(self, grammar: Grammar) -> LLMatcher:
        """A matcher at the grammar's beginning, with a lexer of its own; it may be in error."""
        return LLMatcher(self._llguidance, _for_llguidance(grammar), log_level=0, limits=LLParserLimits(**LIMITS))

    def discard(self, grammar: Grammar, compiled: _Compiled) -> None:
        """The lexer is full: the next request for this grammar gets a fresh one."""
        with self._lock:
            if self._cache.get(grammar) is compiled:
                del self._cache[grammar]

    def _find(self, grammar: Grammar) -> _Compiled | str | None:
        with self._lock:
            if grammar in self._cache:
                self._cache.move_to_end(grammar)
            return self._cache.get(grammar)

    def _compile(self, grammar: Grammar) -> _Compiled | str:
        """In the pool's thread. Of many requests with the same grammar only the first waits for more than the cache."""
        if (found := self._find(grammar)) is not None:
            return found
        result: _Compiled | str | None = self._try_out(grammar)
        if result is None:
            started = time.thread_time()
            prototype = self.matcher(grammar)
            result = _Compiled(prototype, time.thread_time() - started)
            if prototype.is_error():  # the trial found nothing, so this is rare
                result = "it does not compile"
        with self._lock:
            self._cache[grammar] = result
            while len(self._cache) > CACHED_GRAMMARS:
                self._cache.popitem(last=False)
        return result

    def _try_out(self, grammar: Grammar) -> str | None:
        """What is wrong with a grammar, found out in the child process."""
        line = json.dumps(_for_llguidance(grammar)).encode() + b"\n"
        try:
            answer = json.loads(self._worker.ask(line, limit_s=TRIAL_LIMIT_S, max_bytes=10_000))
        except TimeoutError:
            return "it takes too long to compile"
        except WorkerBrokenError as error:
            log.warning("a grammar ended the process that tries grammars out (%s)", error)
            slow = error.signal is not None and error.signal == _SIGPROF
            return "it takes too long to compile" if slow else "it takes too much memory to compile"
        except WorkerStartError as error:
            raise EngineError("The process that tries grammars out does not start.") from error
        return _in_words(answer) if isinstance(answer, str) else None

    def _first_line(self) -> bytes:
        words = self._vocabulary
        first = {
            "tokens": [token.hex() for token in words.tokens],
            "special_ids": words.special_token_ids,
            "eos_ids": words.eos_ids,
            "limits": LIMITS,
        }
        return json.dumps(first).encode() + b"\n"

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._load_tokenizer())

    @cached_property
    def _llguidance(self) -> LLTokenizer:
        return self._vocabulary.for_llguidance()


_UNKNOWN_KEYWORDS = re.compile(r"Unimplemented keys: \[(.*)\]")
_SIGPROF = 27 if os.name == "posix" else None


def _for_llguidance(grammar: Grammar) -> str:
    """The grammar as llguidance reads it. Raises InvalidRequestError for a schema that is no JSON object."""
    if grammar.kind == "lark":
        return LLMatcher.grammar_from_lark(grammar.text)
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    try:
        schema = LLMatcher.grammar_from_json_schema(grammar.text, overrides={"whitespace_pattern": WHITESPACE})
    except ValueError as error:
        raise _refusal(str(error)) from error
    return schema


def _in_words(complaint: str) -> str:
    """What llguidance says, where it speaks to programmers of its own."""
    if match := _UNKNOWN_KEYWORDS.fullmatch(complaint):
        return f"it has keywords that answers cannot be held to: {match[1]}"
    if complaint.startswith("oneOf constraints"):
        return "oneOf is possible only where its branches cannot match the same value; use anyOf"
    return "nothing matches it" if complaint.startswith("NoExtension") else complaint


def _refusal(reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        "This grammar or schema cannot be used: {reason}.", reason=reason.rstrip("."), code="invalid_grammar"
    )


def _lower_priority() -> None:
    """Linux has priorities of single threads."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
