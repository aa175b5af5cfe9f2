"""Items that stand in the training text are found, templates and short items are not mistaken for it."""

from __future__ import annotations

from chatwright.evaluation.contamination import PIECE, find_overlap

LONG = "When the river rose over the old stone bridge nobody in the village could cross for nine days"
CHINESE = "河水漫过了古老的石桥之后村里整整九天没有人能够过河"


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


def test_parts_of_several_tasks_are_told_apart() -> None:
    whole = find_overlap([{"q": "too short"}, {"q": LONG}, {"q": CHINESE}], [LONG])
    assert (whole.part(0, 2).items, whole.part(0, 2).too_short) == ((1,), (0,))
    assert whole.part(1, 2).items == (0,)
    assert whole.part(2, 1).items == ()
