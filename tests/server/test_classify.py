"""/v1/classify and /v1/rerank: labels and orders are those that Transformers gives, by heads over decoders and encoders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from chatwright.engine.opened import open_model
from chatwright.engine.process.memory import MemoryBudget
from chatwright.engine.process.supervised import in_processes
from chatwright.engine.tokenizers import copy_tokenizer
from chatwright.errors import InvalidModelError
from chatwright.model.encoder_hf import load_encoder
from chatwright.model.head_folder import save_head
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.model.load import load_model
from chatwright.settings import Settings
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error

LABELS = ("praise", "complaint", "question", "其他")
TEXTS = ["A cat sits on the mat.", "Where is my order? It never came!", "股市今天大涨。", "x"]
QUERY = "Where do cats sit?"
DOCUMENTS = ["Stocks rose today.", "A cat sits on the mat.", "The kitten rests on a rug."]


def saved_over_minilm(minilm: Path, folder: Path, labels: tuple[str, ...], **extra: Any) -> Path:
    head = TextClassifier(load_encoder(minilm), labels, seed=2)
    torch.nn.init.normal_(head.score.weight, std=0.5, generator=torch.Generator().manual_seed(5))

    def write_tokenizer(target: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            if (minilm / name).is_file():
                shutil.copyfile(minilm / name, target / name)

    save_head(head, folder, write_tokenizer=write_tokenizer, extra=extra)
    return folder


@pytest.fixture(scope="module")
def heads(minilm: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A head over an encoder, one with labels that may come together, one that reads pairs, one over a decoder, a tagger."""
    home = tmp_path_factory.mktemp("heads")
    decoder = TextClassifier(load_model(model_folder), LABELS, pad_id=0, seed=3)
    torch.nn.init.normal_(decoder.score.weight, generator=torch.Generator().manual_seed(6))
    save_head(decoder, home / "decoder", write_tokenizer=lambda target: copy_tokenizer(model_folder, target))
    tagger = TokenTagger(load_model(model_folder), ["O", "B-X"], pad_id=0)
    save_head(tagger, home / "tagger", write_tokenizer=lambda target: copy_tokenizer(model_folder, target))
    return {
        "encoder": saved_over_minilm(minilm, home / "encoder", LABELS),
        "several": saved_over_minilm(minilm, home / "several", LABELS, problem_type="multi_label_classification"),
        "pairs": saved_over_minilm(minilm, home / "pairs", ("relevant",), problem_type="regression"),
        "decoder": home / "decoder",
        "tagger": home / "tagger",
    }


@pytest.fixture(scope="module")
def served(start: StartServer, heads: dict[str, Path], minilm: Path) -> RunningServer:
    """All but the tagger, beside a language model and an encoder."""
    folders = {name: path for name, path in heads.items() if name != "tagger"}
    return start(beside={**folders, "minilm": minilm})


