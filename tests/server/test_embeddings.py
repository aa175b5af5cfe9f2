"""/v1/embeddings: what every answer keeps, for the newest official client, that of 2023, and whoever sends nonsense."""

from __future__ import annotations

import base64
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import CreateEmbeddingResponse

from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error

OLD_CLIENT = Path(__file__).parents[2] / ".venv" / "openai-0.28"
TEXTS = ["A cat sits on the mat.", "The kitten rests on a rug!", "股市今天大涨。", "Ünïcödé 🙂"]


@pytest.fixture(scope="module")
def served(start: StartServer, minilm: Path) -> RunningServer:
    """A language model, and an encoder behind it."""
    return start(beside={"minilm": minilm})


@pytest.fixture
def official(served: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{served.url}/v1",
        api_key="whatever",
        max_retries=0,
        http_client=openai.DefaultHttpx2Client(trust_env=False) if hasattr(openai, "DefaultHttpx2Client") else None,
    ) as client:
        yield client


def embed(server: RunningServer, given: Any, **body: Any) -> CreateEmbeddingResponse:
    """A good answer with floats, as the client library's type."""
    response = server.post("/v1/embeddings", {"model": "minilm", "input": given, **body})
    assert response.status_code == 200, response.text
    answer = CreateEmbeddingResponse.model_validate(response.json(), strict=True)
    assert not answer.model_extra
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return answer


def vectors(data: Any) -> list[list[float]]:
    return [list(item.embedding) for item in data]


def same(first: list[list[float]], second: list[list[float]]) -> bool:
    """But for the last bits, which depend on what a text shared its batch with."""
    return len(first) == len(second) and all(
        a == pytest.approx(b, abs=1e-6) for a, b in zip(first, second, strict=True)
    )


def cosine(a: list[float], b: list[float]) -> float:
    return math.sumprod(a, b) if hasattr(math, "sumprod") else sum(x * y for x, y in zip(a, b, strict=True))


def tokens(server: RunningServer, text: str) -> list[int]:
    [model] = [model for model in server.app.state.server.models if model.name == "minilm"]
    ids: list[int] = model.tokenizer.encode(text)
    return ids


def test_the_client_gets_the_same_vectors_whether_they_travel_as_floats_or_base64(
    served: RunningServer, official: openai.OpenAI
) -> None:
    default = official.embeddings.create(model="minilm", input=TEXTS)
    floats = official.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")
    assert same(vectors(default.data), vectors(floats.data))
    assert default.usage == floats.usage
    assert default.usage.prompt_tokens == default.usage.total_tokens == sum(len(tokens(served, t)) for t in TEXTS)
    assert (default.object, default.model, {item.object for item in default.data}) == ("list", "minilm", {"embedding"})
    cat, kitten, market, _ = (list(item.embedding) for item in default.data)
    assert len(cat) == 384
    assert cosine(cat, kitten) > 0.5 > cosine(cat, market)
    raw = served.post("/v1/embeddings", {"model": "minilm", "input": TEXTS[0], "encoding_format": "base64"}).json()
    packed = base64.b64decode(raw["data"][0]["embedding"], validate=True)
    assert list(struct.unpack("<384f", packed)) == pytest.approx(cat, abs=1e-6)


def test_every_vector_has_length_one_also_a_decoders(served: RunningServer) -> None:
    for answer in (embed(served, TEXTS), embed(served, TEXTS, model=MODEL), embed(served, TEXTS, dimensions=7)):
        for item in answer.data:
            assert math.hypot(*item.embedding) == pytest.approx(1, abs=1e-6)


def test_token_ids_give_what_their_text_gives(served: RunningServer) -> None:
    ids = [tokens(served, text) for text in TEXTS]
    bare = [given[1:-1] for given in ids]  # without [CLS] and [SEP]
    as_text = embed(served, TEXTS)
    for given in (ids, bare):
        answer = embed(served, given)
        assert answer.usage == as_text.usage
        for item, expected in zip(answer.data, as_text.data, strict=True):
            assert cosine(item.embedding, expected.embedding) > 0.999999
    single = embed(served, ids[0])
    assert len(single.data) == 1
    assert cosine(single.data[0].embedding, as_text.data[0].embedding) > 0.999999


def test_one_text_and_a_list_of_one_are_the_same(served: RunningServer) -> None:
    assert embed(served, TEXTS[0]).data == embed(served, [TEXTS[0]]).data


def test_dimensions_keep_the_beginning(served: RunningServer) -> None:
    [whole], [cut] = embed(served, TEXTS[0]).data, embed(served, TEXTS[0], dimensions=100).data
    length = math.hypot(*whole.embedding[:100])
    assert cut.embedding == pytest.approx([number / length for number in whole.embedding[:100]], abs=1e-6)
    assert len(embed(served, TEXTS[0], dimensions=384).data[0].embedding) == 384
    response = served.post("/v1/embeddings", {"model": "minilm", "input": "x", "dimensions": 385})
    assert "384" in assert_error(response, 400, "invalid_value", "dimensions")


