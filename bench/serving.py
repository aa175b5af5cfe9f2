"""What the server costs beside its engine: CPU time of both a generated token, their memory, and how long starting takes.

Runs `chatwright serve` with the default model as a user does, and reads chat streams through bare sockets from a third process, so
that the client's own work is nobody's. One JSON line a figure: median and range over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from bench.figures import report

N_STREAMS = 16
CHILD = "chatwright.engine.process.child"


@contextmanager
def serving(model: str) -> Iterator[tuple[psutil.Process, psutil.Process, int, float]]:
    """(server, engine, port, seconds from the command until it is ready) of a server on a free port."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "chatwright", "serve", model, "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    port, said = 0, ""
    for line in process.stderr:
        said += line
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            port = int(found[1])
            break
    seconds = time.perf_counter() - start
    if not port:
        raise SystemExit(said)
    try:
        server = psutil.Process(process.pid)
        (engine,) = [child for child in server.children() if CHILD in child.cmdline()]
        yield server, engine, port, seconds
    finally:
        process.terminate()
        process.communicate()


async def stream(port: int, model: str, number: int, n_tokens: int) -> int:
    """One streamed answer; how many tokens it had, by the server's own count."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Tell me a long story about the number {number}."}],
        "max_tokens": n_tokens,
        "temperature": 0.8,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sent = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Connection: close\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
    received = bytearray()
    while piece := await reader.read(65536):
        received += piece
    writer.close()
    (counted,) = re.findall(rb'"completion_tokens":(\d+)', received)
    return int(counted)


async def streams(port: int, model: str, n_tokens: int) -> int:
    """Sixteen at once; tokens of all."""
    return sum(await asyncio.gather(*(stream(port, model, number, n_tokens) for number in range(N_STREAMS))))


def read(port: int, model: str, n_tokens: int) -> tuple[int, float]:
    """`streams` in a process of its own; tokens, and the seconds without that process' start."""
    arguments = [
        sys.executable,
        "-m",
        "bench.serving",
        "--client",
        str(port),
        "--tokens",
        str(n_tokens),
        "--model",
        model,
    ]
    said = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
    return int(said[0]), float(said[1])


def cpu_s(process: psutil.Process) -> float:
    """User and system time so far."""
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    """Measure, or be the client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--client", type=int, help="internal: the port to read from")
    arguments = parser.parse_args()
    if arguments.client:
        began = time.perf_counter()
        print(asyncio.run(streams(arguments.client, arguments.model, arguments.tokens)), time.perf_counter() - began)
        return
    shares, ours, engines, rates, starts = [], [], [], [], []
    for _ in range(arguments.rounds):
        with serving(arguments.model) as (server, engine, port, seconds):
            starts.append(seconds)
            read(port, arguments.model, 4)
            before = cpu_s(server), cpu_s(engine)
            n_tokens, seconds = read(port, arguments.model, arguments.tokens)
            rates.append(n_tokens / seconds)
            ours.append((cpu_s(server) - before[0]) / n_tokens * 1e6)
            engines.append((cpu_s(engine) - before[1]) / n_tokens * 1e6)
            shares.append(ours[-1] / engines[-1])
            memory = {"server": server.memory_info().rss, "engine": engine.memory_info().rss}
    for figure, values, unit in (
        ("server CPU a token, 16 streams", ours, "µs"),
        ("engine CPU a token, 16 streams", engines, "µs"),
        ("server CPU as a share of the engine's", shares, "ratio"),
        ("16 streams in total through the server", rates, "tokens/s"),
        ("`chatwright serve` until it answers", starts, "s"),
    ):
        spread = {"min": round(min(values), 3), "max": round(max(values), 3), "n": len(values)}
        report(figure, round(statistics.median(values), 3), unit, model=arguments.model, **spread)
    for which, n_bytes in memory.items():
        report(f"memory of the {which} process", round(n_bytes / 1e6), "MB", model=arguments.model)


if __name__ == "__main__":
    main()
