"""Multiple choice: facts, common sense, vocabulary, idioms, and pairs of an acceptable and an unacceptable sentence."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from babel import Locale
from babel.core import get_global

from task_makers.packages import wordnet_file
from task_makers.templates import Filling, read_lines, read_lists, read_rows

Item = dict[str, Any]
WITH_ARTICLE = {"AE", "BS", "GB", "PH", "US"}
# Two currencies at a time, or a change of currency in these years.
UNCLEAR_CURRENCY = {"BG", "BT", "HR", "NA", "PA", "VE", "ZW"}
# What an item of WordNet is about decides which other words may stand beside it.
LEXICOGRAPHER_FILES = {
    "05": "animal", "06": "artifact", "08": "body", "13": "food", "15": "place", "18": "person", "20": "plant", "27": "substance",
}  # fmt: skip


def shuffled(rng: random.Random, items: list[Item]) -> list[Item]:
    """Items in random order whose right answers stand at each place equally often."""
    items = list(items)
    rng.shuffle(items)
    n = max(len(item["choices"]) for item in items)
    places = [i % n for i in range(len(items))]
    rng.shuffle(places)
    for item, place in zip(items, places, strict=True):
        right, *wrong = item["choices"]
        rng.shuffle(wrong)
        item["choices"] = [*wrong[:place], right, *wrong[place:]]
        item["answer"] = place
    return items


def common_sense(language: str, rng: random.Random) -> list[Item]:
    rows = read_rows(f"common-sense.{language}.txt", 5)
    return shuffled(rng, [{"text": start, "choices": ends} for start, *ends in rows])


def facts(language: str, rng: random.Random) -> list[Item]:
    """Hand-written questions, capitals (hand-written) and currencies (CLDR) of countries."""
    items = [{"question": question, "choices": answers} for question, *answers in read_rows(f"facts.{language}.txt", 5)]
    locale = Locale.parse("zh_Hans_CN" if language == "zh" else "en")
    countries = {row[0]: row[1:] for row in read_rows("countries.txt", 5)}
    place = 3 if language == "zh" else 2
    article = "the " if language == "en" else ""
    name = {code: (article if code in WITH_ARTICLE else "") + locale.territories[code] for code in countries}
    for code in rng.sample(sorted(countries), 75 if language == "zh" else 90):
        near = [c for c, row in countries.items() if row[0] == countries[code][0] and c != code]
        near += [] if len(near) >= 3 else [c for c in countries if countries[c][0] == "Asia"]
        wrong = [countries[c][place] for c in rng.sample(near, 3)]
        question = f"{name[code]}的首都是哪里？" if language == "zh" else f"What is the capital of {name[code]}?"
        items.append({"question": question, "choices": [countries[code][place], *wrong]})
    units = currency_units(locale, sorted(countries))
    for code in rng.sample(sorted(units), min(50, len(units))):
        wrong = rng.sample([unit for unit in sorted(set(units.values())) if unit != units[code]], 3)
        question = (
            f"{name[code]}的货币叫什么？" if language == "zh" else f"What is the currency of {name[code]} called?"
        )
        items.append({"question": question, "choices": [units[code], *wrong]})
    return shuffled(rng, items)


def currency_units(locale: Locale, codes: list[str]) -> dict[str, str]:
    """Country → its currency without the country's name, which would give it away: shilling, kip, 先令."""
    units = {}
    for code in codes:
        currency = current_currency(code)
        name, country = locale.currencies[currency], locale.territories[code]
        if currency == "EUR" or code in UNCLEAR_CURRENCY:
            continue
        if locale.language == "en":
            units[code] = name.split()[-1].lower()
        elif name.startswith(country) and name != f"{country}尼":  # 阿富汗尼 falls apart
            units[code] = name.removeprefix(country)
    return units


def current_currency(code: str) -> str:
    """The currency that is legal tender today (CLDR)."""
    return next(str(entry[0]) for entry in get_global("territory_currencies")[code] if entry[2] is None and entry[3])


