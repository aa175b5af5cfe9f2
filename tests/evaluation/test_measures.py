"""Figures equal those of the libraries that everybody compares with, and come with intervals over the items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from chatwright.evaluation.examples import make_examples
from chatwright.evaluation.labels import confusion_matrix, entity_scores, macro_f1
from chatwright.evaluation.measures import confusion, measures
from chatwright.evaluation.proportion import Proportion
from chatwright.evaluation.run import Answered
from chatwright.evaluation.scores import compare, score
from chatwright.evaluation.statistics import bootstrap_figure, compare_figures, holm
from chatwright.evaluation.task import load_task
from tests.evaluation.example_tasks import capitals, names, orders, reviews, sums, texts, write_task

ENGLISH = ["The cat sat on the mat.", "It is raining again today.", "She went home by train, late."]
SAID = ["The cat sat on a mat.", "Today it rains again.", "She went home by train late."]
CHINESE = ["猫坐在垫子上。", "今天又下雨了。", "她很晚才坐火车回家。"]
SAID_ZH = ["猫坐在一个垫子上。", "今天下雨了。", "她坐火车回家。"]


def written(tmp_path: Path, references: Sequence[Any], said: Sequence[str], **settings: Any) -> Answered:
    items = [{"q": str(n), "answer": reference} for n, reference in enumerate(references)]
    path = write_task(tmp_path, "t", items, kind="generate", prompt="{{ q }}", **settings)
    task = load_task(path)
    return Answered(task, make_examples(task), [{"said": text} for text in said])


def figures(answered: Answered) -> dict[str, float]:
    return {name: interval.estimate for name, interval in score(answered).figures.items()}


@pytest.mark.parametrize(("language", "references", "said"), [("en", ENGLISH, SAID), ("zh", CHINESE, SAID_ZH)])
def test_bleu_and_chrf_are_sacrebleus(tmp_path: Path, language: str, references: list[str], said: list[str]) -> None:
    found = figures(written(tmp_path, references, said, language=language, metrics=["bleu", "chrf"]))
    tokenizer = {"en": "13a", "zh": "zh"}[language]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, [references], tokenize=tokenizer).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(said, [references]).score)


def test_bleu_takes_several_references(tmp_path: Path) -> None:
    references = [[ENGLISH[0], SAID[0]], [ENGLISH[1]], [ENGLISH[2], "x"]]
    found = figures(written(tmp_path, references, SAID, metrics=["bleu"]))
    streams = [[each[0] for each in references], [SAID[0], None, "x"]]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(SAID, streams).score)


def test_rouge_is_rouge_scores_and_counts_chinese_characters(tmp_path: Path) -> None:
    found = figures(written(tmp_path, ENGLISH, SAID, metrics=["rouge_1", "rouge_2", "rouge_l"]))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for ours, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        expected = np.mean([scorer.score(r, s)[theirs].fmeasure for r, s in zip(ENGLISH, SAID, strict=True)])
        assert found[ours] == pytest.approx(expected)
    chinese = figures(
        written(tmp_path, ["猫坐在垫子上"], ["猫在垫子上坐"], language="zh", metrics=["rouge_l", "rouge_1"])
    )
    assert chinese["rouge_1"] == 1
    assert chinese["rouge_l"] == pytest.approx(5 / 6)


def test_exact_match_takes_the_best_reference_and_normalises_as_told(tmp_path: Path) -> None:
    metrics = ["exact_match", "contains", "f1"]
    assert figures(written(tmp_path, ["Paris"], [" paris. "], metrics=metrics)) == {
        "exact_match": 0,
        "contains": 0,
        "f1": 1,
    }
    steps = ["lower", "punctuation", "articles"]
    said = ["the Eiffel Tower!", "B"]
    found = figures(written(tmp_path, [["x", "An eiffel tower"], "b"], said, metrics=metrics, normalise=steps))
    assert found["exact_match"] == 1
    assert found["contains"] == 1


def test_the_last_match_of_extract_is_the_answer(tmp_path: Path) -> None:
    said = ["First 3, so the answer is 12.", "none"]
    assert figures(written(tmp_path, [12, 5], said, extract=r"\d+")) == {"exact_match": 0.5}
    assert figures(written(tmp_path, [12, 5], said, extract=r"answer is (\d+)")) == {"exact_match": 0.5}


def test_choices_are_judged_by_sum_and_by_byte(tmp_path: Path) -> None:
    items = [{"q": "?", "choices": ["no", "certainly"], "answer": "certainly"}] * 2
    task = load_task(write_task(tmp_path, "t", items, kind="choice", prompt="{{ q }}"))
    found = figures(Answered(task, make_examples(task), [{"logprobs": [-4.0, -5.0]}, {"logprobs": [-4.0, -3.0]}]))
    assert found == {"accuracy": 0.5, "accuracy_by_byte": 1.0}


def test_labels_give_accuracy_macro_f1_and_a_confusion_matrix(tmp_path: Path) -> None:
    task = load_task(reviews(tmp_path))
    examples = make_examples(task)
    answered = Answered(task, examples, [{"label": label} for label in ("good", "good", "good", "bad")])
    matrix = confusion_matrix([0, 1, 0, 1], [0, 0, 0, 1], 2)
    assert figures(answered) == {"accuracy": 0.75, "macro_f1": pytest.approx(macro_f1(matrix))}
    assert confusion(task, examples, answered.results)[1][:, :2].tolist() == matrix.tolist()
    unknown = Answered(task, examples, [{"label": label} for label in ("good", "great", "good", "bad")])
    assert figures(unknown)["accuracy"] == 0.75
    assert confusion(task, examples, unknown.results)[1].tolist() == [[2, 0, 0], [0, 1, 1]]


def test_entities_are_counted_by_place_or_by_name(tmp_path: Path) -> None:
    task = load_task(names(tmp_path))
    examples = make_examples(task)
    found = [[[0, 4, "PER"], [9, 12, "LOC"]], []]
    by_place = figures(Answered(task, examples, [{"found": each} for each in found]))
    truth = [example.entities for example in examples]
    expected = entity_scores(truth, [[(0, 4, "PER"), (9, 12, "LOC")], []])
    assert by_place == {name: pytest.approx(expected[name]) for name in ("f1", "precision", "recall")}
    none = figures(Answered(task, examples, [{"found": []}] * 2))
    assert none == {"f1": 0, "precision": 0, "recall": 0} == entity_scores(truth, [[], []])
    said = ['Sure: ["Anna", "Bob", "Anna"] and', "none"]
    by_name = figures(Answered(task, examples, [{"said": each} for each in said]))
    assert (by_name["precision"], by_name["recall"]) == (1, pytest.approx(2 / 3))


def test_instructions_are_strict_about_all_and_count_each(tmp_path: Path) -> None:
    task = load_task(orders(tmp_path))
    answered = Answered(task, make_examples(task), [{"said": "Hello!"}, {"said": "你好\n再见"}])
    assert figures(answered) == {"strict_accuracy": 0.5, "checks_passed": pytest.approx(2 / 3)}


def test_bits_per_byte_is_all_bits_over_all_bytes(tmp_path: Path) -> None:
    task = load_task(texts(tmp_path))
    results = [{"nats": n * np.log(2), "bytes": 10, "tokens": 5} for n in (10, 20, 60)]
    found = figures(Answered(task, make_examples(task), results))
    assert found["bits_per_byte"] == pytest.approx(3)
    assert found["perplexity"] == pytest.approx(2**6)


def test_one_item_has_a_score_and_no_interval(tmp_path: Path) -> None:
    scores = score(written(tmp_path, ["a"], ["a"]))
    assert scores.figures["exact_match"].estimate == 1
    assert np.isnan(scores.figures["exact_match"].low)
    assert "One item only" in scores.notes[0]
    assert compare([scores], [score(written(tmp_path, ["a"], ["b"]))])[0].verdict == "cannot tell"


def test_items_that_all_score_alike_get_a_warning(tmp_path: Path) -> None:
    assert any("alike" in note for note in score(written(tmp_path, ["a"] * 20, ["b"] * 20)).notes)


def test_better_is_said_of_a_real_difference_and_not_of_noise(tmp_path: Path) -> None:
    def scores(n_right: int, offset: int = 0) -> Any:
        said = ["a" if (i + offset) % 60 < n_right else "b" for i in range(60)]
        return [score(written(tmp_path, ["a"] * 60, said))]

    assert compare(scores(50), scores(20))[0].verdict == "better"
    assert compare(scores(20), scores(50))[0].verdict == "worse"
    assert compare(scores(30), scores(31, offset=30))[0].verdict == "cannot tell"
    assert compare(scores(30), scores(30))[0].verdict == "cannot tell"


def test_lower_bits_per_byte_is_better(tmp_path: Path) -> None:
    items = [{"text": str(n)} for n in range(20)]
    task = load_task(write_task(tmp_path, "t", items, kind="perplexity"))

    def scores(factor: float) -> Any:
        results = [{"nats": factor * (5 + n % 3), "bytes": 10, "tokens": 5} for n in range(20)]
        return [score(Answered(task, make_examples(task), results))]

    assert compare(scores(0.9), scores(1.0))[0].verdict == "better"
    assert compare(scores(1.0), scores(0.9))[0].verdict == "worse"
    as_seeds_differ = compare(scores(0.995), scores(1.0))[0]
    assert as_seeds_differ.comparison.difference.high < 0
    assert as_seeds_differ.verdict == "cannot tell"


def test_intervals_are_seeded_and_hold_the_estimate() -> None:
    rows = np.random.default_rng(0).integers(2, size=(80, 1)) @ np.array([[1.0, 0.0]]) + np.array([[0.0, 1.0]])
    first = bootstrap_figure(rows, lambda s: s[:, 0] / s[:, 1])
    assert first == bootstrap_figure(rows, lambda s: s[:, 0] / s[:, 1])
    assert first.low < first.estimate < first.high
    p = first.estimate
    assert first.high - first.low == pytest.approx(2 * 1.96 * (p * (1 - p) / 80) ** 0.5, rel=0.15)


def test_few_items_never_prove_anything() -> None:
    ones, zeros = np.ones((5, 2)), np.ones((5, 2)) * [0, 1]
    assert compare_figures(ones, zeros, lambda s: s[:, 0] / s[:, 1]).p_value > 0.05
    ones, zeros = np.ones((12, 2)), np.ones((12, 2)) * [0, 1]
    assert compare_figures(ones, zeros, lambda s: s[:, 0] / s[:, 1]).p_value < 0.01


def test_several_tests_are_corrected_for() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_first_figure_is_the_one_that_counts(tmp_path: Path) -> None:
    task = load_task(capitals(tmp_path))
    assert measures(task, make_examples(task), [{"logprobs": [0.0, -1, -1, -1, -1]}] * 5)[0].name == "accuracy"
    assert load_task(sums(tmp_path)).metrics == ("exact_match",)


def test_items_of_one_template_are_drawn_together(tmp_path: Path) -> None:
    items = [{"q": str(n), "answer": "a", "group": f"template {n // 10}"} for n in range(60)]
    said = [{"said": "a" if n // 10 % 2 else "b"} for n in range(60)]
    path = write_task(tmp_path, "t", items, kind="generate", prompt="{{ q }}")
    task = load_task(path)
    found = score(Answered(task, make_examples(task), said))
    alone = load_task(write_task(tmp_path / "alone", "t", items, kind="generate", prompt="{{ q }}", group="none"))
    single = score(Answered(alone, make_examples(alone), said))
    assert task.fingerprint == alone.fingerprint, "which items belong together changes no answer"
    assert single.figures["exact_match"].estimate == found.figures["exact_match"].estimate == 0.5
    width = [each.figures["exact_match"].high - each.figures["exact_match"].low for each in (single, found)]
    assert width[1] > 2 * width[0]
    assert "The 60 items belong to 6 groups, which are drawn whole." in found.notes
    assert any("too narrow" in note for note in found.notes)
    worse = [{"said": "a" if n // 10 == 1 else "b"} for n in range(60)]  # by two templates of six: 20 items
    pairs = [[found], [score(Answered(task, make_examples(task), worse))]]
    assert compare(*pairs)[0].verdict == "cannot tell"
    pairs = [[single], [score(Answered(alone, make_examples(alone), worse))]]
    assert compare(*pairs)[0].verdict == "better"


def test_a_field_of_another_name_says_what_belongs_together_and_an_empty_one_nothing(tmp_path: Path) -> None:
    items = [{"text": str(n), "book": "" if n > 2 else 7} for n in range(5)]
    task = load_task(write_task(tmp_path, "t", items, kind="perplexity", group="book"))
    assert task.groups == ["7", "7", "7", 3, 4]
    assert load_task(write_task(tmp_path, "t", items, kind="perplexity")).groups is None


def test_the_smallest_difference_of_interest_is_the_users(tmp_path: Path) -> None:
    items = [{"text": str(n)} for n in range(40)]
    task = load_task(write_task(tmp_path, "t", items, kind="perplexity"))

    def scores(factor: float) -> Any:
        results = [{"nats": factor * (5 + n % 3), "bytes": 10, "tokens": 5} for n in range(40)]
        return [score(Answered(task, make_examples(task), results))]

    ours, theirs = scores(0.97), scores(1.0)
    assert compare(ours, theirs)[0].verdict == "better"
    assert compare(ours, theirs, 0.05)[0].verdict == "cannot tell"
    assert compare(ours, theirs, 0.05)[0].alike
    assert compare(scores(0.999), theirs, 0.0)[0].verdict == "better"
    assert not compare(scores(0.999), theirs, 0.0)[0].alike


def test_a_share_where_all_are_alike_has_an_interval_nevertheless(tmp_path: Path) -> None:
    found = score(written(tmp_path, ["a"] * 20, ["b"] * 20))
    interval = found.figures["exact_match"]
    assert (interval.estimate, interval.low) == (0, 0)
    assert interval.high == pytest.approx(0.161, abs=0.001)  # Wilson's, of 0 of 20
    assert any("Wilson" in note for note in found.notes)


@pytest.mark.parametrize(("n", "alike"), [(3, False), (60, False), (400, True)])
def test_two_models_are_not_alike_because_a_few_items_are(tmp_path: Path, n: int, alike: bool) -> None:
    """The bootstrap has nothing to draw from, and would say that they never differ."""
    wrong = [score(written(tmp_path, ["a"] * n, ["b"] * n))]
    [found] = compare(wrong, wrong)
    assert found.alike == alike
    assert found.verdict == "cannot tell"
    half = Proportion(0, n).bounds[1]
    assert (found.comparison.difference.low, found.comparison.difference.high) == pytest.approx((-half, half))
    right = [score(written(tmp_path, ["a"] * n, ["a"] * n))]
    [found] = compare(right, wrong)
    assert found.comparison.difference.high == 1
    assert found.comparison.difference.low == pytest.approx(1 - 2 * half)
    assert found.verdict == ("better" if n > 5 else "cannot tell")
