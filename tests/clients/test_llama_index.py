"""LlamaIndex' OpenAI classes: over chat, completions and responses, for OpenAI's names and any other (OpenAILike), and vectors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("llama_index", reason="other projects' clients have an environment of their own: make clients-test")

import openai
from llama_index.core import Document, PromptTemplate, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike

from tests.clients.conftest import MODEL, TOKEN, Api
from tests.clients.shapes import CITIES, QUESTION, Person, get_weather

MESSAGES = [ChatMessage(role="system", content="Be short."), ChatMessage(role="user", content=QUESTION)]
WEATHER = FunctionTool.from_defaults(get_weather)


@pytest.fixture(params=["OpenAI", "OpenAILike", "OpenAIResponses"])
def llm(request: pytest.FixtureRequest, api: Api) -> Any:
    options: dict[str, Any] = {"api_base": api.url, "api_key": TOKEN, "temperature": 0, "max_retries": 0}
    match request.param:
        case "OpenAI":  # insists on names that OpenAI has
            return OpenAI(model="gpt-4o-mini", max_tokens=40, **options)
        case "OpenAIResponses":
            return OpenAIResponses(model="gpt-4o-mini", max_output_tokens=40, **options)
    return OpenAILike(
        model=MODEL, is_chat_model=True, is_function_calling_model=True, context_window=2048, max_tokens=60, **options
    )


def test_it_answers(llm: Any) -> None:
    answer = llm.chat(MESSAGES)
    assert answer.message.content
    assert "".join(part.delta or "" for part in llm.stream_chat(MESSAGES)) == answer.message.content
    assert llm.complete("Say hi.").text


def test_tools_are_called(llm: Any) -> None:
    asked: dict[str, Any] = {"user_msg": "Weather in Paris?", "tool_required": True}
    [call] = llm.get_tool_calls_from_response(llm.chat_with_tools([WEATHER], **asked))
    assert call.tool_name == "get_weather"
    assert call.tool_kwargs["city"] in CITIES
    *_, last = llm.stream_chat_with_tools([WEATHER], **asked)
    assert llm.get_tool_calls_from_response(last)[0].tool_kwargs["city"] in CITIES


def test_forms_are_filled_in(llm: Any) -> None:
    person = llm.structured_predict(Person, PromptTemplate("{name} lives in Paris."), name="Ann")
    assert isinstance(person, Person)


def test_an_agent_goes_round(api: Api) -> None:
    """The model is told of a tool, its call is carried out, the result read, and an answer given."""
    llm = OpenAILike(
        model=MODEL,
        api_base=api.url,
        api_key=TOKEN,
        temperature=0,
        max_tokens=40,
        is_chat_model=True,
        is_function_calling_model=True,
    )

    async def ask() -> Any:
        agent = FunctionAgent(tools=[get_weather], llm=llm, initial_tool_choice="get_weather", streaming=True)
        return await agent.run("What is the weather in Paris?", max_iterations=4, early_stopping_method="generate")

    told = asyncio.run(ask())
    assert told.tool_calls[0].tool_output.content in [f"rain in {city}" for city in CITIES]
    assert told.response.role == "assistant"


def test_completions(api: Api) -> None:
    named = OpenAI(model="gpt-3.5-turbo-instruct", api_base=api.url, api_key=TOKEN, temperature=0, max_tokens=8)
    assert named.complete(QUESTION).text
    llm = OpenAILike(model=MODEL, api_base=api.url, api_key=TOKEN, temperature=0, max_tokens=8, is_chat_model=False)
    text = llm.complete("The capital of France is").text
    assert text
    assert "".join(part.delta or "" for part in llm.stream_complete("The capital of France is")) == text


def test_documents_are_found_by_their_vectors(api: Api) -> None:
    embedding = OpenAIEmbedding(model="text-embedding-3-small", api_base=api.url, api_key=TOKEN, max_retries=0)
    texts = ["The cat sleeps on the sofa.", "Shares fell sharply on Monday.", "火车晚点了半个小时。"]
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=embedding)
    for text in texts:
        assert index.as_retriever(similarity_top_k=1).retrieve(text)[0].text == text
    short = OpenAIEmbedding(model_name=MODEL, api_base=api.url, api_key=TOKEN, dimensions=64)
    assert len(short.get_text_embedding("A cat")) == 64


def test_errors_are_openais(api: Api) -> None:
    with pytest.raises(openai.NotFoundError):
        OpenAILike(model="nobody", api_base=api.url, api_key=TOKEN, is_chat_model=True, max_retries=0).chat(MESSAGES)
