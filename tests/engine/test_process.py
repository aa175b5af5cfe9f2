"""The engine in a process of its own: it answers as one beside the caller does, dies with its parent, and is started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from chatwright.engine.load import load_engine
from chatwright.engine.opened import open_model
from chatwright.engine.process import supervised
from chatwright.engine.process.link import COMMAND, EngineProcess, Launch
from chatwright.engine.process.memory import MemoryBudget, MemoryNeed
from chatwright.engine.process.supervised import ProcessEngine
from chatwright.engine.protocol import Engine, EngineEvent, FinishEvent, GenerateRequest, SamplingParams, TokenEvent
from chatwright.errors import EngineError, InvalidModelError, UsageError
from chatwright.settings import Settings
from tests.server.tiny import make_adapter, make_model_folder

PROMPT = [5, 6, 7, 8]
# A step of the tiny model is a millisecond or two.
LONG = SamplingParams(max_tokens=500, temperature=0, logit_bias={2: -100.0})
PATIENCE_S = 60.0
# Each starts several processes of seconds; a busy machine makes tens of seconds of that.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model."""
    return make_model_folder(tmp_path_factory.mktemp("process") / "tiny")


@dataclass
class Started:
    """Engines of a test, closed at its end."""

    folder: Path
    engines: list[ProcessEngine]
    budget: MemoryBudget

    def __call__(self, name: str = "tiny", path: Path | None = None, **options: Any) -> ProcessEngine:
        settings = Settings(threads=1, **{"device": "cpu", **options.pop("settings", {})})
        command = options.pop("command", COMMAND)
        need = options.pop("need", None) or MemoryNeed.of(open_model(self.folder, name, settings).info, settings)
        engine = ProcessEngine(
            Launch(path or self.folder, name, settings, command=command),
            max_context=512,
            need=need,
            budget=self.budget,
            **options,
        )
        self.engines.append(engine)
        return engine


@pytest.fixture
async def start(folder: Path) -> AsyncIterator[Started]:
    started = Started(folder, [], MemoryBudget(10**12, firm=False))
    yield started
    for engine in started.engines:
        await engine.close()


async def collect(engine: Engine, **changes: Any) -> list[EngineEvent]:
    sampling = SamplingParams(max_tokens=8, temperature=0.8, seed=3, logprobs=2, stop_ids=frozenset({2}))
    request = GenerateRequest(
        **{
            "id": os.urandom(8).hex(),
            "prompt_ids": PROMPT,
            "sampling": sampling,
            "n": 2,
            "prompt_logprobs": 1,
            **changes,
        }
    )
    return [event async for event in engine.generate(request)]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def engines_of(pid: int) -> list[psutil.Process]:
    """Living engine processes among a process's children."""
    children = psutil.Process(pid).children()
    living = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in living if "chatwright.engine.process.child" in child.cmdline()]


def by_choice(events: list[EngineEvent]) -> list[list[EngineEvent]]:
    """Events of each choice in their order; between choices there is none."""
    return [[event for event in events if getattr(event, "index", -1) == index] for index in (-1, 0, 1)]


async def test_all_that_an_engine_can_do_crosses_the_socket(start: Started, folder: Path) -> None:
    remote, local = start(), load_engine(folder, "tiny", Settings(threads=1, device="cpu"))
    await remote.ready()
    assert remote.max_context == local.max_context
    assert by_choice(await collect(remote)) == by_choice(await collect(local))
    assert await remote.score(PROMPT, 2) == await local.score(PROMPT, 2)
    assert await remote.embed(PROMPT) == await local.embed(PROMPT)
    assert 0 < await remote.probe() < PATIENCE_S
    await local.close()

    # One choice ended from outside, then the whole request by closing its events.
    request = GenerateRequest("a", PROMPT, LONG, n=2)
    events = remote.generate(request)
    seen = [await anext(events) for _ in range(10)]
    remote.abort("a", 0)
    while not isinstance(seen[-1], FinishEvent):
        seen.append(await anext(events))
    assert (seen[-1].index, seen[-1].reason) == (0, "abort")
    assert isinstance(await anext(events), TokenEvent)
    await until(lambda: remote.stats().running == 1)
    await events.aclose()
    await until(lambda: remote.stats().running == 0)
    remote.abort("unknown")

    await remote.close()
    assert not remote.stats().alive
    with pytest.raises(EngineError, match="has stopped"):
        await remote.ready()