@torch.no_grad()
def reference(folder: Path, text: str, second: str | None = None) -> torch.Tensor:
    """Transformers' logits of one text, or of two read together."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(text, second, return_tensors="pt")
    logits: torch.Tensor = model(**batch).logits[0]
    return logits


def classify(server: RunningServer, name: str, given: Any) -> dict[str, Any]:
    response = server.post("/v1/classify", {"model": name, "input": given})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize("name", ["encoder", "several", "decoder"])
def test_the_probabilities_are_those_of_transformers(served: RunningServer, heads: dict[str, Path], name: str) -> None:
    answer = classify(served, name, TEXTS)
    assert (answer["object"], answer["model"]) == ("list", name)
    for index, (item, text) in enumerate(zip(answer["data"], TEXTS, strict=True)):
        logits = reference(heads[name], text)
        expected = torch.sigmoid(logits) if name == "several" else torch.softmax(logits, -1)
        assert item["probs"] == pytest.approx(expected.tolist(), abs=1e-4)
        assert item["label"] == LABELS[int(expected.argmax())]
        assert (item["index"], item["num_classes"]) == (index, len(LABELS))
        if name != "several":
            assert sum(item["probs"]) == pytest.approx(1)
    assert len({tuple(round(p, 3) for p in item["probs"]) for item in answer["data"]}) > 2
    with served.http() as http:
        assert http.get(f"/v1/models/{name}").json()["labels"] == list(LABELS)


def test_token_ids_single_texts_and_the_bare_path(served: RunningServer) -> None:
    [first] = classify(served, "encoder", TEXTS[0])["data"]
    ids = served.post("/v1/tokenize", {"model": "encoder", "prompt": TEXTS[0]}).json()["tokens"]
    [second] = classify(served, "encoder", ids)["data"]
    assert second["probs"] == pytest.approx(first["probs"], abs=1e-6)
    assert served.post("/classify", {"model": "encoder", "input": TEXTS[0]}).json()["data"] == [first]
    answer = classify(served, "encoder", [TEXTS[0], TEXTS[0]])
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 2 * len(ids)


def test_a_head_is_of_no_use_elsewhere_and_other_models_are_none(served: RunningServer) -> None:
    for path, body in (
        ("completions", {"prompt": "x"}),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("embeddings", {"input": "x"}),
        ("rerank", {"query": "x", "documents": ["y"]}),
    ):
        assert_error(served.post(f"/v1/{path}", {"model": "encoder", **body}), 400, "unsupported_model", "model")
    for name in (MODEL, "minilm"):
        assert_error(served.post("/v1/classify", {"model": name, "input": "x"}), 400, "unsupported_model", "model")
    # No name of OpenAI's ever means a head.
    assert served.post("/v1/embeddings", {"model": "text-embedding-3-small", "input": "x"}).status_code == 200


def test_a_head_in_a_process_of_its_own(heads: dict[str, Path], served: RunningServer) -> None:
    import asyncio

    settings = Settings(device="cpu", threads=1)
    expected = classify(served, "encoder", TEXTS)["data"]

    async def ask() -> list[list[float]]:
        [model] = in_processes(
            [open_model(heads["encoder"], "head", settings)], settings, MemoryBudget(10**12, firm=False)
        )
        try:
            await model.engine.ready()
            return list((await model.classify(TEXTS)).probabilities)  # type: ignore[attr-defined]
        finally:
            await model.close()

    for own, item in zip(asyncio.run(ask()), expected, strict=True):
        assert own == pytest.approx(item["probs"], abs=1e-6)


def test_what_can_not_be_served_is_refused_at_once(heads: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="labels the tokens of texts"):
        open_model(heads["tagger"], "tagger", Settings(device="cpu"))
    with pytest.raises(InvalidModelError, match="head for labels cannot have the adapter"):
        open_model(heads["decoder"], "head", Settings(device="cpu"), tmp_path)


def rerank(server: RunningServer, **body: Any) -> list[dict[str, Any]]:
    response = server.post("/v1/rerank", {"model": "minilm", "query": QUERY, "documents": DOCUMENTS, **body})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["usage"]["total_tokens"] > 10
    results: list[dict[str, Any]] = answer["results"]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    return results


def test_an_encoder_ranks_by_the_cosine(served: RunningServer) -> None:
    results = rerank(served)
    assert [result["index"] for result in results] == [1, 2, 0]
    assert [result["document"]["text"] for result in results] == [DOCUMENTS[i] for i in (1, 2, 0)]
    vectors = served.post("/v1/embeddings", {"model": "minilm", "input": [QUERY, DOCUMENTS[1]]}).json()["data"]
    cosine = sum(a * b for a, b in zip(vectors[0]["embedding"], vectors[1]["embedding"], strict=True))
    assert results[0]["relevance_score"] == pytest.approx(cosine, abs=1e-5)


def test_a_cross_encoder_reads_both_together(served: RunningServer, heads: dict[str, Path]) -> None:
    results = {result["index"]: result["relevance_score"] for result in rerank(served, model="pairs")}
    for index, document in enumerate(DOCUMENTS):
        expected = torch.sigmoid(reference(heads["pairs"], QUERY, document)).item()
        assert results[index] == pytest.approx(expected, abs=1e-4)
    alone = torch.sigmoid(reference(heads["pairs"], QUERY)).item()
    assert all(abs(score - alone) > 1e-4 for score in results.values())


def test_no_text_can_forge_a_mark(served: RunningServer) -> None:
    """With [SEP] in a query its end would count as part of the document."""
    for text in ("a [SEP] b", "[CLS]", "[MASK] [PAD][UNK]"):
        answer = served.post("/v1/tokenize", {"model": "pairs", "prompt": text, "return_token_strs": True}).json()
        marks = [
            token for token in answer["token_strs"] if token.startswith("[") and token.endswith("]") and len(token) > 1
        ]
        assert marks == ["[CLS]", "[SEP]"], answer


def test_options_of_ranking(served: RunningServer) -> None:
    whole = rerank(served)

    def same(results: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
        """But for the last bits, which depend on what a text shared its batch with."""
        return len(results) == len(expected) and all(
            (a["index"], a["relevance_score"]) == (b["index"], pytest.approx(b["relevance_score"], abs=1e-5))
            for a, b in zip(results, expected, strict=True)
        )

    assert same(rerank(served, top_n=2), whole[:2])
    assert same(rerank(served, top_n=10), whole)
    assert same(rerank(served, documents=[{"text": text} for text in DOCUMENTS]), whole)
    bare = rerank(served, return_documents=False)
    assert same(bare, whole)
    assert all("document" not in result for result in bare)
    assert {result["index"] for result in rerank(served, model=MODEL)} == {0, 1, 2}


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "nothing": ("classify", {}, "input"),
    "an empty text": ("classify", {"input": ["x", ""]}, "input"),
    "2,049 texts": ("classify", {"input": ["x"] * 2049}, "input"),
    "too long": ("classify", {"input": "word " * 600}, "input"),
    "an id that is none": ("classify", {"input": [10**6]}, "input"),
    "no probabilities": ("classify", {"input": "x", "use_activation": False}, "use_activation"),
    "cut texts": ("classify", {"input": "x", "truncate_prompt_tokens": 9}, "truncate_prompt_tokens"),
    "other fields": ("rerank", {"query": "x", "documents": ["y"], "rank_fields": ["title"]}, "rank_fields"),
    "cut documents": ("rerank", {"query": "x", "documents": ["y"], "max_tokens_per_doc": 9}, "max_tokens_per_doc"),
    "no query": ("rerank", {"documents": ["x"]}, "query"),
    "an empty query": ("rerank", {"query": "", "documents": ["x"]}, "query"),
    "no documents": ("rerank", {"query": "x", "documents": []}, "documents"),
    "an empty document": ("rerank", {"query": "x", "documents": ["x", ""]}, "documents"),
    "an image": ("rerank", {"query": "x", "documents": [{"image": "y"}]}, "documents"),
    "1,001 documents": ("rerank", {"query": "x", "documents": ["x"] * 1001}, "documents"),
    "the best 0": ("rerank", {"query": "x", "documents": ["x"], "top_n": 0}, "top_n"),
    "a document too long": ("rerank", {"query": "x", "documents": ["y", "word " * 600]}, "documents"),
    "a document too long for vectors": (
        "rerank",
        {"model": "minilm", "query": "x", "documents": ["y", "word " * 600]},
        "documents",
    ),
    "a query too long": ("rerank", {"query": "word " * 600, "documents": ["y"]}, "query"),
    "a query too long for vectors": (
        "rerank",
        {"model": "minilm", "query": "word " * 600, "documents": ["y"]},
        "query",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_a_400_that_names_the_field(served: RunningServer, name: str) -> None:
    path, body, param = BAD[name]
    model = "encoder" if path == "classify" else "pairs"
    response: httpx.Response = served.post(f"/v1/{path}", {"model": model, **body})
    assert_error(response, 400, param=param)
