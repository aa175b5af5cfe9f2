"""Instructions whose fulfilment a program can check: a kind of constraint, filled in for many topics."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from task_makers.templates import read_rows

Item = dict[str, Any]
Check = dict[str, Any]
Made = tuple[str, list[Check]]
PER_KIND = 10


def check(kind: str, value: Any) -> Check:
    return {"kind": kind, "value": value}


def instructions(language: str, rng: random.Random) -> list[Item]:
    rows = read_rows("instruction-topics.txt", 4)
    topics = [(en, word) if language == "en" else (zh, word_zh) for en, word, zh, word_zh in rows]
    items: dict[str, Item] = {}
    for number, make in enumerate((english if language == "en" else chinese)()):
        for topic, word in rng.sample(topics, PER_KIND):
            other = rng.choice([w for t, w in topics if t != topic])
            prompt, checks = make(topic, word, other, rng.randint(0, 1000))
            items.setdefault(prompt, {"prompt": prompt, "checks": checks, "group": number})
    shuffled = list(items.values())
    rng.shuffle(shuffled)
    return shuffled


# Each maker: (topic, a word that fits it, another word, a number to vary with) → (prompt, checks)
Maker = Callable[[str, str, str, int], Made]


def english() -> list[Maker]:
    names = ["Anna", "Mr Brown", "the library", "my landlord", "the team"]
    openings = ["Once", "In my opinion", "First of all", "To be honest", "Long ago", "Nobody knows"]
    endings = ["That is all.", "Have a nice day!", "Thank you for reading.", "And so it goes.", "The end."]
    keys = [
        ["title", "summary"],
        ["name", "age"],
        ["question", "answer"],
        ["topic", "pros", "cons"],
        ["word", "language"],
    ]
    return [
        lambda t, w, o, k: (
            f"Write about {t} in at most {15 + k % 6 * 5} words.",
            [check("max_words", 15 + k % 6 * 5)],
        ),
        lambda t, w, o, k: (
            f"Write a text about {t}. It must have at least {40 + k % 5 * 10} words.",
            [check("min_words", 40 + k % 5 * 10)],
        ),
        lambda t, w, o, k: (f"Write exactly {2 + k % 3} sentences about {t}.", [check("n_sentences", 2 + k % 3)]),
        lambda t, w, o, k: (f'Write a short paragraph about {t} that contains the word "{w}".', [check("contains", w)]),
        lambda t, w, o, k: (
            f'Make up a story about {t} in which both "{w}" and "{o}" appear.',
            [check("contains", w), check("contains", o)],
        ),
        lambda t, w, o, k: (
            f'Write three sentences about {t} without the word "{w}".',
            [check("not_contains", w), check("n_sentences", 3)],
        ),
        lambda t, w, o, k: (
            f'Write about {t}. Begin your answer with "{openings[k % 6]}".',
            [check("starts_with", openings[k % 6])],
        ),
        lambda t, w, o, k: (
            f'Write a message about {t}. End it with exactly these words: "{endings[k % 5]}"',
            [check("ends_with", endings[k % 5])],
        ),
        lambda t, w, o, k: (
            f"Write a poem about {t} with exactly {3 + k % 4} lines and no title.",
            [check("n_lines", 3 + k % 4)],
        ),
        lambda t, w, o, k: (
            f"Give {3 + k % 3} tips about {t} as a numbered list (1., 2., …), one tip a line, and nothing else.",
            [check("n_lines", 3 + k % 3), check("regex", r"^\s*1\."), check("regex", rf"\n\s*{3 + k % 3}\.")],
        ),
        lambda t, w, o, k: (
            f"Answer with JSON only: an object about {t} with the keys "
            + " and ".join(f'"{key}"' for key in keys[k % 5])
            + ".",
            [check("json", keys[k % 5])],
        ),
        lambda t, w, o, k: (f"Write two sentences about {t} in Chinese.", [check("language", "zh")]),
        lambda t, w, o, k: (
            f"Write one sentence about {t} that contains a year of four digits.",
            [check("regex", r"(?<!\d)\d{4}(?!\d)"), check("n_sentences", 1)],
        ),
        lambda t, w, o, k: (
            f"Write an invitation to an event about {t}. Give the date in the form YYYY-MM-DD.",
            [check("regex", r"\b\d{4}-\d{2}-\d{2}\b")],
        ),
        lambda t, w, o, k: (
            f"Ask {names[k % 5]} a question about {t}. Write only the question, in at most 20 words.",
            [check("ends_with", "?"), check("max_words", 20)],
        ),
        lambda t, w, o, k: (
            f"Write a sentence about {t} without any comma, of at least ten words.",
            [check("regex", r"^[^,]*$"), check("min_words", 10)],
        ),
        lambda t, w, o, k: (
            f"Write about {t} in small letters only: no capital letter may appear.",
            [check("regex", r"^[^A-Z]*$"), check("min_words", 5)],
        ),
        lambda t, w, o, k: (
            f"Write a slogan about {t} in CAPITAL LETTERS only, of at most 12 words.",
            [check("regex", r"^[^a-z]*[A-Z][^a-z]*$"), check("max_words", 12)],
        ),
        lambda t, w, o, k: (
            f'Use the word "{w}" at least three times in a text about {t}.',
            [check("regex", rf"(?is)\b{w}\b.*\b{w}\b.*\b{w}\b")],
        ),
        lambda t, w, o, k: (
            f"Write a text about {t} with a title in double angle brackets, such as <<My title>>.",
            [check("regex", r"<<[^<>\n]+>>"), check("min_words", 15)],
        ),
        lambda t, w, o, k: (
            f'Which word comes to mind first when you think of {t}? Answer with one word only, not "{o}".',
            [check("max_words", 1), check("not_contains", o)],
        ),
        lambda t, w, o, k: (
            f'Describe {t} in one paragraph. Start with "{openings[k % 6]}", mention "{w}", and stay under 60 words.',
            [check("starts_with", openings[k % 6]), check("contains", w), check("max_words", 59), check("n_lines", 1)],
        ),
    ]


def chinese() -> list[Maker]:
    names = ["小王", "李老师", "房东", "图书馆", "全队队员"]
    openings = ["从前", "在我看来", "首先", "说实话", "很久以前", "谁也不知道"]
    endings = ["就是这样。", "祝你愉快！", "感谢阅读。", "故事讲完了。", "明天再见。"]
    keys = [["标题", "摘要"], ["姓名", "年龄"], ["问题", "答案"], ["主题", "优点", "缺点"], ["词语", "语言"]]
    digits = "零一二三四五六七八九"
    return [
        lambda t, w, o, k: (
            f"以“{t}”为题写一段话，不超过{30 + k % 6 * 10}个字。",
            [check("max_words", 30 + k % 6 * 10)],
        ),
        lambda t, w, o, k: (
            f"写一篇关于“{t}”的短文，不少于{60 + k % 5 * 20}个字。",
            [check("min_words", 60 + k % 5 * 20)],
        ),
        lambda t, w, o, k: (
            f"围绕“{t}”正好写{digits[2 + k % 3]}句话，每句都用句号结束。",
            [check("n_sentences", 2 + k % 3)],
        ),
        lambda t, w, o, k: (f"写一小段关于“{t}”的话，其中必须出现“{w}”这个词。", [check("contains", w)]),
        lambda t, w, o, k: (
            f"编一个关于“{t}”的小故事，“{w}”和“{o}”都要出现。",
            [check("contains", w), check("contains", o)],
        ),
        lambda t, w, o, k: (
            f"写三句关于“{t}”的话，不许出现“{w}”。",
            [check("not_contains", w), check("n_sentences", 3)],
        ),
        lambda t, w, o, k: (f"谈谈“{t}”。请用“{openings[k % 6]}”开头。", [check("starts_with", openings[k % 6])]),
        lambda t, w, o, k: (
            f"写一条关于“{t}”的消息，最后必须是这几个字：{endings[k % 5]}",
            [check("ends_with", endings[k % 5])],
        ),
        lambda t, w, o, k: (
            f"写一首关于“{t}”的小诗，正好{digits[3 + k % 4]}行，不要标题。",
            [check("n_lines", 3 + k % 4)],
        ),
        lambda t, w, o, k: (
            f"就“{t}”给出{digits[3 + k % 3]}条建议，用1. 2. 这样的编号，每条一行，不写别的内容。",
            [check("n_lines", 3 + k % 3), check("regex", r"^\s*1[.．、]"), check("regex", rf"\n\s*{3 + k % 3}[.．、]")],
        ),
        lambda t, w, o, k: (
            f"只用JSON回答：写一个关于“{t}”的对象，包含" + "、".join(f"“{key}”" for key in keys[k % 5]) + "这几个键。",
            [check("json", keys[k % 5])],
        ),
        lambda t, w, o, k: (f"用英语写两句关于“{t}”的话。", [check("language", "en")]),
        lambda t, w, o, k: (
            f"写一句关于“{t}”的话，里面要有一个四位数的年份。",
            [check("regex", r"(?<!\d)\d{4}(?!\d)"), check("n_sentences", 1)],
        ),
        lambda t, w, o, k: (
            f"写一份以“{t}”为主题的活动邀请，日期用YYYY-MM-DD的格式。",
            [check("regex", r"(?<!\d)\d{4}-\d{2}-\d{2}(?!\d)")],
        ),
        lambda t, w, o, k: (
            f"就“{t}”向{names[k % 5]}提一个问题。只写问题，用问号结束，不超过30个字。",
            [check("regex", r"[？?]\s*$"), check("max_words", 30)],
        ),
        lambda t, w, o, k: (
            f"写一段关于“{t}”的话，不许用逗号，至少20个字。",
            [check("regex", r"^[^,，]*$"), check("min_words", 20)],
        ),
        lambda t, w, o, k: (
            f"写一段关于“{t}”的话，不许出现任何数字和字母，至少15个字。",
            [check("regex", r"^[^0-9A-Za-z]*$"), check("min_words", 15), check("language", "zh")],
        ),
        lambda t, w, o, k: (
            f"给“{t}”写一条口号，必须用感叹号结束，不超过16个字。",
            [check("regex", r"[！!]\s*$"), check("max_words", 16)],
        ),
        lambda t, w, o, k: (f"写一段关于“{t}”的文字，“{w}”至少要用三次。", [check("regex", rf"(?s){w}.*{w}.*{w}")]),
        lambda t, w, o, k: (
            f"写一段关于“{t}”的文字，第一行是写在书名号里的标题，例如《我的标题》。",
            [check("regex", r"^\s*《[^《》\n]+》"), check("min_words", 20)],
        ),
        lambda t, w, o, k: (
            f"提到“{t}”，你首先想到哪个词？只回答一个词，不超过四个字，不能是“{o}”。",
            [check("max_words", 4), check("not_contains", o)],
        ),
        lambda t, w, o, k: (
            f"用一段话描写“{t}”：以“{openings[k % 6]}”开头，提到“{w}”，不超过80个字，不要换行。",
            [check("starts_with", openings[k % 6]), check("contains", w), check("max_words", 80), check("n_lines", 1)],
        ),
    ]
