"""The conversations of the PyPI package chatterbot-corpus (BSD), which people wrote, as files for `chatwright prepare`.

    python -m examples.chatterbot FOLDER [--topics coding tech_support]

English has about 2,000 exchanges, Chinese about 470, many of them several times: `prepare` drops those. Nothing is downloaded:
install the package by name first, `pip install chatterbot-corpus`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

LANGUAGES = {"en": "english", "zh": "chinese"}


def corpus() -> Path:
    """The folder of the installed corpus, found without importing it."""
    found = importlib.util.find_spec("chatterbot_corpus")
    if found is None or found.origin is None:
        sys.exit("chatterbot-corpus is not installed: pip install chatterbot-corpus")
    return Path(found.origin).parent / "data"


def conversations(file: Path) -> Iterator[dict[str, Any]]:
    """OpenAI messages, user and assistant in turn; lines without an answer are left out."""
    for turns in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
        said = [str(turn).strip() for turn in turns if turn is not None and str(turn).strip()]
        said = said[: len(said) // 2 * 2]
        if said:
            roles = ("user", "assistant") * (len(said) // 2)
            yield {"messages": [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]}


def write(folder: Path, topics: Sequence[str] = ()) -> int:
    """Write FOLDER/LANGUAGE/TOPIC.jsonl; returns the number of conversations."""
    n_rows = 0
    for language, name in LANGUAGES.items():
        (folder / language).mkdir(parents=True)
        for file in sorted((corpus() / name).glob("*.yml")):
            if topics and file.stem not in topics:
                continue
            rows = list(conversations(file))
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / language / f"{file.stem}.jsonl").write_text("".join(lines), encoding="utf-8")
            n_rows += len(rows)
    return n_rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.chatterbot", description="Conversations of chatterbot-corpus."
    )
    parser.add_argument("folder", type=Path, help="the folder to make")
    parser.add_argument(
        "--topics", nargs="+", default=(), metavar="TOPIC", help="only these, such as coding or tech_support"
    )
    chosen = parser.parse_args(arguments)
    if chosen.folder.exists():
        sys.exit(f"{chosen.folder} exists already: remove it, or name another folder.")
    print(f"{write(chosen.folder, chosen.topics)} conversations in {chosen.folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
