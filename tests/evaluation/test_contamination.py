"""Items that stand in the training text are found, templates and short items are not mistaken for it."""

from __future__ import annotations

from collections.abc import Sequence

from chatwright.evaluation.contamination import PIECE, Overlap, find_overlaps
from chatwright.evaluation.task import Fields

LONG = "When the river rose over the old stone bridge nobody in the village could cross for nine days"
CHINESE = "河水漫过了古老的石桥之后村里整整九天没有人能够过河"


PASSAGE = (
    "When the miller came home that evening he found the gate open, the dog gone and flour all over his kitchen floor."
)


def find_overlap(items: Sequence[Fields], corpus: Sequence[str]) -> Overlap:
    return find_overlaps([(items, None)], corpus)[0]


def asked(questions: Sequence[str], **more: str) -> list[Fields]:
    return [{"passage": PASSAGE, "question": question, **more} for question in questions]


def test_thirteen_words_or_characters_in_common_are_found() -> None:
    items = [{"question": LONG}, {"question": CHINESE}, {"question": LONG.replace("nobody", "no one at all")[:60]}]
    corpus = ["Nothing.", f"He wrote: {LONG.upper()}!", f"报上说：{CHINESE}。"]
    assert find_overlap(items, corpus).items == (0, 1)


def test_twelve_words_of_a_longer_item_are_not_enough() -> None:
    assert find_overlap([{"q": LONG}], [" ".join(LONG.split()[:12]) + " and then"]).items == ()
    assert find_overlap([{"q": LONG}], [" ".join(LONG.split()[:13]) + " and then"]).items == (0,)


def test_a_short_item_is_looked_for_whole_and_a_very_short_one_not_at_all() -> None:
    items = [{"q": "What is 17 times 23 exactly?", "answer": "391"}, {"q": "Why?", "answer": "So."}]
    found = find_overlap(items, ["what is 17 times 23 exactly", "Why? So."])
    assert (found.items, found.too_short) == ((0,), (1,))


def test_the_words_of_a_template_do_not_count() -> None:
    frame = "Read the following sentence very carefully and then say in one word what it is about: {}"
    items = [{"prompt": frame.format(f"word{n}")} for n in range(20)]
    assert find_overlap(items, [frame.format("anything")]).items == ()


def test_a_long_document_is_read_in_pieces_and_nothing_is_lost_between() -> None:
    for before in (PIECE - 50, PIECE - 5, PIECE):
        text = ("x " * PIECE)[:before] + f" {LONG} " + "y " * 100
        assert find_overlap([{"q": LONG}], [text]).items == (0,)


def test_the_answer_about_a_task_does_not_depend_on_the_others() -> None:
    few, many = asked([f"Who {n}?" for n in range(9)]), asked([f"Why {n}?" for n in range(12)])
    tasks = [[{"q": "too short"}, {"q": LONG}], few, many, [{"q": CHINESE}]]
    found = find_overlaps([(items, None) for items in tasks], [LONG, f"A tale. {PASSAGE}"])
    assert found == [find_overlap(items, [LONG, f"A tale. {PASSAGE}"]) for items in tasks]
    assert (found[0].items, found[0].too_short) == ((1,), (0,))
    assert found[1].items == tuple(range(9))
    assert found[3].items == ()


def test_many_questions_about_one_text_are_judged_by_themselves_or_not_at_all() -> None:
    questions = [f"What did the miller lose on day {n}?" for n in range(11)]
    items = asked([*questions, "Why?"], instruction="Answer with one word of the text, please.")
    found = find_overlap(items, [PASSAGE, f"Quiz: {questions[3]}", items[0]["instruction"]])
    assert (found.items, found.shared, found.too_short) == ((3,), (11,), ())
    assert found.n_judged == 11


def test_items_of_one_group_share_their_words_once() -> None:
    items = asked([f"Why {n}?" for n in range(12)])
    assert find_overlap(items, [PASSAGE]).shared == tuple(range(12))
    assert find_overlaps([(items, ["tale"] * 12)], [PASSAGE])[0].items == tuple(range(12))
    assert find_overlaps([(items, list(range(12)))], [PASSAGE])[0].items == ()