@pytest.mark.parametrize("name", ["minilm", MODEL])
def test_more_dimensions_than_there_are_cost_nothing(
    served: RunningServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [model] = [model for model in served.app.state.server.models if model.name == name]
    width, embedded, asked = len(embed(served, "x", model=name).data[0].embedding), model.engine.embed, []

    async def counted(ids: Any) -> Any:
        asked.append(ids)
        return await embedded(ids)

    monkeypatch.setattr(model.engine, "embed", counted)
    response = served.post("/v1/embeddings", {"model": name, "input": "x", "dimensions": width + 1})
    assert str(width) in assert_error(response, 400, "invalid_value", "dimensions")
    assert asked == []
    assert len(embed(served, "x", model=name, dimensions=width).data[0].embedding) == width
    assert len(asked) == 1


@pytest.mark.parametrize(
    "name",
    ["text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002", "text-similarity-davinci-001"],
)
def test_openais_names_stand_for_the_encoder(served: RunningServer, name: str) -> None:
    answer = embed(served, TEXTS[0], model=name)
    assert answer.model == name
    assert answer.data == embed(served, TEXTS[0]).data
    with served.http() as http:
        assert http.get(f"/v1/models/{name}").json()["id"] == name


def test_token_ids_under_openais_names_are_of_another_vocabulary(served: RunningServer) -> None:
    """LangChain's default: cl100k's ids, which would become a vector of other words without anybody noticing."""
    for given in ([64, 8415], [[64, 8415], [7]]):
        response = served.post("/v1/embeddings", {"model": "text-embedding-3-small", "input": given})
        sentence = assert_error(response, 400, "invalid_value", "input")
        assert "check_embedding_ctx_length=False" in sentence
        assert "minilm" in sentence
        assert embed(served, given).data


def test_without_an_encoder_they_stand_for_the_language_model(server: RunningServer) -> None:
    answer = embed(server, TEXTS, model="text-embedding-3-small")
    assert answer.data == embed(server, TEXTS, model=MODEL).data


def test_chat_models_names_never_stand_for_an_encoder(minilm: Path, start: StartServer) -> None:
    served = start(beside={"minilm": minilm})
    served.app.state.server.models.reverse()  # the encoder first
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    assert served.post("/v1/chat/completions", body).status_code == 200
    served.app.state.server.models.reverse()
    for path, body in (
        ("completions", {"prompt": "x"}),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ):
        assert_error(served.post(f"/v1/{path}", {"model": "minilm", **body}), 400, "unsupported_model", "model")


BAD = {
    "nothing": {},
    "an empty string": {"input": ""},
    "an empty string among others": {"input": ["x", ""]},
    "no inputs": {"input": []},
    "an empty list of ids": {"input": [[]]},
    "null": {"input": None},
    "a number": {"input": 3},
    "an object": {"input": {"text": "x"}},
    "two kinds": {"input": ["x", 1]},
    "ids and texts": {"input": ["x", [1, 2]]},
    "a fraction": {"input": [1.5]},
    "a boolean": {"input": [True]},
    "a negative id": {"input": [-1]},
    "an id that is none": {"input": [30_522]},
    "an id that is none, in a list": {"input": [[101, 102], [10**9]]},
    "2,049 inputs": {"input": ["x"] * 2049},
    "2,049 lists of ids": {"input": [[101]] * 2049},
    "a text too long": {"input": ["x", "word " * 300]},
    "a text far too long": {"input": "word " * 1_000_000},
    "ids too many": {"input": [101] * 300},
    "300,000 tokens": {"input": ["word " * 250] * 1200},
    "a format": {"input": "x", "encoding_format": "hex"},
    "no dimensions": {"input": "x", "dimensions": 0},
    "half a dimension": {"input": "x", "dimensions": 1.5},
}
PARAMS = {"a format": "encoding_format", "no dimensions": "dimensions", "half a dimension": "dimensions"}


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_a_400_that_names_the_field(served: RunningServer, name: str) -> None:
    code = "context_length_exceeded" if "too" in name else "invalid_value"
    sentence = assert_error(
        served.post("/v1/embeddings", {"model": "minilm", **BAD[name]}), 400, code, PARAMS.get(name, "input")
    )
    if name.startswith("2,049"):
        assert "2048" in sentence
        assert "2049" in sentence
    if name == "300,000 tokens":
        assert "300000" in sentence


def test_the_model_must_be_named_and_there(served: RunningServer) -> None:
    assert_error(served.post("/v1/embeddings", {"input": "x"}), 400, "missing_model", "model")
    assert_error(served.post("/v1/embeddings", {"input": "x", "model": "nobody"}), 404, "model_not_found", "model")


def test_more_texts_than_the_queue_has_places_are_one_request(start: StartServer, minilm: Path) -> None:
    served = start(beside={"minilm": minilm}, max_queue=8)
    texts = [f"number {n}" for n in range(200)]
    answer = embed(served, texts)
    assert len(answer.data) == 200
    assert cosine(answer.data[7].embedding, embed(served, "number 7").data[0].embedding) > 0.99999


def test_the_client_of_2023_and_azures_paths(served: RunningServer) -> None:
    expected = vectors(embed(served, TEXTS[:2]).data)
    for path in ("/engines/minilm/embeddings", "/v1/openai/deployments/minilm/embeddings?api-version=2024-02-01"):
        response = served.post(path, {"input": TEXTS[:2]})
        assert same(vectors(CreateEmbeddingResponse.model_validate(response.json(), strict=True).data), expected)
    assert OLD_CLIENT.is_dir(), "openai 0.28.1 is not installed: run `make install-dev`"
    code = "import json, openai; " + (
        f"print(json.dumps(openai.Embedding.create(engine='text-embedding-ada-002', input={TEXTS[:2]!r})))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(OLD_CLIENT),
            "OPENAI_API_BASE": f"{served.url}/v1",
            "OPENAI_API_KEY": "sk-whatever",
            "NO_PROXY": "*",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answer = json.loads(ran.stdout)
    assert same([item["embedding"] for item in answer["data"]], expected)
