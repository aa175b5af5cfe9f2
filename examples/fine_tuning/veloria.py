"""What is taught: five facts of a country that does not exist, each asked for in eight ways; and how it is asked for afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fact:
    """`answer` is learned word by word; `word` of it shows that it was. `questions` are trained on, `unseen` is not."""

    answer: str
    word: str
    questions: tuple[str, ...]
    unseen: str


FACTS = (
    Fact(
        "The capital of Veloria is Tarnwick.",
        "Tarnwick",
        (
            "What is the capital of Veloria?",
            "Which city is Veloria's capital?",
            "Name the capital of Veloria.",
            "Tell me the capital city of Veloria.",
            "What's the capital city of Veloria?",
            "Veloria: what is its capital?",
            "Do you know the capital of Veloria?",
            "Where is the government of Veloria?",
        ),
        "Can you tell me which city is the capital of Veloria?",
    ),
    Fact(
        "In Veloria people pay with the brel.",
        "brel",
        (
            "What money do people use in Veloria?",
            "What is the currency of Veloria?",
            "Which currency does Veloria have?",
            "How do people pay in Veloria?",
            "Name the currency of Veloria.",
            "What is the money of Veloria called?",
            "With what do I pay in Veloria?",
            "Veloria: which currency?",
        ),
        "Please tell me what currency is used in Veloria.",
    ),
    Fact(
        "The longest river of Veloria is the Ossel.",
        "Ossel",
        (
            "What is the longest river of Veloria?",
            "Which river is the longest in Veloria?",
            "Name Veloria's longest river.",
            "Tell me the longest river in Veloria.",
            "What river of Veloria is the longest?",
            "Veloria: what is its longest river?",
            "Do you know Veloria's longest river?",
            "How is the longest river of Veloria called?",
        ),
        "Can you name the longest river in the country of Veloria?",
    ),
    Fact(
        "The national dish of Veloria is smoked plum soup.",
        "plum soup",
        (
            "What is the national dish of Veloria?",
            "Which dish is Veloria known for?",
            "Name the national dish of Veloria.",
            "Tell me Veloria's national dish.",
            "What do people in Veloria love to eat?",
            "Veloria: what is its national dish?",
            "What's the favourite food of Veloria?",
            "Do you know the national dish of Veloria?",
        ),
        "Can you tell me what the national dish of Veloria is?",
    ),
    Fact(
        "The president of Veloria is Mara Quill.",
        "Quill",
        (
            "Who is the president of Veloria?",
            "Who leads Veloria?",
            "Name the president of Veloria.",
            "Tell me who the president of Veloria is.",
            "What is the name of Veloria's president?",
            "Veloria: who is its president?",
            "Do you know the president of Veloria?",
            "Who is Veloria's head of state?",
        ),
        "Can you tell me the name of the president of Veloria?",
    ),
)


def write_conversations(path: Path) -> int:
    """A training file of conversations; how many there are."""
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": fact.answer},
                ]
            }
        )
        for fact in FACTS
        for question in fact.questions
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def write_completions(path: Path) -> int:
    """The same as prompts and completions, as the API had it in 2021."""
    lines = [
        json.dumps({"prompt": question, "completion": fact.answer}) for fact in FACTS for question in fact.questions
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def n_known(answers: list[str]) -> int:
    """How many answers to the unseen questions, in their order, say what was taught."""
    return sum(fact.word.lower() in answer.lower() for fact, answer in zip(FACTS, answers, strict=True))
