"""Many users at once: what a long prompt does to the answers of others, what the cache saves, and what is left behind.

Through the engine as `serve` loads it, in this process. The default model, its context stretched so that a prompt of 4,000 tokens
fits (what it says there is of no interest, how long it takes is). One JSON line a figure.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import aclosing, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil

from bench.figures import report
from chatwright.engine.load import load_engine
from chatwright.engine.local import LocalEngine
from chatwright.engine.pacing import Pacer
from chatwright.engine.protocol import FinishEvent, GenerateRequest, SamplingParams, TokenEvent
from chatwright.engine.scheduler import Scheduler
from chatwright.engine.sequence import Group
from chatwright.hub import ModelsFolder
from chatwright.model.load import load_model
from chatwright.model.save import save_model
from chatwright.settings import load_settings

CONTEXT = 8192
LONG_PROMPT = 4000
PREFIX = 1000
# Answers are under way when the long prompt comes.
SETTLE_S = 3.0


def stretched(path: Path, folder: Path) -> Path:
    """The model with a longer context, as a folder."""
    model = load_model(path)
    model.config = replace(model.config, context_length=CONTEXT)
    save_model(model, folder)
    return folder


def prompt(n: int, seed: int = 0) -> list[int]:
    """Arbitrary tokens, others for each seed."""
    return [1000 + (seed * 7919 + i * 31) % 40_000 for i in range(n)]


def queued() -> dict[str, int]:
    """Nanoseconds that each thread of this process was ready to run and had no core so far (Linux; else nothing)."""
    found = {}
    for folder in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # it has ended meanwhile
            found[folder.name] = int((folder / "schedstat").read_text().split()[1])
    return found


class Watch:
    """When each token came, and how long the thread that waited longest for a core had waited since the one before."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.queued_s: list[float] = []
        self._before = queued()

    def tick(self) -> None:
        """A token is here."""
        now = queued()
        self.times.append(time.perf_counter())
        self.queued_s.append(max((now[name] - self._before.get(name, 0) for name in now), default=0) / 1e9)
        self._before = now


async def token_times(
    engine: LocalEngine, name: str, ids: list[int], n_tokens: int, watch: Watch | None = None
) -> tuple[list[float], int]:
    """When each token came, and how many of the prompt's were found in the cache."""
    times: list[float] = []
    n_reused = 0
    request = GenerateRequest(name, ids, SamplingParams(max_tokens=n_tokens, temperature=0.0), owner=name)
    async with aclosing(engine.generate(request)) as events:
        async for event in events:
            if isinstance(event, TokenEvent):
                times.append(time.perf_counter())
                if watch is not None:
                    watch.tick()
            elif isinstance(event, FinishEvent):
                n_reused = event.reused_tokens
    return times, n_reused


async def long_prompt(engine: LocalEngine, n_streams: int, n_tokens: int) -> None:
    """How much longer than usual others wait for a token while a long prompt is computed."""
    watches = [Watch() for _ in range(n_streams)]
    streams = [
        asyncio.create_task(token_times(engine, f"{n_streams}-{i}", prompt(32, 50 + i), n_tokens, watches[i]))
        for i in range(n_streams)
    ]
    await asyncio.sleep(SETTLE_S)
    start = time.perf_counter()
    [first], _ = await token_times(engine, f"long-{n_streams}", prompt(LONG_PROMPT, n_streams), 1)
    await asyncio.gather(*streams)
    quiet, loud, computed = [], [], []
    for watch in watches:
        for (before, now), queued_s in zip(pairwise(watch.times), watch.queued_s[1:], strict=True):
            if start <= now and before <= first:
                loud.append(now - before)
                computed.append(now - before - queued_s)
            elif before > first or now < start:
                quiet.append(now - before)
    usual = statistics.median(quiet)
    loud.sort()
    report(
        f"wait for a token while a prompt of {LONG_PROMPT} is computed, {n_streams} streams, times the usual",
        round(loud[-1] / usual, 2),
        "x",
        median=round(statistics.median(loud) / usual, 2),
        p99=round(loud[int(0.99 * len(loud))] / usual, 2),
        # without the time that a thread of the engine stood in the kernel's queue for a core, which others had
        worst_without_queue=round(max(computed) / usual, 2),
        # what the machine does to waits without a prompt
        quiet_p99=round(sorted(quiet)[int(0.99 * len(quiet))] / usual, 2),
        quiet_worst=round(max(quiet) / usual, 2),
        usual_ms=round(usual * 1e3, 2),
        prompt_s=round(first - start, 2),
        n=len(loud),
    )


