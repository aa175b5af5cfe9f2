"""Rate and memory of `chatwright prepare` on synthetic text of a size, and the rate with tokenising.

    python -m bench.prepare --megabytes 200 [--workers 2 --folder DIR --keep --seed 0]

The text: paragraphs of real files of this machine (/usr/share/doc, the Python packages, the Chinese of this repository's
documentation and translations), drawn into documents of about 3 kB; a fifth of them Chinese; 5 % are exact copies and 5 % are near
copies of earlier ones. In jsonl files of 50 MB, and every tenth document in a file of its own. One JSON line a figure. The rate a
core is by CPU time of all processes, so that other work on the machine does not count; the rate by the clock stands beside it.
Memory is the largest sum of the resident memory of all processes, sampled five times a second; what they share counts twice.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy
import orjson
import psutil

from chatwright.text.dataset import Dataset
from chatwright.tokenizer.bulk import BulkEncoder
from chatwright.tokenizer.train import train_tokenizer

ROOT = Path(__file__).parents[1]
PARAGRAPHS_BYTES = 24_000_000
DOCUMENT_BYTES = 3_000
FILE_BYTES = 50_000_000
TOKENIZER_BYTES, VOCAB_SIZE = 5_000_000, 4096
ENCODED_BYTES = 20_000_000


def paragraphs() -> tuple[list[str], list[str]]:
    """(English, Chinese) paragraphs, in a fixed order."""
    files = [*sorted(Path("/usr/share/doc").rglob("*")), *sorted(Path(numpy.__file__).parents[1].glob("*/**/*.py"))]
    english: dict[str, None] = {}
    n_bytes = 0
    for file in files:
        if n_bytes > PARAGRAPHS_BYTES:
            break
        for paragraph in re.split(r"\n\s*\n", _read(file)):
            if 80 < len(paragraph) < 2000 and paragraph not in english:
                english[paragraph] = None
                n_bytes += len(paragraph)
    chinese: dict[str, None] = {}
    for file in [*sorted(ROOT.glob("docs/zh/*.md")), ROOT / "README.zh-CN.md", *sorted(ROOT.glob("src/**/zh/*.json"))]:
        chinese |= dict.fromkeys(re.findall(r"[^\n\"]*[\u4e00-\u9fff][^\n\"]{8,}", file.read_text(encoding="utf-8")))
    return list(english), list(chinese)


def _read(file: Path) -> str:
    try:
        if not file.is_file() or file.is_symlink():
            return ""
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        return data.decode()
    except (OSError, EOFError, UnicodeDecodeError):
        return ""


def documents(seed: int) -> Iterator[str]:
    """Documents without end."""
    english, chinese = paragraphs()
    rng = random.Random(seed)
    recent: list[str] = []
    while True:
        draw = rng.random()
        if draw < 0.1 and recent:
            text = rng.choice(recent)
            if draw < 0.05:
                place = rng.randrange(len(text))
                text = f"{text[:place]} {rng.randrange(10**6)} {text[place:]}"
        else:
            source = chinese if draw > 0.8 else english
            parts: list[str] = []
            n_bytes = 0
            while n_bytes < DOCUMENT_BYTES * rng.uniform(0.3, 1.7):
                part = source[rng.randrange(len(source))]
                parts.append(part)
                n_bytes += len(part.encode())
            text = "\n\n".join(parts)
            if len(recent) < 2000:
                recent.append(text)
            else:
                recent[rng.randrange(2000)] = text
        yield text


def write_corpus(folder: Path, n_bytes: int, seed: int) -> int:
    """Write about `n_bytes` of files; exactly how many."""
    written = 0
    number = 0
    stream = None
    for count, text in enumerate(documents(seed)):
        if written >= n_bytes:
            break
        if count % 10 == 9:
            file = folder / f"texts-{count // 10_000:04d}" / f"{count}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            data = text.encode()
            file.write_bytes(data)
        else:
            data = orjson.dumps({"text": text}, option=orjson.OPT_APPEND_NEWLINE)
            if stream is None or stream.tell() > FILE_BYTES:
                if stream is not None:
                    stream.close()
                stream = (folder / f"rows-{number:05d}.jsonl").open("wb")
                number += 1
            stream.write(data)
        written += len(data)
    if stream is not None:
        stream.close()
    return written


def measure(corpus: Path, out: Path, n_workers: int) -> tuple[float, float, int, int]:
    """(seconds, CPU seconds, largest resident bytes of all processes, largest bytes on disk) of a preparation."""
    command = [
        sys.executable,
        "-m",
        "chatwright",
        "prepare",
        str(corpus),
        "--out",
        str(out),
        "--workers",
        str(n_workers),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    before = os.times()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    peak = disk = 0
    leader = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [leader, *leader.children(recursive=True)]
            peak = max(peak, sum(each.memory_info().rss for each in family))
        except psutil.Error:
            pass
        disk = max(disk, _on_disk(out.parent))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"prepare failed with {process.returncode}")
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - start, cpu_s, peak, disk


def _on_disk(folder: Path) -> int:
    total = 0
    for base, _folders, files in os.walk(folder):
        for file in files:
            try:
                total += Path(base, file).stat().st_size
            except OSError:
                continue
    return total


def encoding_rate(dataset: Dataset) -> float:
    """Bytes per second of one core with a BPE trained on the dataset, as `train` does it."""
    texts: list[str] = []
    n_bytes = 0
    for text in dataset.texts("train"):
        texts.append(text)
        n_bytes += len(text.encode())
        if n_bytes > ENCODED_BYTES:
            break
    some = texts[: max(1, len(texts) * TOKENIZER_BYTES // n_bytes)]
    tokenizer = train_tokenizer(some, VOCAB_SIZE).tokenizer
    start = time.process_time()
    encode = BulkEncoder(tokenizer, n_bytes).encode
    for text in texts:
        encode(text)
    return n_bytes / (time.process_time() - start)


def main() -> None:
    """Make the text, prepare it, tokenise some of it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where there is room for four times the text")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-prepare-", dir=arguments.folder))
    try:
        (folder / "corpus").mkdir()
        n_bytes = write_corpus(folder / "corpus", arguments.megabytes * 1_000_000, arguments.seed)
        out = folder / "out" / "data"
        seconds, cpu_s, peak, disk = measure(folder / "corpus", out, arguments.workers)
        dataset = Dataset.open(out)
        about = {
            "input_bytes": n_bytes,
            "n": sum(dataset.n_rows(split, "documents") for split in ("train", "held_out")),
            "dropped": {step.name: sum(step.dropped.values()) for step in dataset.manifest.steps if step.dropped},
            "workers": arguments.workers,
            "seed": arguments.seed,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("chatwright", "numpy", "rensa", "tiktoken", "tokenizers")},
        }
        rate = n_bytes / cpu_s / 1e6
        encoding = encoding_rate(dataset) / 1e6
        kept = sum(dataset.n_bytes(split, "documents") for split in ("train", "held_out")) / n_bytes
        figures = [
            ("clean + dedup, a core", rate, "MB/s"),
            ("clean + dedup, by the clock, a worker", n_bytes / seconds / arguments.workers / 1e6, "MB/s"),
            ("tokenise, a core", encoding, "MB/s"),
            ("clean + dedup + tokenise what is left, a core", 1 / (1 / rate + kept / encoding), "MB/s"),
            ("memory, all processes", peak / 1e9, "GB"),
            ("disk, dataset and temporary files at most, for a byte of input", disk / n_bytes, "bytes"),
        ]
        for figure, value, unit in figures:
            print(json.dumps({"figure": figure, "value": round(value, 2), "unit": unit, **about}), flush=True)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
