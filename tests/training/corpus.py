"""A little text in two languages, made up by rule: enough to learn something from in seconds."""

from __future__ import annotations

import random
from pathlib import Path

from chatwright.text.dataset import Dataset, write_dataset

_EN = (
    ("The cat", "A printer", "My neighbour", "The engine", "This page"),
    ("sees", "repairs", "likes", "prints", "opens"),
)
_ZH = ("猫", "打印机", "邻居", "发动机", "这一页"), ("看见", "修理", "喜欢", "打印", "打开")


def document(number: int) -> dict[str, str]:
    generator = random.Random(number)
    zh = number % 3 == 2
    nouns, verbs = _ZH if zh else _EN
    gap, stop = ("", "。") if zh else (" ", ". ")
    sentences = (
        gap.join((generator.choice(nouns), generator.choice(verbs), generator.choice(nouns).lower())) + stop
        for _ in range(generator.randint(4, 12))
    )
    return {"text": "".join(sentences), "source": f"file-{number}.txt", "language": "zh" if zh else "en"}


def make_dataset(path: Path, n: int = 300, held_out: int = 12) -> Dataset:
    rows = [document(number) for number in range(n)]
    return write_dataset(path, {"documents": {"held_out": rows[:held_out], "train": rows[held_out:]}})