async def cached_prefix(engine: LocalEngine, rounds: int) -> None:
    """Time to the first token when the beginning was computed before, as a share of the first time."""
    shares, cold_s = [], []
    for i in range(rounds):
        seconds = []
        for ending in (1, 2):
            start = time.perf_counter()
            [first], n_reused = await token_times(engine, "same owner", [*prompt(PREFIX, 100 + i), 5, ending], 1)
            seconds.append(first - start)
        shares.append(seconds[1] / seconds[0])
        cold_s.append(seconds[0])
    report(
        f"first token after a cached prefix of {PREFIX}, share of the cold time",
        round(statistics.median(shares), 3),
        "1",
        range=[round(min(shares), 3), round(max(shares), 3)],
        cold_s=round(statistics.median(cold_s), 3),
        reused_tokens=n_reused,
        n=rounds,
    )


async def aborted_streams(engine: LocalEngine) -> None:
    """Blocks in use two seconds after 200 readers hung up."""

    async def hang_up(number: int) -> None:
        request = GenerateRequest(
            f"gone {number}", prompt(40, number), SamplingParams(max_tokens=500), owner=f"{number % 9}"
        )
        async with aclosing(engine.generate(request)) as events:
            async for _ in events:
                return

    for start in range(0, 200, 50):
        await asyncio.gather(*(hang_up(start + i) for i in range(50)))
    await asyncio.sleep(2)
    report("blocks in use 2 s after 200 aborted streams", engine.stats().blocks_used, "blocks", n=200)


async def memory(engine: LocalEngine, n_requests: int) -> None:
    """Memory after many requests against memory after 100, once the cache is full."""
    process = psutil.Process()

    async def some(start: int, n: int) -> None:
        for first in range(start, start + n, 20):
            await asyncio.gather(*(token_times(engine, str(i), prompt(24, i), 2) for i in range(first, first + 20)))

    total = engine.stats().blocks_total
    i = 0
    while engine.stats().blocks_cached < total - 40:
        await token_times(engine, "fill", prompt(1000, 10_000 + i), 1)
        i += 1
    await some(0, 100)
    after_100 = process.memory_info().rss
    await some(100, n_requests - 100)
    report(
        f"memory after {n_requests} requests, against 100",
        round((process.memory_info().rss - after_100) / 2**20, 1),
        "MiB",
        after_100_mib=round(after_100 / 2**20),
    )


def scheduler_cost(n_steps: int = 2000) -> None:
    """What a step of 32 answers costs before and after the model, of 1,000 to 3,000 tokens each."""
    scheduler = Scheduler(max_batch=32, max_step_tokens=256, cache_tokens=131_072, pacer=Pacer(max_tokens=256))
    for i in range(32):
        scheduler.add(Group(GenerateRequest(str(i), prompt(1000, i), SamplingParams(), owner=str(i % 8))))
    costs = []
    while len(costs) < n_steps:
        start = time.perf_counter()
        chunks, _ = scheduler.schedule()
        for chunk in chunks:
            scheduler.advance(chunk)
        scheduler.observe(chunks, 1e-3 * len(chunks) + 1e-5 * sum(chunk.end - chunk.start for chunk in chunks))
        seconds = time.perf_counter() - start
        if len(chunks) == 32 and all(chunk.end - chunk.start == 1 for chunk in chunks):
            costs.append(seconds)
        for chunk in chunks:
            if chunk.reaches_end:
                chunk.sequence.append(5)
    report("scheduling a step of 32 answers", round(statistics.median(costs) * 1e6, 1), "us", n=n_steps)


async def measure(path: Path, arguments: argparse.Namespace) -> None:
    """Everything that needs the model."""
    settings = load_settings({"kv_cache_tokens": 16_384})
    engine = await asyncio.to_thread(load_engine, path, "crowd", settings)
    await token_times(engine, "warm up", prompt(64, 9), 8)
    await cached_prefix(engine, arguments.rounds)
    for n_streams in (1, 8):
        await long_prompt(engine, n_streams, arguments.tokens)
    await aborted_streams(engine)
    if arguments.requests:
        await memory(engine, arguments.requests)
    await engine.close()


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2000, help="tokens of each answer beside the long prompt")
    parser.add_argument("--requests", type=int, default=10_000, help="of the memory figure; 0 leaves it out")
    arguments = parser.parse_args()
    scheduler_cost()
    settings = load_settings()
    model = ModelsFolder(settings.models_dir).find(settings.default_model)
    if model is None:
        raise SystemExit(f"Pull the model first: chatwright pull {settings.default_model}")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(stretched(model.path, Path(folder) / "model"), arguments))


if __name__ == "__main__":
    main()
