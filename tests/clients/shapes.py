"""What the libraries are asked to fill in: a form and a tool whose every value the server's grammar can hold a small model to."""

# No `from __future__ import annotations`: LlamaIndex reads the tool's annotations as they stand, without this module's names.
from typing import Any, Literal

from pydantic import BaseModel, Field

QUESTION = "What is the capital of France?"
CITIES = ("Paris", "北京")


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=12)
    city: Literal["Paris", "北京"]


class AnyObject(BaseModel):
    """For forms of asking that only promise some JSON object: which fields it has is up to the model."""

    name: Any = None


def get_weather(city: Literal["Paris", "北京"]) -> str:
    """The weather of a city."""
    return f"rain in {city}"
