"""LangChain's OpenAI classes, in both of their modes, and its Anthropic class."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "langchain_openai", reason="other projects' clients have an environment of their own: make clients-test"
)

import openai
from langchain_anthropic import ChatAnthropic
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

from tests.clients.conftest import MODEL, TOKEN, Api
from tests.clients.shapes import CITIES, QUESTION, AnyObject, Person, get_weather

MESSAGES = [SystemMessage("Be short."), HumanMessage(QUESTION)]


def chat_openai(api: Api, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{"model": MODEL, "base_url": api.url, "api_key": TOKEN, "temperature": 0, "max_tokens": 30, "max_retries": 0}
        | options
    )


@pytest.fixture(params=["chat", "responses"])
def chat(request: pytest.FixtureRequest, api: Api) -> ChatOpenAI:
    """The chat class over chat completions, and over responses."""
    return chat_openai(api, use_responses_api=request.param == "responses")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One event loop for all tests: LangChain keeps its asynchronous connections beyond a loop's end."""
    with asyncio.Runner() as runner:
        yield runner


def joined(chunks: Any) -> Any:
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    return whole


def check_calls(message: AIMessage) -> None:
    assert not message.invalid_tool_calls
    [call] = message.tool_calls
    assert call["name"] == "get_weather"
    assert call["args"]["city"] in CITIES
    assert call["id"]


# --- ChatOpenAI


def test_it_answers_and_counts(chat: ChatOpenAI) -> None:
    answer = chat.invoke(MESSAGES)
    assert answer.text
    usage = answer.usage_metadata
    assert usage is not None
    assert 0 < usage["output_tokens"] <= 30
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert answer.response_metadata["model_name"] == MODEL
    assert answer.response_metadata["id"] if chat.use_responses_api else answer.id


def test_a_stream_says_the_same(chat: ChatOpenAI) -> None:
    whole = chat.invoke(MESSAGES)
    streamed = joined(chat.stream(MESSAGES, stream_usage=True) if not chat.use_responses_api else chat.stream(MESSAGES))
    assert streamed.text == whole.text
    assert streamed.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


def test_many_at_once(chat: ChatOpenAI, loop: asyncio.Runner) -> None:
    alone = chat.invoke(MESSAGES).text

    async def ask() -> tuple[list[Any], Any]:
        answers = await chat.abatch([MESSAGES] * 3)
        return answers, joined([chunk async for chunk in chat.astream(MESSAGES)])

    answers, streamed = loop.run(ask())
    assert [answer.text for answer in answers] == [alone] * 3
    assert streamed.text == alone


def test_openais_names_work(api: Api) -> None:
    for name in ("gpt-4o-mini", "gpt-5-nano", "o3-mini"):  # what LangChain sends depends on the name
        answer = ChatOpenAI(model=name, base_url=api.url, api_key=TOKEN, max_tokens=5, max_retries=0).invoke(MESSAGES)
        assert answer.response_metadata["model_name"] == name
    assert "Paris" not in chat_openai(api).invoke(MESSAGES, stop=["Paris"]).text


def test_probabilities(api: Api) -> None:
    answer = chat_openai(api).bind(logprobs=True, top_logprobs=2).invoke(MESSAGES)
    told = answer.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in told) == answer.text
    assert all(len(token["top_logprobs"]) == 2 for token in told)
    assert len(chat_openai(api, n=2, temperature=1).generate([MESSAGES]).generations[0]) == 2


def test_tools_are_called_and_their_results_read(chat: ChatOpenAI) -> None:
    asking = chat.bind_tools([get_weather], tool_choice="any", strict=True, parallel_tool_calls=False)
    called = asking.invoke("Weather in Paris?")
    check_calls(called)
    check_calls(joined(asking.stream("Weather in Paris?")))
    check_calls(chat.bind_tools([get_weather], tool_choice="get_weather").invoke("Weather in Paris?"))
    results = [ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"]) for call in called.tool_calls]
    history = [HumanMessage("Weather in Paris?"), called, *results]
    assert chat.bind_tools([get_weather], tool_choice="none").invoke(history).text
    with pytest.raises(openai.BadRequestError, match=r"[Nn]o (tool )?call|answers no"):
        chat.invoke([HumanMessage("Weather?"), ToolMessage("rain", tool_call_id="call_nowhere")])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat: ChatOpenAI, method: Any) -> None:
    asking = chat.with_structured_output(Person, method=method, include_raw=True)
    told = asking.invoke("Ann lives in Paris.", max_tokens=200)
    assert told["parsing_error"] is None
    assert isinstance(told["parsed"], Person)
    streamed = list(chat.with_structured_output(Person, method=method).stream("Ann lives in Paris.", max_tokens=200))
    assert isinstance(streamed[-1], Person)


