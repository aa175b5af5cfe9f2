"""Names of OpenAI's models that existing programs ask for. They answer with a served model, under the name asked for."""

from __future__ import annotations

import re

# Instruction-tuned completion models: a plain prompt was an instruction to them, so it goes through the chat template.
INSTRUCT = re.compile(r"text-(davinci|curie|babbage|ada)-\d{3}|gpt-3\.5-turbo-instruct(-\d{4})?|davinci-instruct-beta")
# Completion models that continued text, and chat models (Azure writes gpt-35-turbo).
OTHER = re.compile(
    r"davinci|curie|babbage|ada|(davinci|babbage)-002|code-(davinci|cushman)-\d{3}"
    r"|(gpt-(3\.?5-turbo|4|4o|4\.1|5)|chatgpt-4o|o[134])([-.][a-z0-9.-]+)?"
)

# Embedding models, of today and of 2022.
EMBEDDING = re.compile(
    r"text-embedding-(ada-002|3-small|3-large)"
    r"|(text-similarity|text-search|code-search)-(ada|babbage|curie|davinci)(-(doc|query|code|text))?-\d{3}"
)


def is_instruct(name: str) -> bool:
    """Whether a plain string prompt to this model is an instruction."""
    return INSTRUCT.fullmatch(name) is not None


def is_alias(name: str) -> bool:
    """Whether the name stands for whatever model is served."""
    return is_instruct(name) or OTHER.fullmatch(name) is not None


def is_embedding_alias(name: str) -> bool:
    """Whether the name stands for the encoder that is served."""
    return EMBEDDING.fullmatch(name) is not None