async def test_a_slow_reader_stops_its_own_events_only(start: Started) -> None:
    engine = start()
    await engine.ready()
    waiting = []
    for attempt in range(5):
        slow = engine.generate(GenerateRequest(f"slow {attempt}", PROMPT, LONG))
        await anext(slow)
        assert len(await collect(engine, sampling=LONG, n=1, prompt_logprobs=None)) == 501
        # The child holds back what nobody reads here; nothing is lost when the reader goes on.
        assert engine._process is not None
        (stream,) = engine._process._streams.values()
        await until(lambda stream=stream: stream.paused)
        n_waiting = -1
        while n_waiting < (n_waiting := len(stream.events)):
            await asyncio.sleep(0.3)
        waiting.append(n_waiting)
        rest = [event async for event in slow]
        assert len(rest) == 500
        assert rest[-1] == FinishEvent(0, "length")
        if n_waiting < 400:
            break
    # Where this process gets no processor, the word to hold back can come too late.
    assert min(waiting) < 400


async def test_killed_in_mid_stream_it_says_so_and_is_there_again(start: Started) -> None:
    engine = start()
    await engine.ready()
    events = engine.generate(GenerateRequest("a", PROMPT, LONG))
    await anext(events)
    call = asyncio.create_task(engine.score([5] * 400))
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="killed in the middle of this answer, as systems do when memory runs out"):
        async for _ in events:
            pass
    with pytest.raises(EngineError, match="killed"):
        await call
    stats = engine.stats()
    assert (stats.alive, stats.loaded) == (False, False)
    assert "is being started again" in stats.problem
    killed_at = time.monotonic()
    assert len(await collect(engine, n=1, prompt_logprobs=None)) > 1
    assert engine.stats().alive
    print(f"again after {time.monotonic() - killed_at:.1f} s")
    assert engine.pid != pid


async def test_it_is_not_started_for_ever(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "MAX_CRASHES", 2)
    monkeypatch.setattr(supervised, "RESTART_PAUSE_S", 0.0)
    engine = start()
    engine._crashes = type(engine._crashes)(maxlen=2)
    for _ in range(2):
        await engine.ready()
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSEGV)
        await until(lambda: not engine.stats().alive)
    with pytest.raises(
        EngineError, match=r"not started again: it ended 2 times within 60 s, the last time with signal 11"
    ):
        await engine.ready()
    stats = engine.stats()
    assert not stats.alive
    assert "not started again" in stats.problem
    with pytest.raises(EngineError, match="not started again"):
        await collect(engine)


