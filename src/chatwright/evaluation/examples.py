"""Items become examples: the prompt as a model gets it (few-shot examples and chat included), and what it is scored against.

A prompt of text is `shot⏎⏎shot⏎⏎question`, each shot its question, the delimiter and its answer, as lm-evaluation-harness
writes it. The delimiter stands between a question and an answer: a blank for English, nothing for Chinese or where the
question ends in white space, unless the task says otherwise. In a chat, shots are turns of their own and there is no
delimiter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chatwright.errors import EvaluationError
from chatwright.evaluation.instructions import check_specification
from chatwright.evaluation.labels import Entity
from chatwright.evaluation.task import Fields, Task
from chatwright.i18n import _

SHOT_SEPARATOR = "\n\n"
Message = Mapping[str, str]


@dataclass(frozen=True)
class Prompt:
    """Text to be continued, or with `messages` a conversation to be answered."""

    text: str = ""
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Example:
    """One item of a task. `text`: what is scored whole, labelled or searched for entities; `choices` are continuations as
    they are scored (delimiter included), `options` as they were written; `gold`: place of the right one. `label`: the
    axis of a pair, the group that an opening names, the part of a dataset that a document is of.
    """

    key: str
    number: int
    prompt: Prompt = Prompt()
    text: str = ""
    choices: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    gold: int = -1
    references: tuple[str, ...] = ()
    entities: tuple[Entity, ...] = ()
    checks: tuple[Mapping[str, Any], ...] = ()
    label: str = ""


def make_examples(task: Task) -> list[Example]:
    """An example for each item. Raises EvaluationError, naming the item."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    # Chinese text in `tojson` stays text.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": False}
    return [_Maker(task, environment).example(number, item) for number, item in enumerate(task.items, 1)]


def memorisation_example(key: str, number: int, item: Fields) -> Example:
    """Of an item that `recital` made: a canary, a conversation, or the beginning of a document."""
    label = str(item["part"])
    if "candidates" in item:
        return Example(key, number, choices=tuple(item["candidates"]), options=tuple(item["candidates"]), label=label)
    if "messages" in item:
        return Example(key, number, Prompt(messages=tuple(item["messages"])), text=item["text"], label=label)
    return Example(key, number, text=item["text"], label=label)


