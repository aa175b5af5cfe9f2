"""A model answers the items of tasks: those that a journal knows are not asked again, the others several at a time."""

from __future__ import annotations

import asyncio
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chatwright.errors import ChatwrightError, EvaluationError
from chatwright.evaluation.backends.protocol import Labeller, Writer
from chatwright.evaluation.examples import Example, Prompt, make_examples
from chatwright.evaluation.journal import Journal
from chatwright.evaluation.library import called
from chatwright.evaluation.recital import RECITED_TOKENS, n_given, rank_of_first
from chatwright.evaluation.task import Task

# Texts that a head labels at a time.
_LABELLED_AT_ONCE = 32
# Candidates of a canary that are asked together; the others wait.
_SCORED_AT_ONCE = 8
Prepared = Sequence[tuple[Task, Sequence[Example]]]


class Progress(Protocol):
    """Told what is done."""

    def begin(self, model: str, task: str, total: int, done: int) -> None:
        """A task begins, or is gone on with."""
        ...

    def advance(self, done: int) -> None:
        """So many items are done."""
        ...


class Silent:
    """Nobody looks."""

    def begin(self, model: str, task: str, total: int, done: int) -> None:
        """See Progress."""

    def advance(self, done: int) -> None:
        """See Progress."""


@dataclass(frozen=True)
class Answered:
    """What a model said to a task; `results` in the order of the examples."""

    task: Task
    examples: Sequence[Example]
    results: Sequence[Mapping[str, Any]]


def prepare(tasks: Sequence[Task]) -> list[tuple[Task, list[Example]]]:
    """Every prompt of every task, before a model is loaded. Raises EvaluationError."""
    return [(task, make_examples(task)) for task in tasks]


async def answer_with_writer(
    writer: Writer, prepared: Prepared, journal: Journal, progress: Progress
) -> list[Answered]:
    """All tasks. Raises EvaluationError for a task that the model cannot do, or where it says something that is no number."""
    check_writer(writer, prepared)
    return [await _ask_all(writer, task, examples, journal, progress) for task, examples in prepared]


def answer_with_labeller(
    labeller: Labeller, prepared: Prepared, journal: Journal, progress: Progress
) -> list[Answered]:
    """All tasks, of kind classify or entities. Raises EvaluationError for others, and for labels that the head does not know."""
    for task, examples in prepared:
        _check_labeller(labeller, task, examples)
    answered = []
    for task, examples in prepared:
        left = [each for each in examples if journal.find(task, labeller.fingerprint, each.key) is None]
        done = len(examples) - len(left)
        progress.begin(labeller.name, task.name, len(examples), done)
        for start in range(0, len(left), _LABELLED_AT_ONCE):
            group = left[start : start + _LABELLED_AT_ONCE]
            texts = [example.text for example in group]
            results: list[dict[str, Any]]
            if task.kind == "classify":
                results = [{"label": label} for label in labeller.classify(texts)]
            else:
                results = [{"found": [list(entity) for entity in found]} for found in labeller.find(texts)]
            for example, result in zip(group, results, strict=True):
                journal.add(task, labeller.fingerprint, example.key, result)
            progress.advance(done := done + len(group))
        answered.append(_collected(labeller.fingerprint, task, examples, journal))
    return answered


def check_writer(writer: Writer, prepared: Prepared) -> None:
    """Raises EvaluationError where the model cannot do one of the tasks at all."""
    check_able(writer.name, writer.chats, writer.room, prepared)


def check_able(name: str, chats: bool, room: int | None, prepared: Prepared) -> None:
    """`check_writer` for a model that is not loaded yet. `room`: tokens of prompt and answer together."""
    for task, examples in prepared:
        if _chats(examples) and not chats:
            raise EvaluationError(
                "The task {task} asks in a chat (chat = true), and {name} has no chat template: it is a base model, which"
                " continues text. Take a task without chat, or a model that chats.",
                task=task.name,
                name=name,
            )
        if task.kind in ("entities", "classify") and not task.prompt:
            raise EvaluationError(
                "The task {task} has no prompt, so only a model with a head can do it (chatwright tune --method classify or"
                " tag); {name} writes text.",
                task=task.name,
                name=name,
            )
    if room is not None:
        _check_room(name, room, prepared)


def _check_room(name: str, room: int, prepared: Prepared) -> None:
    """All tasks whose answers do not fit are named at once, with the others, so that --tasks can be corrected in one go."""
    too_long = {task.name: n for task, examples in prepared if (n := _answer_tokens(task, examples)) >= room}
    if not too_long:
        return
    others = [called(task) for task, _examples in prepared if task.name not in too_long]
    told = {
        "name": name,
        "room": room,
        "tasks": ", ".join(f"{task} ({n})" for task, n in too_long.items()),
    }
    if others:
        raise EvaluationError(
            "{name} holds {room} tokens of prompt and answer together, too few for answers as long as these tasks ask for"
            " (max_tokens): {tasks}. Leave them out, --tasks {others}, or take a model of a longer context.",
            **told,
            others=shlex.quote(",".join(others)),
        )
    raise EvaluationError(
        "{name} holds {room} tokens of prompt and answer together, too few for answers as long as these tasks ask for"
        " (max_tokens): {tasks}. Take tasks of shorter answers, or a model of a longer context.",
        **told,
    )


