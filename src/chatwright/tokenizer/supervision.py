"""Which tokens of a conversation a model is trained to predict: its own answers, exactly as it will have to give them.

Training equals serving: before each answer stand the very ids that the server would have sent for the messages so far, and the
answer ends with the token at which the server stops. Loss on anything else teaches a model to speak for the user, and a prompt
that is cut into other tokens than the server's is the "82 % before export, 0 % after" of this field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatwright.tokenizer.chat import ChatTemplate, Cut, chat_segments
from chatwright.tokenizer.tokenizer import Tokenizer

Message = Mapping[str, Any]
Segments = list[str | int]

# Nobody asks the server for an answer before one of these has spoken: a greeting that opens a conversation is context.
_ASKING = frozenset({"user", "tool", "function"})


@dataclass(frozen=True)
class Supervised:
    """One row of training. `supervised[i]`: token i is to be predicted from those before it."""

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]


@dataclass(frozen=True)
class _Answer:
    """One assistant turn: the ids of its prompt, as served, and of itself, up to the token that ends it."""

    prompt: list[int]
    ids: list[int]


def encode_supervised(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[Supervised]:
    """The rows to train on for one conversation.

    One row with all answers where later prompts begin with the earlier ones and their answers, as with ChatML; else a row
    for each answer that does not continue the row before (Qwen3's template drops the thinking of earlier turns). Answers of
    weight 0, empty ones, and those that no user's message comes before are context only. [] when nothing is left.

    Raises InvalidRequestError where the template does not take the messages.
    """
    turns = _supervised_turns(messages)
    if not turns:
        return []
    given = [{key: value for key, value in message.items() if key != "weight"} for message in messages[: turns[-1] + 1]]
    cuts: list[Cut] = [cut for turn in turns for cut in ((turn, True), (turn + 1, False))]
    rendered = chat_segments(tokenizer, template, given, cuts, tools=tools)
    prompts, wholes = rendered[::2], rendered[1::2]
    rests = []
    for turn, prompt, whole in zip(turns, prompts, wholes, strict=True):
        rest = _rest(whole, prompt)
        if rest is None:
            [history] = chat_segments(tokenizer, template, given, [(turn, False)], tools=tools)
            rest = _rest_of_unlike(whole, prompt, history, given[turn])
        rests.append(_ended(rest, tokenizer, template))
    return _rows(_encoded(tokenizer, prompts, wholes, rests))


def _supervised_turns(messages: Sequence[Message]) -> list[int]:
    turns = []
    asked = False
    for turn, message in enumerate(messages):
        asked = asked or message.get("role") in _ASKING
        if message.get("role") == "assistant" and asked and message.get("weight") != 0 and not _is_empty(message):
            turns.append(turn)
    return turns


def _is_empty(message: Message) -> bool:
    content = message.get("content")
    texts = [content] if isinstance(content, str) else [part.get("text") for part in content or ()]
    return not any(text and not text.isspace() for text in texts) and not message.get("tool_calls")


def _rest(whole: Segments, prompt: Segments) -> Segments | None:
    """What `whole` adds to `prompt`; None when it does not begin with it."""
    if not prompt:
        return list(whole)
    n = len(prompt) - 1
    if len(whole) <= n or whole[:n] != prompt[:n]:
        return None
    last, there = prompt[n], whole[n]
    if last == there:
        return list(whole[n + 1 :])
    if isinstance(last, str) and isinstance(there, str) and there.startswith(last):
        return [there[len(last) :], *whole[n + 1 :]]
    return None


def _rest_of_unlike(whole: Segments, prompt: Segments, history: Segments, message: Message) -> Segments:
    """The answer where the template asks for it in other words than it then reports it, as DeepSeek-R1's, which asks with
    `<think>` and reports without: what `whole` adds to the words that both have in common, if those hold all that went
    before. Else what the message says.
    """
    common: Segments = []
    for ours, theirs in zip(whole, prompt, strict=False):
        if ours != theirs:
            if isinstance(ours, str) and isinstance(theirs, str):
                common.append(_common_start(ours, theirs))
            break
        common.append(ours)
    if _rest(common, history) is not None and (rest := _rest(whole, common)) is not None:
        return rest
    content = message.get("content")
    return [content] if isinstance(content, str) else []


def _common_start(a: str, b: str) -> str:
    n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:n]


def _ended(rest: Segments, tokenizer: Tokenizer, template: ChatTemplate) -> Segments:
    """The answer up to the first token at which the server stops. One is added where the template writes none, in place of
    the blanks that lead to the next turn: else the model would never learn to stop.
    """
    for place, segment in enumerate(rest):
        if isinstance(segment, int) and segment in tokenizer.eos_ids:
            return rest[: place + 1]
    named = tokenizer.special_ids.get(template.special_texts.get("eos_token", ""))
    end = named if named in tokenizer.eos_ids else min(tokenizer.eos_ids, default=None)
    if end is None:
        return rest
    last = rest[-1] if rest else ""
    return [*rest[:-1], last.rstrip(), end] if isinstance(last, str) else [*rest, end]


def _encoded(
    tokenizer: Tokenizer, prompts: list[Segments], wholes: list[Segments], rests: list[Segments]
) -> list[_Answer]:
    """The ids of each prompt as the server encodes it, and those of each answer as they stand in later prompts; where the
    last of the prompt and the first of the answer would become one token there, those of the answer by itself, since a
    model gives it token by token behind a prompt that is already cut.
    """
    asked = tokenizer.encode_prompts(prompts)
    joined = tokenizer.encode_prompts(wholes)
    answers = []
    for prompt, whole, rest in zip(asked, joined, rests, strict=True):
        end = rest[-1] if rest else None
        if whole[: len(prompt)] == prompt and isinstance(end, int) and end in whole[len(prompt) :]:
            answers.append(_Answer(prompt, whole[len(prompt) : whole.index(end, len(prompt)) + 1]))
        else:
            [ids] = tokenizer.encode_prompts([rest], continuing=True)
            answers.append(_Answer(prompt, ids))
    return answers


def _rows(answers: list[_Answer]) -> list[Supervised]:
    """Answers joined into one row as long as each prompt begins with all of the row before it."""
    rows: list[tuple[list[int], list[bool]]] = []
    for answer in answers:
        prompt = answer.prompt
        if rows and prompt[: len(rows[-1][0])] == rows[-1][0]:
            ids, supervised = rows[-1]
            n_new = len(prompt) - len(ids)
            ids += prompt[len(ids) :]
        else:
            n_new = len(prompt)
            rows.append((list(prompt), []))
            ids, supervised = rows[-1]
        supervised += [False] * n_new + [True] * len(answer.ids)
        ids += answer.ids
    return [Supervised(tuple(ids), tuple(supervised)) for ids, supervised in rows]