class _Maker:
    def __init__(self, task: Task, environment: ImmutableSandboxedEnvironment) -> None:
        self.task, self.environment = task, environment

    def example(self, number: int, item: Fields) -> Example:
        task, key = self.task, self.task.key(item)
        match task.kind:
            case "perplexity":
                text = self.render(task.prompt, item, number) if task.prompt else self.string(item, "text", number)
                if not text:
                    raise self.wrong(number, _("its text is empty"))
                return Example(key, number, text=text)
            case "choice" | "classify":
                return self.choice(key, number, item)
            case "generate":
                return Example(key, number, self.prompt(item, number), references=self.references(item, number))
            case "entities":
                text = self.string(item, "text", number)
                prompt = self.prompt(item, number) if task.prompt else Prompt()
                return Example(key, number, prompt, text, entities=self.entities(item, text, number))
            case "bias":
                pair = self.filled(item, "more", number), self.filled(item, "less", number)
                if pair[0] == pair[1]:
                    raise self.wrong(number, _("both sentences are the same"))
                return Example(key, number, choices=pair, options=pair, label=self.filled(item, "axis", number))
            case "toxicity":
                text = self.filled(item, "prompt", number)
                return Example(key, number, text=text, label=str(item.get(task.group) or ""))
            case "memorisation":
                return memorisation_example(key, number, item)
        checks = item["checks"]
        if not isinstance(checks, list) or not checks:
            raise self.wrong(number, _("checks must be a list of at least one check"))
        for check in checks:
            if reason := check_specification(check):
                raise self.wrong(number, reason)
        return Example(key, number, self.prompt(item, number), checks=tuple(checks))

    def choice(self, key: str, number: int, item: Fields) -> Example:
        options, gold = self.options(item, number)
        text = item.get("text", "")
        if not self.task.prompt and self.task.kind == "classify":  # a tuned head reads the text itself
            return Example(key, number, text=self.string(item, "text", number), options=options, gold=gold)
        prompt = self.prompt(item, number)
        delimiter = self.delimiter(prompt)
        return Example(
            key,
            number,
            prompt,
            text=text if isinstance(text, str) else "",
            choices=tuple(delimiter + option for option in options),
            options=options,
            gold=gold,
        )

    def options(self, item: Fields, number: int) -> tuple[tuple[str, ...], int]:
        task = self.task
        listed = list(task.labels) or self.value(task.choices, item, number)
        if not isinstance(listed, list) or len(listed) < 2 or not all(isinstance(o, str) and o for o in listed):
            raise self.wrong(number, _("choices must be a list of at least two texts, none of them empty"))
        if len(set(listed)) != len(listed):
            raise self.wrong(number, _("a choice is there twice"))
        answer = self.value(task.answer, item, number)
        if isinstance(answer, str) and answer in listed:
            return tuple(listed), listed.index(answer)
        if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(listed):
            return tuple(listed), answer
        raise EvaluationError(
            "{path}: the answer of item {number}, {answer}, is not among its choices: {choices}.",
            path=task.path,
            number=number,
            answer=repr(answer)[:100],
            choices=", ".join(map(repr, listed))[:300],
        )

    def references(self, item: Fields, number: int) -> tuple[str, ...]:
        answer = self.value(self.task.answer, item, number)
        listed = answer if isinstance(answer, list) else [answer]
        if not listed or not all(isinstance(each, str | int | float) for each in listed):
            raise self.wrong(number, _("its answer must be a text or a list of texts"))
        return tuple(str(each) for each in listed)

    def entities(self, item: Fields, text: str, number: int) -> tuple[Entity, ...]:
        found = []
        if not isinstance(item["entities"], list):
            raise self.wrong(number, _("its field {name} must be a list", name="entities"))
        for each in item["entities"]:
            try:
                start, end, label = each["start"], each["end"], str(each["label"])
            except (TypeError, KeyError) as error:
                raise self.wrong(number, _("an entity has start, end and label")) from error
            if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
                raise self.wrong(number, _("an entity lies outside the text"))
            found.append((start, end, label))
        return tuple(sorted(found))

    def prompt(self, item: Fields, number: int) -> Prompt:
        task = self.task
        template = task.prompt or ("" if task.kind == "choice" else "{{ prompt }}")
        question = self.render(template, item, number)
        if not question and (task.kind != "choice" or task.prompt):
            raise self.wrong(number, _("its prompt is empty"))
        shots = [(self.render(template, shot, 0), self.target(shot)) for shot in task.shots]
        if task.chat:
            messages = [{"role": "system", "content": task.system}] if task.system else []
            for asked, said in shots:
                messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
            return Prompt(messages=(*messages, {"role": "user", "content": question}))
        parts = [asked + self.delimiter(Prompt(asked)) + said for asked, said in shots]
        text = SHOT_SEPARATOR.join([*parts, question])
        return Prompt(f"{task.system}{SHOT_SEPARATOR}{text}" if task.system else text)

    def target(self, shot: Fields) -> str:
        """The answer that an example shows."""
        match self.task.kind:
            case "choice" | "classify":
                options, gold = self.options(shot, 0)
                return options[gold]
            case "entities":
                text = self.string(shot, "text", 0)
                named = dict.fromkeys(text[start:end] for start, end, _label in self.entities(shot, text, 0))
                return json.dumps(list(named), ensure_ascii=False)
        return self.references(shot, 0)[0]

    def delimiter(self, prompt: Prompt) -> str:
        if prompt.messages:
            return ""
        if self.task.delimiter is not None:
            return self.task.delimiter
        blank = self.task.language != "zh" and prompt.text and not prompt.text[-1].isspace()
        return " " if blank else ""

    def string(self, item: Fields, name: str, number: int) -> str:
        value = item.get(name)
        if not isinstance(value, str):
            raise self.wrong(number, _("its field {name} must be a text", name=name))
        return value

    def filled(self, item: Fields, name: str, number: int) -> str:
        value = self.string(item, name, number)
        if not value.strip():
            raise self.wrong(number, _("its field {name} is empty", name=name))
        return value

    def render(self, template: str, item: Fields, number: int) -> str:
        try:
            return self.environment.from_string(template).render(item)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise EvaluationError(
                "{path}: the template {source!r} does not fit item {number}: {reason}",
                path=self.task.path,
                source=template[:100],
                number=number,
                reason=error,
            ) from error

    def value(self, template: str, item: Fields, number: int) -> Any:
        """What a field holds: `{{ expression }}` alone keeps its type, anything else is text."""
        inner = template.strip()
        if inner.startswith("{{") and inner.endswith("}}") and inner.count("{{") == 1:
            try:
                return self.environment.compile_expression(inner[2:-2].strip(), undefined_to_none=False)(**item)
            except (TemplateError, TypeError, ValueError, ArithmeticError):
                pass
        return self.render(template, item, number)

    def wrong(self, number: int, reason: str) -> EvaluationError:
        if number == 0:
            return EvaluationError(
                "{path}: an example from {file} cannot be used: {reason}.",
                path=self.task.path,
                file=self.task.settings["shots_from"],
                reason=reason,
            )
        return EvaluationError(
            "{path}: item {number} cannot be used: {reason}.", path=self.task.path, number=number, reason=reason
        )
