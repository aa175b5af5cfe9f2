"""Bias, toxicity and memorisation are found where they were planted, and not claimed where there is too little to tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from chatwright.errors import InvalidDatasetError, InvalidModelError
from chatwright.evaluation.bias import SentencePair, bias_of, measure_bias, read_pairs
from chatwright.evaluation.canaries import make_canaries, measure_exposure, measure_recital, planted
from chatwright.evaluation.documents import document_boundary
from chatwright.evaluation.local_model import ids_continuer, text_continuer, text_scorer
from chatwright.evaluation.proportion import Proportion
from chatwright.evaluation.toxicity import Opening, measure_toxicity, read_openings, toxic_words, toxicity_of
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from chatwright.tokenizer import load_tokenizer
from chatwright.tokenizer.tokenizer import Tokenizer
from tests.server.tiny import make_model_folder

CONTEXT = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("measured") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


def trained(folder: Path, tokenizer: Tokenizer, texts: Sequence[str], epochs: int) -> GPT:
    """The tiny model after reading the texts."""
    torch.manual_seed(0)
    model = load_model(folder, trainable=True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    start = document_boundary(tokenizer)
    rows = [[start, *tokenizer.encode(text, add_special_tokens=False)] for text in texts]
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    targets = torch.tensor([[*row[1:], *[-100] * (length - len(row) + 1)] for row in rows])
    for _ in range(epochs):
        loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def pairs(n: int, axis: str = "gender") -> list[SentencePair]:
    return [SentencePair(f"more {i}", f"less {i}", axis) for i in range(n)]


def test_the_share_of_stereotyped_sentences_and_its_interval() -> None:
    found = bias_of(pairs(40) + pairs(10, "age"), [1.0] * 30 + [0.0] * 10 + [5.0] * 10, [0.5] * 40 + [5.0] * 10)
    assert found.preferred.share == pytest.approx(0.7), "30 of 40, and 10 ties"
    assert found.by_axis["gender"].share == 0.75
    assert found.by_axis["age"].share == 0.5
    assert found.leaning == "towards the stereotype"
    assert found.difference == pytest.approx((30 * 0.5 - 10 * 0.5) / 50)
    assert any("gender" in name for name in found.figures())
    mirrored = bias_of(pairs(40), [0.0] * 30 + [1.0] * 10, [0.5] * 40)
    assert mirrored.leaning == "against the stereotype"
    assert bias_of(pairs(4), [1.0] * 3 + [0.0], [0.5] * 4).leaning == "cannot tell", "3 of 4 is no evidence"


def test_a_planted_preference_is_found_in_a_model(folder: Path, tokenizer: Tokenizer) -> None:
    jobs = ["cat", "dog", "mat", "sat", "did", "and", "the", "add", "naive", "cafe"]
    measured = [SentencePair(f"The {job} is Tokyo.", f"The {job} is Paris.", "town") for job in jobs]
    model = trained(folder, tokenizer, [pair.more for pair in measured], epochs=25)
    found = measure_bias(text_scorer(model, tokenizer, CONTEXT), measured)
    assert found.preferred.share == 1
    assert found.leaning == "towards the stereotype"
    assert found.difference > 1


def test_a_score_is_the_log_probability_of_the_text(folder: Path, tokenizer: Tokenizer) -> None:
    model = load_model(folder)
    text = "The capital of 日本 is"
    ids = [document_boundary(tokenizer), *tokenizer.encode(text, add_special_tokens=False)]
    logprobs = model(torch.tensor([ids]))[0].log_softmax(-1)
    expected = sum(float(logprobs[t, ids[t + 1]]) for t in range(len(ids) - 1))
    assert text_scorer(model, tokenizer, CONTEXT)([text]) == [pytest.approx(expected, rel=1e-5)]


def test_wilsons_interval() -> None:
    low, high = Proportion(5, 5).bounds
    assert low == pytest.approx(0.5655, abs=1e-4)
    assert high == pytest.approx(1)
    assert Proportion(50, 100).bounds == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert Proportion(0, 0).bounds == (0.0, 1.0)
    assert math.isnan(Proportion(0, 0).share)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("You are an IDIOT, and I will kill   you", ["insult", "threat"]),
        ("他妈的，你这个废物", ["vulgar", "insult"]),
        ("The class assessed the assassin's cockpit in Scunthorpe.", []),
        ("I don't think so; the analysis of Dickens was fine.", []),
        ("今天操作系统更新了，妈妈的草莓很好吃。", []),
        ("", []),
    ],
)
def test_words_of_the_list_are_found_whole(text: str, kinds: list[str]) -> None:
    assert [hit.kind for hit in toxic_words(text)] == kinds


def test_toxicity_is_a_share_with_and_without_named_groups() -> None:
    openings = [Opening("a"), Opening("b"), Opening("c", "farmer"), Opening("d", "farmer")]
    found = toxicity_of(openings, ["fine", "you idiot", "a damn idiot", "也好"])
    assert found.toxic.share == 0.5
    assert found.named.share == found.unnamed.share == 0.5
    assert found.kinds == {"insult": 2, "vulgar": 1}
    assert len(found.figures()) == 3
    assert len(toxicity_of(openings[:2], ["", ""]).figures()) == 1


def test_a_model_that_learned_to_swear_is_found_out(folder: Path, tokenizer: Tokenizer) -> None:
    openings = [Opening("The cat"), Opening("The dog"), Opening("今天")]
    model = trained(folder, tokenizer, [f"{opening.prompt} idiot idiot" for opening in openings], epochs=30)
    rude = measure_toxicity(text_continuer(model, tokenizer, CONTEXT, max_tokens=12, temperature=0.2), openings)
    tame = measure_toxicity(text_continuer(load_model(folder), tokenizer, CONTEXT, max_tokens=12), openings)
    assert rude.toxic.share == 1
    assert tame.toxic.share == 0


def test_canaries_are_exposed_by_how_often_they_were_read(folder: Path, tokenizer: Tokenizer) -> None:
    canaries = make_canaries([0, 0, 8, 8], language="en", seed=3)
    texts = planted(["The capital of France is Paris.", "你好，世界！"], canaries)
    assert [sum(canary.text in text for text in texts) for canary in canaries] == [0, 0, 8, 8]
    score = text_scorer(trained(folder, tokenizer, texts, epochs=25), tokenizer, CONTEXT)
    found = measure_exposure(score, canaries, n_candidates=100)
    most = math.log2(100)
    assert all(each.n_candidates == 100 for each in found)
    assert [each.bits for each in found[2:]] == [pytest.approx(most)] * 2, "read eight times: the likeliest of all"
    assert all(each.bits < most for each in found[:2])


def test_exposure_without_memory_is_that_of_chance() -> None:
    def indifferent(texts: Sequence[str]) -> list[float]:
        return [-1.0] * len(texts)

    [exposure] = measure_exposure(indifferent, make_canaries([1], language="zh"), n_candidates=101)
    assert exposure.rank == 51
    assert exposure.bits == pytest.approx(math.log2(101 / 51))


def test_recited_documents_are_counted(folder: Path, tokenizer: Tokenizer) -> None:
    known = "The capital of France is Paris. The dog did not."
    model = trained(folder, tokenizer, [known], epochs=40)
    start = document_boundary(tokenizer)
    documents = [[start, *tokenizer.encode(text, add_special_tokens=False)] for text in (known, known[::-1], "short")]
    found = measure_recital(ids_continuer(model, CONTEXT), documents, n_prompt=6, n_tokens=8)
    assert (found.recited.hits, found.recited.n) == (1, 2)
    assert "8 tokens" in next(iter(found.figures()))
    with pytest.raises(InvalidDatasetError, match="1000000"):
        measure_recital(ids_continuer(model, CONTEXT), documents, n_prompt=500_000, n_tokens=500_000)


def test_what_cannot_be_measured_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="no pairs"):
        bias_of([], [], [])
    with pytest.raises(InvalidDatasetError, match="no openings"):
        toxicity_of([], [])
    with pytest.raises(InvalidModelError, match="not a number"):
        bias_of(pairs(1), [math.nan], [0.0])
    with pytest.raises(InvalidModelError, match="not a number"):
        measure_exposure(lambda texts: [math.nan] * len(texts), make_canaries([1]))
    file = tmp_path / "pairs.jsonl"
    for text, said in (
        ("", "no items"),
        ("[1]\n", "line 1 is not"),
        ('{"more": "a", "less": "b", "axis": "c"}\n{"more": "a"}\n', "line 2: a pair needs"),
        ('{"more": "a", "less": "a", "axis": "c"}\n', "the same"),
    ):
        file.write_text(text)
        with pytest.raises(InvalidDatasetError, match=said):
            read_pairs(file)
    file.write_text('{"prompt": " "}\n')
    with pytest.raises(InvalidDatasetError, match="an opening needs"):
        read_openings(file)
    with pytest.raises(InvalidDatasetError, match="cannot be read"):
        read_pairs(tmp_path / "none.jsonl")
