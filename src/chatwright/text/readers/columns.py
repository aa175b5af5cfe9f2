"""Names under which people keep text, questions, answers and labels, and reading such a field."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from chatwright.text.manifest import Kind
from chatwright.text.readers.unit import Refused
from chatwright.text.reasons import Detail

TEXT = (
    "text", "content", "body", "document", "article", "passage", "paragraphs", "paragraph", "sentence", "review", "comment",
    "raw_content", "markdown", "code", "story", "正文", "内容", "文本", "文章", "评论", "句子", "文字", "內容", "文章內容",
)  # fmt: skip
PROMPT = (
    "prompt",
    "question",
    "query",
    "instruction",
    "input",
    "q",
    "ask",
    "user",
    "问题",
    "提问",
    "问",
    "問題",
    "问句",
    "指令",
)
ANSWER = (
    "completion", "answer", "response", "output", "reply", "a", "assistant", "target", "answers",
    "答案", "回答", "答", "回复", "答复", "輸出", "输出",
)  # fmt: skip
LABEL = ("label", "labels", "sentiment", "intent", "标签", "标注", "情感", "標籤")
# Labels only where there is little else: many corpora carry a category beside their text.
WEAK_LABEL = (
    "category",
    "class",
    "topic",
    "target",
    "tag",
    "rating",
    "stars",
    "polarity",
    "类别",
    "分类",
    "類別",
    "主题",
    "意图",
)
TURNS = ("dialog", "dialogue", "utterances", "turns", "对话")
NUMBERING = {"id", "idx", "index", "_id", "uid", "guid", "", "unnamed: 0", "序号", "编号"}

_MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class Shaped:
    """What a row says, and in which shape it says it."""

    kind: Kind
    payload: dict[str, Any]
    detected: str
    left_out: tuple[str, ...] = ()  # sentences about parts that were not taken over


def listed(names: Iterable[object]) -> str:
    """The names of columns, for a sentence."""
    shown = [str(name).strip()[:40] for name in names]
    return ", ".join(shown[:_MOST_LISTED]) + (", …" if len(shown) > _MOST_LISTED else "")


def has_text(value: Any) -> bool:
    """Whether a field holds more than blanks, numbers (also written as text) and lists of them."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return bool(value.strip())
        return False
    if isinstance(value, list):
        return any(map(has_text, value[:_MOST_LISTED]))
    if isinstance(value, dict):
        return any(map(has_text, value.values()))
    return False


def find_column(row: Container[Any], names: Sequence[str]) -> str | None:
    """The first of the names that the row has."""
    for name in names:
        if name in row:
            return name
    return None


def text_of(value: Any, name: str) -> str:
    """A field that is text, or a list of paragraphs. Raises Refused."""
    if isinstance(value, str):
        text = value
    elif value is None:
        text = ""
    elif isinstance(value, list) and all(isinstance(part, str) for part in value):
        text = "\n".join(value)
    else:
        raise Refused("not text", Detail("the field {name} is {type}", name=name[:40], type=type_of(value)))
    if not text.strip():
        raise Refused("empty text", Detail("the field {name} is empty", name=name[:40]))
    return text


def type_of(value: Any) -> Detail:
    """A value's type, as JSON calls it."""
    if isinstance(value, bool):
        return Detail("true or false")
    if isinstance(value, int | float):
        return Detail("a number")
    if value is None:
        return Detail("nothing")
    if isinstance(value, dict):
        return Detail("an object")
    if isinstance(value, list):
        return Detail("a list")
    return Detail("text") if isinstance(value, str) else Detail("binary")
