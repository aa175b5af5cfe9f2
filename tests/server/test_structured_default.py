"""The default model, served as a user serves it, keeps to schemas and calls tools for the official client."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from chatwright.settings import Settings
from tests.serving import Server

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]
MODEL = Settings().default_model


class Event(BaseModel):
    """Bounded, as a small model does not always come to an end by itself."""

    name: str = Field(max_length=40)
    day: Literal["Monday", "Friday"]
    people: list[Annotated[str, Field(max_length=20)]] = Field(max_length=3)


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def client(default_server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{default_server.url}/v1", api_key="any", max_retries=0)


def test_parse_gives_objects_of_the_class(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Alice and Bob go to a science fair on Friday. Extract the event."}]
    for seed in range(3):
        completion = client.beta.chat.completions.parse(
            model=MODEL, messages=messages, response_format=Event, seed=seed, max_tokens=400, temperature=0.3
        )
        assert isinstance(completion.choices[0].message.parsed, Event)
    with client.beta.chat.completions.stream(
        model=MODEL, messages=messages, response_format=Event, seed=0, max_tokens=400, temperature=0.3
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Event)


def test_a_tool_is_called_and_its_result_is_read(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    completion = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], tool_choice="required", temperature=0, max_tokens=200
    )
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    messages.append(choice.message.model_dump(exclude_none=True))
    for call in choice.message.tool_calls:
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert isinstance(json.loads(call.function.arguments)["city"], str)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "12 °C and rain"})
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], temperature=0, max_tokens=60
    )
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_auto_answers_or_calls(client: openai.OpenAI) -> None:
    for question in ("Say hello.", "Call get_weather for Rome."):
        completion = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            tools=[WEATHER],
            n=4,
            seed=1,
            max_tokens=80,
        )
        for choice in completion.choices:
            assert choice.message.content or choice.message.tool_calls
            if choice.finish_reason == "tool_calls":
                assert choice.message.tool_calls
                for call in choice.message.tool_calls:
                    assert call.type == "function"
                    json.loads(call.function.arguments)


def test_sixteen_at_once_are_all_of_the_schema(client: openai.OpenAI) -> None:
    def ask(seed: int) -> Event | None:
        completion = client.chat.completions.parse(
            model=MODEL,
            messages=[{"role": "user", "content": f"Invent event number {seed} with two people."}],
            response_format=Event,
            seed=seed,
            temperature=0.5,
            max_tokens=300,
        )
        return completion.choices[0].message.parsed

    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        events = list(pool.map(ask, range(16)))
    assert all(isinstance(event, Event) for event in events)
    assert time.monotonic() - started < 300
