"""A head is evaluated as it was trained: the same labels as while tuning, the same entities, also in texts beyond the context."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chatwright.engine.tokenizers import copy_tokenizer
from chatwright.errors import InvalidModelError
from chatwright.model.head_checkpoint import is_head
from chatwright.model.head_folder import save_head
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.model.load import load_model
from chatwright.training.head_labeller import HeadLabeller
from tests.server.tiny import TEXT, make_model_folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("heads") / "tiny", context=64)


def saved(head: TextClassifier | TokenTagger, base: Path, folder: Path) -> Path:
    save_head(head, folder, write_tokenizer=lambda target: copy_tokenizer(base, target))
    return folder


def test_labels_are_those_of_the_head_in_whatever_batch(base: Path, tmp_path: Path) -> None:
    head = TextClassifier(load_model(base), ["a", "b", "c"], pad_id=0, seed=3).eval()
    torch.nn.init.normal_(head.score.weight)
    folder = saved(head, base, tmp_path / "head")
    assert is_head(folder)
    assert not is_head(base)
    labeller = HeadLabeller(folder, "head")
    texts = [text[:20] for text in TEXT] + ["the"]
    with torch.no_grad():
        alone = [head.labels[int(head(torch.tensor([labeller.encode(t)[0]])).argmax())] for t in texts]
    assert labeller.classify(texts) == alone
    assert len(set(alone)) > 1
    assert labeller.classify([TEXT[0] * 20]) == labeller.classify([TEXT[0] * 20])


def test_entities_are_found_in_every_part_of_a_long_text(base: Path, tmp_path: Path) -> None:
    head = TokenTagger(load_model(base), ["O", "B-X", "I-X"], pad_id=0)
    with torch.no_grad():
        head.score.weight.zero_()
        head.score.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))  # every token begins an entity
    labeller = HeadLabeller(saved(head, base, tmp_path / "tagger"), "tagger")
    assert (labeller.tags, labeller.labels) == (True, ["X"])
    text = "The cat sat on the mat. " * 20
    [found] = labeller.find([text])
    assert len(labeller.encode(text)[0]) > 64
    assert "".join(text[start:end] for start, end, _label in found) == text.replace(" ", "")
    assert labeller.find([""]) == [[]]


def test_a_head_that_says_nan_is_a_sentence(base: Path, tmp_path: Path) -> None:
    head = TextClassifier(load_model(base), ["a", "b"], pad_id=0)
    torch.nn.init.constant_(head.score.weight, float("nan"))
    with pytest.raises(InvalidModelError, match="its weights are damaged"):
        HeadLabeller(saved(head, base, tmp_path / "head"), "head").classify(["x"])
