"""Which encoding bytes are in, and decoding them: UTF-8 first, then what the bytes themselves make likely.

Exact rules before guesses: a BOM, then strict UTF-8, then (NULs) UTF-16 and UTF-32, then the legacy encoding whose decoded
characters are most often common characters of a language that used it. When a text as a whole is not in one encoding, every
line is decided on its own. What nothing explains becomes U+FFFD and is counted.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

SAMPLE_BYTES = 64 << 10

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PUNCTUATION = "，。、：；？！「」『』（）《》【】“”‘’…—·　"
_CHINESE = set(
    "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家十用发天如然作方成者"
    "多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从知全两样应现最新点文明手前第间问很打工已正实本长动把开意想"
    "她它吗呢吧啊什怎谁哪为因让给被比更再水气民情老头话美关机力电高名内外系物体使度理性重四五六七八九百千万元月份们请谢喜欢爱语言"
)
_TRADITIONAL = set(
    "的一是不了人我在有他這為之大來以個中上們到說國和地也子時道出而要於就下得可你年生自會那後能對著事其裡所去行過家十用發天如然作方成者"
    "多日都三小軍二無同麼經法當起與好看學進種將還分此心前面又定見只主沒公從知全兩樣應現最新點文明手第間問很打工已正實本長動把開意想"
    "她它嗎呢吧啊什怎誰哪因讓給被比更再水氣民情老頭話美關機力電高名內外系物體使度理性重四五六七八九百千萬元月份請謝喜歡愛語言"
)
_KANA = {chr(code) for code in (*range(0x3041, 0x3097), *range(0x30A1, 0x30FD))}
_HANGUL = set(
    "이다는을를에의가은하고지기로도한사나서어리자시아니라그대해인것들있을일수게만보제정부으면과와까요합습입무당신저를여모전주상장동물세"
    "네구야거안우원선생각말때더내많오용문학교음성조비방계경치중국미소개좋람러스터트드"
)
# The encodings that are tried, with the characters that speak for each.
_WIDE = {"utf-16-le", "utf-16-be"}
_COMMON: dict[str, frozenset[str]] = {
    "gb18030": frozenset(_CHINESE | _TRADITIONAL | set(_PUNCTUATION)),
    "big5": frozenset(_TRADITIONAL | set(_PUNCTUATION)),
    "cp932": frozenset(_KANA | set("、。「」・ー的一人日本大年出上会中国")),
    "euc_jp": frozenset(_KANA | set("、。「」・ー的一人日本大年出上会中国")),
    "cp949": frozenset(_HANGUL),
}
_ANY_COMMON = frozenset().union(*_COMMON.values())
# Western and Cyrillic letters are judged as bytes: of one byte each, they fit anything that is not looked at closely.
_WESTERN = re.compile(rb"(?<![\x80-\xff])[\x80\x85\x91-\x97\x99\xa0-\xff]{1,2}(?![\x80-\xff])")
_CYRILLIC = {"cp1251": re.compile(rb"[\xe0-\xff\xb8]"), "koi8_r": re.compile(rb"[\xc0-\xdf\xa3]")}
_HIGH_BYTES = bytes(range(0x80, 0x100))
_LONE = re.compile(rb"[A-Za-z][\x80-\xff](?![\x80-\xff])")
_PAIRED = re.compile(rb"[\x80-\xff]{2}")
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_ENOUGH = 0.1


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, the encoding it was in, and how much of it no encoding explained."""

    text: str
    encoding: str = "utf-8"
    n_undecodable: int = 0


def wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by its BOM or by its shape; None for everything else. `head`: the first bytes of a file."""
    for bom, name in _BOMS:
        if head.startswith(bom):
            return None if name == "utf-8" else name
    if b"\0" not in head and (_is_utf8(head) or len(head) < 16):
        return None
    sample = head[: min(len(head), SAMPLE_BYTES) // 4 * 4]
    if not sample:
        return None
    if sample.count(0) * 2 >= len(sample):
        for name, high, top in (("utf-32-le", 2, 3), ("utf-32-be", 1, 0)):
            if not any(sample[top::4]) and max(sample[high::4]) <= 0x10:
                return name
    likely = max(sorted(_WIDE), key=lambda name: _wide_score(sample, name))
    return likely if _wide_score(sample, likely) >= 0.5 else None


def _wide_score(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "replace")
    good = sum(char in _ANY_COMMON or " " <= char <= "~" or char in "\t\r\n" for char in text)
    bad = sum(char == "\ufffd" or char < "\t" for char in text)
    return (good - 5 * bad) / len(text)


def is_binary(head: bytes) -> bool:
    """Whether these first bytes are no text in any encoding."""
    if wide_encoding(head):
        return False
    sample = head[:SAMPLE_BYTES]
    return len(_NOT_TEXT.findall(sample)) > len(sample) // 50


class TextDecoder:
    """Decodes the pieces of one file, which it knows by its first bytes."""

    def __init__(self, head: bytes) -> None:
        self.legacy = None if _is_utf8(head) else _legacy_of_foreign_lines(head)
        # Two bytes of GB18030 are often valid UTF-8 of an unusual alphabet: in a file that is not UTF-8, they are GB18030.
        self._odd_is_legacy = self.legacy not in (None, "cp1252")

    def decode(self, data: bytes) -> Decoded:
        """`data` as text; NULs are dropped and counted. UTF-16 and UTF-32 are not seen here (see `Piece.blocks`)."""
        data = data.removeprefix(codecs.BOM_UTF8)
        n_nul = data.count(0)
        if n_nul:
            data = data.replace(b"\0", b"")
        try:
            return Decoded(data.decode(), "utf-8", n_nul)
        except UnicodeDecodeError:
            decoded = self._by_line(data)
        return Decoded(decoded.text, decoded.encoding, decoded.n_undecodable + n_nul) if n_nul else decoded

    def _by_line(self, data: bytes) -> Decoded:
        """Every line in UTF-8, in the file's legacy encoding, or in the one that the line itself makes likely."""
        if self.legacy is None:
            self.legacy = _legacy_of_foreign_lines(data)
        parts: list[str] = []
        encodings: set[str] = set()
        n_undecodable = 0
        for line in data.split(b"\n"):
            decoded = self._line(line)
            parts.append(decoded.text)
            n_undecodable += decoded.n_undecodable
            if not line.isascii():
                encodings.add(decoded.encoding)
        return Decoded("\n".join(parts), "+".join(sorted(encodings)), n_undecodable)

    def _line(self, line: bytes) -> Decoded:
        if (text := _decoded(line, "utf-8")) is not None:
            if text.isascii() or not self._odd_is_legacy or any(char >= "\u0800" for char in text):
                return Decoded(text)
        elif _is_damaged_utf8(line):
            return _replaced(line, "utf-8")
        if self.legacy in _COMMON and _has_lone_accents(line) and score(line, self.legacy) < _ENOUGH:
            return _replaced(line, "cp1252")
        if self.legacy is not None and (text := _decoded(line, self.legacy)) is not None:
            return Decoded(text, self.legacy)
        own = likely_legacy(line)
        if (text := _decoded(line, own)) is not None:
            return Decoded(text, own)
        # Damaged: in whichever encoding the damage is smallest.
        damaged = [_replaced(line, encoding) for encoding in ("utf-8", self.legacy or own, own)]
        return min(damaged, key=lambda decoded: decoded.n_undecodable)


def _legacy_of_foreign_lines(data: bytes) -> str | None:
    """The likeliest encoding of the lines that are not UTF-8; None where there are none."""
    foreign = [line for line in data.split(b"\n") if not _is_utf8(line) and not _is_damaged_utf8(line)]
    return likely_legacy(b"\n".join(foreign)) if foreign else None


def likely_legacy(sample: bytes) -> str:
    """The likeliest encoding of bytes that are not UTF-8; cp1252 where nothing speaks for another."""
    sample = sample[:SAMPLE_BYTES]
    scores = {encoding: score(sample, encoding) for encoding in (*_COMMON, *_CYRILLIC, "cp1252")}
    best = max(scores, key=lambda encoding: scores[encoding])
    return best if scores[best] >= _ENOUGH else "cp1252"


def score(sample: bytes, encoding: str) -> float:
    """Which share of the characters outside ASCII are common ones (0 to 1)."""
    n_high = len(sample) - len(sample.translate(None, _HIGH_BYTES))
    if n_high == 0:
        return 0.0
    if encoding == "cp1252":
        return 0.9 * sum(map(len, _WESTERN.findall(sample))) / n_high
    if encoding in _CYRILLIC:
        return 0.6 * len(_CYRILLIC[encoding].findall(sample)) / n_high
    text = sample.decode(encoding, "replace")
    foreign = [char for char in text if char > "\x7f"]
    n_bad = text.count("\ufffd")
    if n_bad > 1 + len(foreign) // 20:
        return 0.0
    return sum(char in _COMMON[encoding] for char in foreign) / max(1, len(foreign))


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _replaced(data: bytes, encoding: str) -> Decoded:
    text = data.decode(encoding, "replace")
    return Decoded(text, encoding, text.count("\ufffd"))


def _is_damaged_utf8(data: bytes) -> bool:
    """Whether most of what is not ASCII is valid UTF-8 all the same; other encodings hardly ever look so."""
    text = data.decode("utf-8", "replace")
    n_bad = text.count("\ufffd")
    n_good = len(text) - len(data.translate(None, _HIGH_BYTES)) - n_bad
    return n_good >= 3 * n_bad


def _has_lone_accents(line: bytes) -> bool:
    """Whether it looks like Latin text with accents, each of which GB18030 or Big5 would take for half a character."""
    n_high = len(line) - len(line.translate(None, _HIGH_BYTES))
    return n_high * 6 < len(line) and bool(_LONE.search(line)) and not _PAIRED.search(line)


def _is_utf8(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # a character that `data` cuts at its end is no error
    except UnicodeDecodeError:
        return False
    return True