def _chats(examples: Sequence[Example]) -> bool:
    return any(example.prompt.messages for example in examples)


def _answer_tokens(task: Task, examples: Sequence[Example]) -> int:
    """That a task asks for without minding what room there is."""
    if task.kind == "memorisation":
        return RECITED_TOKENS if _chats(examples) else 0
    return task.max_tokens if task.kind in ("generate", "entities", "instructions") else 0


def _check_labeller(labeller: Labeller, task: Task, examples: Sequence[Example]) -> None:
    wanted = "entities" if labeller.tags else "classify"
    if task.kind != wanted:
        raise EvaluationError(
            "{name} has a head for labels and writes nothing: it can do tasks of kind {kind}, and {task} is of kind {other}.",
            name=labeller.name,
            kind=wanted,
            task=task.name,
            other=task.kind,
        )
    if any(not example.text for example in examples):
        raise EvaluationError("The items of {task} have no field text, which a head reads.", task=task.name)
    known = set(labeller.labels)
    if task.kind == "classify":
        needed = {example.options[example.gold] for example in examples}
    else:
        needed = {label for example in examples for _start, _end, label in example.entities}
    if needed and not needed & known:
        raise EvaluationError(
            "None of the labels of {task} ({wanted}) is one that {name} knows ({known}).",
            task=task.name,
            wanted=", ".join(sorted(needed))[:200],
            name=labeller.name,
            known=", ".join(sorted(known))[:200],
        )


async def _ask_all(
    writer: Writer, task: Task, examples: Sequence[Example], journal: Journal, progress: Progress
) -> Answered:
    left = [each for each in examples if journal.find(task, writer.fingerprint, each.key) is None]
    done = len(examples) - len(left)
    progress.begin(writer.name, task.name, len(examples), done)
    waiting = iter(left)

    async def worker() -> None:
        nonlocal done
        for example in waiting:
            result = await _ask(writer, task, example)
            journal.add(task, writer.fingerprint, example.key, result)
            done += 1
            progress.advance(done)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(writer.concurrency, len(left))):
                group.create_task(worker())
    except ExceptionGroup as failures:
        # Not `except*`: before Python 3.11.4 it wraps what is raised in it once more.
        expected, rest = failures.split(ChatwrightError)
        if expected is None or rest is not None:
            raise
        first: BaseException = expected
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return _collected(writer.fingerprint, task, examples, journal)


def _collected(model: str, task: Task, examples: Sequence[Example], journal: Journal) -> Answered:
    results = []
    for example in examples:
        result = journal.find(task, model, example.key)
        assert result is not None
        results.append(result)
    return Answered(task, examples, results)


async def _ask(writer: Writer, task: Task, example: Example) -> dict[str, Any]:
    result: dict[str, Any]
    match task.kind:
        case "perplexity":
            score = await writer.score_text(example.text)
            result = {"nats": score.nats, "bytes": score.n_bytes, "tokens": score.n_tokens}
            numbers = [score.nats]
        case "choice" | "classify":
            found = await writer.likelihoods(example.prompt, example.choices)
            numbers = [each.logprob for each in found]
            result = {"logprobs": numbers, "tokens": [each.n_tokens for each in found]}
            if cut := max(each.n_cut for each in found):
                result["n_cut"] = cut
        case "bias":
            found = await writer.likelihoods(Prompt(), example.choices)
            numbers = [each.logprob for each in found]
            result = {"logprobs": numbers, "tokens": [each.n_tokens for each in found]}
        case "memorisation" if example.choices:
            numbers = []
            for start in range(0, len(example.choices), _SCORED_AT_ONCE):
                part = example.choices[start : start + _SCORED_AT_ONCE]
                found = await writer.likelihoods(Prompt(), part)
                numbers += [each.logprob for each in found]
            result = {"rank": rank_of_first(numbers), "candidates": len(numbers)}
        case "memorisation" if example.prompt.messages:
            return {"said": await writer.answer(example.prompt, RECITED_TOKENS, ()), "wanted": example.text}
        case "memorisation":
            said, wanted = await writer.recite(example.text, n_given(example.text))
            return {"said": said, "wanted": wanted}
        case "toxicity":
            # Of the item alone, so that a sample of the items gets the same answers.
            seed = int(example.key[:7], 16)
            return {"said": await writer.sample(example.text, task.max_tokens, seed)}
        case _:
            return {"said": await writer.answer(example.prompt, task.max_tokens, task.stop)}
    if task.kind in ("choice", "classify", "bias", "memorisation") and any(each.after_break for each in found):
        result["after_break"] = True
    if any(math.isnan(each) for each in numbers):
        raise EvaluationError(
            "{name} gives item {number} of {task} a probability that is not a number (NaN): its weights are damaged, or the"
            " precision is too low for it: try --quantization fp32 in our engine.",
            name=writer.name,
            number=example.number,
            task=task.name,
        )
    return json.loads(json.dumps(result))  # type: ignore[no-any-return]  # as it will be read from the journal