async def test_an_adapter_that_kills_its_engine_each_time_is_not_tried_for_ever(
    start: Started, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the engine is started again it gets its adapters back; ends in the middle of that count like any others."""
    monkeypatch.setattr(supervised, "RESTART_PAUSE_S", 0.0)
    engine = start()
    await engine.load_adapter("shop", str(make_adapter(folder, tmp_path / "shop", 1)))
    call = EngineProcess.call

    async def deadly(self: EngineProcess, name: str, *arguments: Any) -> Any:
        if name == "load_adapter":
            os.kill(self.pid, signal.SIGKILL)
        return await call(self, name, *arguments)

    monkeypatch.setattr(EngineProcess, "call", deadly)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: engine._given_up)
    assert "not started again: it ended 3 times" in engine.stats().problem
    assert engines_of(os.getpid()) == []


async def test_hanging_it_is_killed_and_started_again(start: Started) -> None:
    engine = start(hang_s=1.0)
    await engine.ready()
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(2.5)  # longer than hang_s: while nobody waits for it, it may
    assert engine.stats().alive
    assert engine.stats().heartbeat_age_s > 1
    with pytest.raises(EngineError, match="did not move any more"):
        await collect(engine)
    await until(lambda: engine.stats().alive)
    assert engine.pid != pid


async def test_a_crash_while_loading_is_told_with_its_kind(start: Started) -> None:
    def crashing(how: str) -> tuple[str, ...]:
        return (sys.executable, "-c", f"import os; {how}")

    with pytest.raises(EngineError, match=r"crashed while it was loading \(exit code 3\)"):
        await start("a", command=crashing("os._exit(3)")).ready()
    with pytest.raises(EngineError, match="killed while it was loading, as systems do when memory runs out"):
        await start("b", command=crashing("os.kill(os.getpid(), 9)")).ready()
    with pytest.raises(EngineError, match="cannot be started: No such file or directory"):
        await start("c", command=("/no/such/program",)).ready()
    assert not start.engines[0].stats().alive


async def test_a_child_that_talks_nonsense_is_ended(start: Started) -> None:
    program = (
        "import os, socket, sys, time; socket.socket(fileno=int(sys.argv[1])).send(b'HTTP/1.1 200'); time.sleep(60)"
    )
    with pytest.raises(EngineError, match="while it was loading"):
        await start(command=(sys.executable, "-c", program)).ready()


async def test_loading_errors_come_back_as_what_they_were(start: Started, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cuda:7 is not there"):
        await start("a", settings={"device": "cuda:7"}).ready()
    with pytest.raises(UsageError, match="cuda:7"):  # known by now, at once
        await start.engines[0].ready()
    assert "cuda:7" in start.engines[0].stats().problem
    broken = make_model_folder(tmp_path / "broken")
    weights = broken / "model.safetensors"
    engine = start("b", path=broken)
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InvalidModelError, match=r"model\.safetensors"):
        await engine.ready()


async def test_those_who_wait_for_a_model_share_one_start(start: Started) -> None:
    engine = start()
    assert engine.stats().alive
    assert not engine.stats().loaded
    await asyncio.gather(*(collect(engine) for _ in range(5)))
    assert [child.pid for child in engines_of(os.getpid())] == [engine.pid]


async def test_closing_while_it_loads_leaves_nothing(start: Started) -> None:
    engine = start()
    waiting = asyncio.create_task(engine.ready())
    await until(lambda: bool(engines_of(os.getpid())))
    await asyncio.sleep(0.2)
    await engine.close()
    await asyncio.wait({waiting})
    await until(lambda: not engines_of(os.getpid()))


async def test_a_process_that_was_warmed_up_is_the_one_that_is_used_or_is_gone(start: Started) -> None:
    used, unused = start("a"), start("b")
    used.warm_up()
    unused.warm_up()
    (first, _) = [child.pid for child in engines_of(os.getpid())]
    await used.ready()
    assert used.pid == first
    await unused.close()
    assert [child.pid for child in engines_of(os.getpid())] == [first]


PARENT = """
import asyncio, sys
from pathlib import Path
from chatwright.engine.opened import open_model
from chatwright.engine.process.memory import MemoryBudget
from chatwright.engine.process.supervised import in_processes
from chatwright.settings import Settings

async def main():
    settings = Settings(threads=1, device="cpu")
    [model] = in_processes([open_model(Path(sys.argv[1]), "tiny", settings)], settings, MemoryBudget.of(settings))
    waiting = asyncio.create_task(model.engine.ready())
    if sys.argv[2] == "loaded":
        await waiting
    else:
        while model.engine._starting is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
    print("go", "torch" in sys.modules, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize(("when", "stopped"), [("loading", False), ("loaded", False), ("loaded", True)])
def test_no_orphan_is_left_when_the_parent_is_killed(folder: Path, when: str, stopped: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder), when], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "go False\n"
    (child,) = engines_of(parent.pid)
    if stopped:
        child.suspend()
    parent.kill()
    parent.wait()
    # Reaped by init, or by nobody in a container without one.
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "an orphan"
        time.sleep(0.05)
