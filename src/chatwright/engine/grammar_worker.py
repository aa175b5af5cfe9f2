"""The child process that tries grammars out before the engine compiles them: strangers' programs, within limits of the kernel.

Run as a file, not imported: needs llguidance and the standard library only. One JSON value a line in and out. The first line
says which vocabulary, {"tokens", "special_ids", "eos_ids", "limits"}; each other line is a grammar as llguidance reads it, a
string, and is answered with what is wrong with it, a string, or null. Too much time or memory ends the process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from typing import IO, Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

CPU_LIMIT_S = 1.0
MEMORY_LIMIT_BYTES = 192 * 2**20
# A step of a trial may take this long (the engine computes such a step while others wait for their next token).
STEP_LIMIT_S = 0.05
# How far a grammar is walked: until so many tokens were a choice, and so many came at all.
N_CHOSEN = 12
N_WALKED = 256
NICE = 5


class Tokens:
    """The vocabulary as llguidance wants it. Text is cut into the longest tokens: a trial need not cut it as the model would."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], special_ids: list[int], eos_ids: list[int]) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, special_ids, eos_ids[0]
        self.tokenizer: LLTokenizer | None = None

    def __call__(self, text: bytes) -> list[int]:
        return self.tokenizer.greedy_tokenize(text.decode("utf-8", "replace")) if self.tokenizer else []


def make_tokenizer(first: dict[str, Any]) -> LLTokenizer:
    """The vocabulary of the first line."""
    tokens = Tokens([bytes.fromhex(token) for token in first["tokens"]], first["special_ids"], first["eos_ids"])
    tokens.tokenizer = LLTokenizer(TokenizerWrapper(tokens), eos_token=first["eos_ids"])
    return tokens.tokenizer


def complaint(tokenizer: LLTokenizer, grammar: str, limits: LLParserLimits, eos_ids: set[int]) -> str | None:
    """What is wrong with a grammar: it does not compile, or a walk through it comes to a dead end or to the limits."""
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    chance = random.Random(0)  # noqa: S311  the same walk every time
    n_chosen = 0
    for _ in range(N_WALKED):
        if matcher.is_error():
            return on_one_line(matcher.get_error())
        if matcher.is_stopped() or n_chosen == N_CHOSEN:
            return None
        started = time.thread_time()
        bits = matcher.compute_bitmask()
        step_s = time.thread_time() - started
        if matcher.is_error():
            continue
        token_id, had_choice = choose(bits, eos_ids, chance)
        if token_id is None:
            return None if matcher.is_accepting() else "nothing matches it"
        n_chosen += had_choice
        started = time.thread_time()
        matcher.consume_token(token_id)
        if step_s + time.thread_time() - started > STEP_LIMIT_S:
            return "it is too complex"
    return None


def choose(bitmask: bytes, eos_ids: set[int], chance: random.Random) -> tuple[int | None, bool]:
    """Any token whose bit is set (the lowest bit is token 0), no end token; and whether there was a choice."""
    bits = bytearray(bitmask)
    for token_id in eos_ids:
        bits[token_id // 8] &= ~(1 << token_id % 8) & 255
    places = [place for place, byte in enumerate(bits) if byte]
    if not places:
        return None, False
    place = chance.choice(places)
    within = [bit for bit in range(8) if bits[place] >> bit & 1]
    return 8 * place + chance.choice(within), len(places) > 1 or len(within) > 1


def on_one_line(error: str) -> str:
    """A message of llguidance without its technical end."""
    return " ".join(error.removesuffix("<non-verbose/>").split())[:500] or "it does not compile"


def limit_process() -> None:
    """Ask the kernel to hold this process: memory, no new files, no children, no core dumps. Where it cannot, go on."""
    with suppress(AttributeError, OSError):
        os.nice(NICE)
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 3, "RLIMIT_NPROC": 0}
    with suppress(OSError):  # Linux tells how much it is already
        with open("/proc/self/statm") as file:  # noqa: PTH123
            pages = int(file.read().split()[0])
        limits["RLIMIT_AS"] = pages * resource.getpagesize() + MEMORY_LIMIT_BYTES
    for name, value in limits.items():
        # macOS knows some of these names but refuses the values.
        with suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (value, value))


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the other side closes its end, as it does when it dies."""
    first = json.loads(requests.readline())
    tokenizer = make_tokenizer(first)
    limits = LLParserLimits(**first["limits"])
    eos_ids = set(first["eos_ids"])
    complaint(tokenizer, LLMatcher.grammar_from_json_schema('{"type": "object"}'), limits, eos_ids)
    limit_process()
    set_timer = getattr(signal, "setitimer", None)
    answers.write(b"{}\n")
    answers.flush()
    for line in requests:
        grammar = json.loads(line)
        if set_timer:
            set_timer(signal.ITIMER_PROF, CPU_LIMIT_S)  # its signal's default action ends the process
        reply = json.dumps(complaint(tokenizer, grammar, limits, eos_ids)).encode()
        if set_timer:
            set_timer(signal.ITIMER_PROF, 0)
        answers.write(reply + b"\n")
        answers.flush()


if __name__ == "__main__":
    # Ctrl-C in a terminal goes to the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer)
