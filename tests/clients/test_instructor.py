"""instructor: structured output in each of its ways to ask an OpenAI model, and Anthropic's."""

from __future__ import annotations

from typing import Any

import pytest

instructor = pytest.importorskip(
    "instructor", reason="other projects' clients have an environment of their own: make clients-test"
)

import anthropic
import openai
from pydantic import BaseModel, Field, field_validator

from tests.clients.conftest import MODEL, TOKEN, Api
from tests.clients.shapes import AnyObject, Person

Mode = instructor.Mode
ASKED: list[dict[str, str]] = [{"role": "user", "content": "Ann lives in Paris."}]
# In these the server's grammar holds the model to the form. (In PARALLEL_TOOLS the model may as well answer in words.)
HELD = ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "FUNCTIONS", "RESPONSES_TOOLS"]


class People(BaseModel):
    """Some people."""

    people: list[Person] = Field(max_length=2)


def ask(api: Api, mode: str, response_model: Any, **options: Any) -> Any:
    client = openai.OpenAI(base_url=api.url, api_key=TOKEN, max_retries=0)
    limit = "max_output_tokens" if mode.startswith("RESPONSES") else "max_tokens"
    options = {"model": MODEL, "messages": ASKED, "temperature": 0, "max_retries": 0, limit: 200, **options}
    return instructor.from_openai(client, mode=Mode[mode]).chat.completions.create(
        response_model=response_model, **options
    )


@pytest.mark.parametrize("mode", HELD)
def test_a_form_is_filled_in(api: Api, mode: str) -> None:
    assert isinstance(ask(api, mode, Person), Person)


def test_a_list_is_filled_in(api: Api) -> None:
    assert len(ask(api, "JSON_SCHEMA", People).people) <= 2


@pytest.mark.parametrize("mode", ["JSON", "MD_JSON"])
def test_json_that_is_only_asked_for(api: Api, mode: str) -> None:
    """`json_object`, and no format at all: the server promises an object in the first; what is in it is up to the model."""
    shown = [
        message
        for kind, name in (("cat", "Tom"), ("dog", "Rex"), ("horse", "Max"))
        for message in (
            {"role": "user", "content": f"A {kind} as JSON"},
            {"role": "assistant", "content": f'{{"name": "{name}"}}'},
        )
    ]
    told = ask(api, mode, AnyObject, messages=[*shown, {"role": "user", "content": "A bird as JSON"}], max_retries=2)
    assert isinstance(told, AnyObject)


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])
def test_a_form_comes_in_pieces(api: Api, mode: str) -> None:
    client = instructor.from_openai(openai.OpenAI(base_url=api.url, api_key=TOKEN), mode=Mode[mode])
    pieces = list(
        client.chat.completions.create_partial(
            model=MODEL, messages=ASKED, response_model=Person, temperature=0, max_tokens=200
        )
    )
    assert len(pieces) > 2
    Person.model_validate(pieces[-1].model_dump())


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])
def test_what_was_wrong_is_told_and_asked_again(api: Api, mode: str) -> None:
    """The call that did not do goes back with the complaint as its result."""
    tries: list[str] = []

    class Late(Person):
        """A person."""

        @field_validator("city")
        @classmethod
        def _not_the_first_time(cls, value: str) -> str:
            tries.append(value)
            if len(tries) == 1:
                raise ValueError("once more, please")
            return value

    assert isinstance(ask(api, mode, Late, max_retries=2), Late)
    assert len(tries) == 2


@pytest.mark.parametrize("mode", ["ANTHROPIC_TOOLS"])
def test_anthropics_form(api: Api, mode: str) -> None:
    client = instructor.from_anthropic(
        anthropic.Anthropic(base_url=api.bare, api_key=TOKEN, max_retries=0), mode=Mode[mode]
    )
    told = client.messages.create(model=MODEL, max_tokens=200, messages=ASKED, response_model=Person, max_retries=0)
    assert isinstance(told, Person)