def test_json_mode(chat: ChatOpenAI) -> None:
    """It promises no more than some object, so the model is shown that one with a name is wanted."""
    shown: list[Any] = []
    for kind, name in (("cat", "Tom"), ("dog", "Rex"), ("horse", "Max")):
        shown += [HumanMessage(f"A {kind} as JSON"), AIMessage(f'{{"name": "{name}"}}')]
    asking = chat.with_structured_output(AnyObject, method="json_mode")
    assert isinstance(asking.invoke([*shown, HumanMessage("A bird as JSON")], max_tokens=100), AnyObject)


def test_responses_go_on_where_they_were(api: Api) -> None:
    chat = chat_openai(api, use_responses_api=True)
    first = chat.invoke("My name is Ann.")
    second = chat.invoke("Who am I?", previous_response_id=first.response_metadata["id"])
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]
    by_itself = chat_openai(api, use_responses_api=True, use_previous_response_id=True)
    history = [HumanMessage("My name is Ann."), first, HumanMessage("Who am I?")]
    assert by_itself.invoke(history).text == second.text == chat.invoke(history).text
    alone = chat_openai(api, use_responses_api=True, store=False, include=["reasoning.encrypted_content"])
    assert alone.invoke("Hello").text
    assert chat_openai(api, use_responses_api=True, output_version="v1").invoke("Hello").content_blocks[0]["text"]


def test_errors_are_those_that_programs_catch(chat: ChatOpenAI) -> None:
    with pytest.raises(ContextOverflowError):
        chat.invoke("word " * 9000)
    with pytest.raises(openai.NotFoundError):
        chat.bind(model="nobody").invoke("Hello")
    with pytest.raises(openai.BadRequestError):
        chat.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}])])


# --- OpenAI, OpenAIEmbeddings


def test_completions(api: Api) -> None:
    llm = OpenAI(model=MODEL, base_url=api.url, api_key=TOKEN, temperature=0, max_tokens=8, max_retries=0)
    text = llm.invoke("The capital of France is")
    assert text
    assert "".join(llm.stream("The capital of France is")) == text
    told = llm.generate(["The capital of France is", "One, two,"])
    assert told.generations[0][0].text == text
    assert told.llm_output is not None
    assert told.llm_output["token_usage"]["completion_tokens"] == 16
    best = OpenAI(model=MODEL, base_url=api.url, api_key=TOKEN, n=2, best_of=3, max_tokens=4).generate(["Once"])
    assert len(best.generations[0]) == 2


def test_vectors(api: Api, loop: asyncio.Runner) -> None:
    embeddings = OpenAIEmbeddings(
        model="text-embedding-3-small", base_url=api.url, api_key=TOKEN, check_embedding_ctx_length=False
    )
    one, two = embeddings.embed_documents(["A cat", "猫"])
    assert len(one) == len(two) == 576
    assert embeddings.embed_query("A cat") == pytest.approx(one, abs=1e-5)
    assert loop.run(embeddings.aembed_query("猫")) == pytest.approx(two, abs=1e-5)


def test_tokens_of_openais_vocabulary_are_not_taken_for_ours(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `check_embedding_ctx_length=False` LangChain sends ids of another vocabulary: vectors of other texts."""
    core = pytest.importorskip("llama_index.core")  # brings OpenAI's vocabulary along, which is fetched otherwise
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(Path(core.__file__).parent / "_static" / "tiktoken_cache"))
    embeddings = OpenAIEmbeddings(model="text-embedding-3-small", base_url=api.url, api_key=TOKEN, max_retries=0)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        embeddings.embed_query("A cat")


# --- ChatAnthropic


@pytest.fixture
def claude(api: Api) -> ChatAnthropic:
    return ChatAnthropic(model_name=MODEL, base_url=api.bare, api_key=TOKEN, max_tokens_to_sample=30, max_retries=0)


def test_anthropics_class_answers(claude: ChatAnthropic) -> None:
    answer = claude.invoke(MESSAGES)
    assert answer.text
    assert answer.usage_metadata["output_tokens"] <= 30
    streamed = joined(claude.stream(MESSAGES))
    assert streamed.text
    assert streamed.usage_metadata["input_tokens"] == answer.usage_metadata["input_tokens"]
    assert claude.get_num_tokens_from_messages(MESSAGES) == answer.usage_metadata["input_tokens"]


def test_anthropics_class_calls_tools_and_fills_forms_in(claude: ChatAnthropic) -> None:
    called = claude.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False).invoke("Weather?")
    check_calls(called)
    results = [ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"]) for call in called.tool_calls]
    assert claude.bind_tools([get_weather]).invoke([HumanMessage("Weather?"), called, *results]).content
    claude.max_tokens = 200
    for method in ("function_calling", "json_schema"):
        assert isinstance(claude.with_structured_output(Person, method=method).invoke("Ann lives in Paris."), Person)