def chengyu(_language: str, rng: random.Random) -> list[Item]:
    """Which idiom has this meaning? The wrong ones are meanings of other items."""
    rows = read_rows("chengyu.txt", 2)
    idioms = [idiom for idiom, _meaning in rows]
    alike = [set(line.split()) for line in read_lines("chengyu-alike.txt")]
    items = []
    for idiom, meaning in rows:
        near = set().union(*(group for group in alike if idiom in group))
        wrong = rng.sample([each for each in idioms if each != idiom and each not in near], 3)
        items.append({"meaning": meaning, "choices": [idiom, *wrong]})
    return shuffled(rng, items)


def vocabulary(_language: str, rng: random.Random, wordnet: Path) -> list[Item]:
    """Which noun does WordNet define so? Common nouns in their first sense; the wrong ones are of the same kind of thing."""
    dropped = set(" ".join(read_lines("vocabulary-dropped.txt")).split())
    counts: dict[str, int] = {}
    for line in wordnet_file(wordnet, "cntlist.rev"):
        sense, number, count = line.split()
        if number == "1":
            counts[sense] = int(count)
    first: dict[str, str] = {}
    for line in wordnet_file(wordnet, "index.noun"):
        if not line.startswith(" "):
            lemma, _pos, _n_senses, n_pointers, *rest = line.split()
            first[lemma] = rest[int(n_pointers) + 2]
    entries: dict[str, tuple[str, str, str]] = {}  # word → (kind, definition, synset)
    above: dict[str, list[str]] = {}  # synset → its hypernyms
    for line in wordnet_file(wordnet, "data.noun"):
        if line.startswith(" "):
            continue
        data, _, gloss = line.partition(" | ")
        offset, kind, _type, n_words, *rest = data.split()
        words = [rest[2 * i] for i in range(int(n_words, 16))]
        pointers = rest[2 * int(n_words, 16) + 1 :]
        above[offset] = [pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")]
        definition = gloss.split(";")[0].split(":")[0].strip()
        usable = [word for word in words if word.isascii() and word.isalpha() and word.islower() and len(word) > 3]
        known = [word for word in usable if first.get(word) == offset and counts.get(f"{word}%1:{kind}:00::", 0) >= 5]
        if known and kind in LEXICOGRAPHER_FILES and fits(definition, words) and not dropped & set(words):
            entries[known[0]] = kind, definition, offset

    def family(synset: str) -> set[str]:
        found = {synset}
        for parent in above[synset]:
            found |= family(parent)
        return found

    families = {word: family(synset) for word, (_kind, _definition, synset) in entries.items()}
    items = []
    for word in rng.sample(sorted(entries), min(240, len(entries))):
        kind, definition, synset = entries[word]
        others = [
            other
            for other, (other_kind, other_definition, other_synset) in sorted(entries.items())
            if other_kind == kind
            and other_synset not in families[word]
            and synset not in families[other]
            and not set(above[synset]) & set(above[other_synset])
            and other not in definition.split()
            and overlap(definition, other_definition) < 0.5
        ]
        items.append({"definition": definition, "choices": [word, *rng.sample(others, 3)]})
    return shuffled(rng, items)


def overlap(definition: str, other: str) -> float:
    """Share of the longer words of a definition that another one has, too."""
    words = {word for word in definition.split() if len(word) > 3}
    return len(words & set(other.split())) / max(1, len(words))


def fits(definition: str, words: list[str]) -> bool:
    """A definition of some length that does not give the word away and needs no context."""
    text = definition.lower()
    stems = [word.lower().replace("_", " ")[: max(4, len(word) - 2)] for word in words]
    return (
        5 <= len(text.split()) <= 16 and text.isascii() and not any(stem in text for stem in stems) and "(" not in text
    )


def acceptability(language: str, rng: random.Random) -> list[Item]:
    """Pairs from templates, each phenomenon equally often or nearly so."""
    lists = read_lists(language)
    lines = [[cell.strip() for cell in line.split(" | ")] for line in read_lines(f"acceptability.{language}.txt")]
    items: dict[tuple[str, str], Item] = {}
    while len(items) < 7 * len(lines):
        for phenomenon, good, bad in lines:
            filling = Filling(rng, lists)
            filling.bind(good)
            filling.bind(bad)
            pair = filling.fill(good)[0], filling.fill(bad)[0]
            items.setdefault(pair, {"phenomenon": phenomenon, "choices": list(pair)})
    return shuffled(rng, list(items.values()))
