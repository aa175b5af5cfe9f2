"""Heads give the logits that Transformers gives, both ways, and folders with a head are never taken for models that write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from chatwright.errors import InvalidModelError, ModelNotFoundError, UsageError
from chatwright.model.describe import describe_model
from chatwright.model.encoder import Encoder
from chatwright.model.encoder_config import encoder_config_from_hf
from chatwright.model.gpt import GPT
from chatwright.model.head_folder import check_can_tag, load_head, save_head
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.model.hf import config_from_hf
from chatwright.model.init import initialise
from chatwright.model.load import load_model
from chatwright.model.presets import config_for_size
from tests.model.test_encoder import CASES as ENCODERS
from tests.model.tiny_models import CASES as DECODERS
from tests.model.tiny_models import random_ids, randomise, write_encoder

LABELS = ("好评", "差评", "中立")
PAD = 95
AUTO = {TextClassifier: AutoModelForSequenceClassification, TokenTagger: AutoModelForTokenClassification}
BASES: dict[str, Callable[[], GPT | Encoder]] = {
    **{case: lambda case=case: GPT(config_from_hf(DECODERS[case].to_dict())) for case in (  # type: ignore[misc]
        "qwen3", "qwen3, tied, biases", "llama, tied", "mistral, window of 20", "gpt2", "gpt2, untied, narrow, exact gelu",
        "qwen2", "gemma3",
    )},
    "sinusoidal gpt2": lambda: GPT(config_for_size(100_000, 96, 512, "gpt2", positions="sinusoidal")),
    "bert": lambda: Encoder(encoder_config_from_hf(ENCODERS["bert"].to_dict())),
}  # fmt: skip


def padded(pad_id: int, lengths: tuple[int, ...] = (50, 31, 3)) -> tuple[Tensor, Tensor]:
    ids = random_ids(len(lengths), max(lengths)).clamp(max=94)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, :length] = True
    return ids.masked_fill(~mask, pad_id), mask


def head_over(case: str, kind: type[TextClassifier | TokenTagger]) -> TextClassifier | TokenTagger:
    base = BASES[case]().eval()
    randomise(base)
    head = kind(base, LABELS, pad_id=PAD).eval()
    randomise(head.score, seed=8)
    return head


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (case, kind)
        for case in BASES
        for kind in (TextClassifier, TokenTagger)
        if (case, kind) != ("gemma3", TokenTagger)
    ],
)
@torch.no_grad()
def test_transformers_gives_the_same_logits(
    case: str, kind: type[TextClassifier | TokenTagger], tmp_path: Path
) -> None:
    head = head_over(case, kind)
    save_head(head, tmp_path / "out", card="# A card\n")
    theirs, report = AUTO[kind].from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.config.id2label == dict(enumerate(LABELS))
    ids, mask = padded(head.pad_id or 0)
    expected = theirs.eval()(ids, attention_mask=mask.long()).logits
    logits = head(ids, mask)
    if kind is TokenTagger:
        logits, expected = logits[mask], expected[mask]
    assert expected.std() > 0.3
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)

    again = load_head(tmp_path / "out")
    assert type(again) is kind
    assert again.labels == LABELS
    assert again.pad_id == head.pad_id
    reloaded = again(ids, mask)
    torch.testing.assert_close(reloaded[mask] if kind is TokenTagger else reloaded, logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [TextClassifier, TokenTagger])
@pytest.mark.parametrize("case", ["qwen3", "gpt2", "bert"])
@torch.no_grad()
def test_what_transformers_writes_is_read(case: str, kind: type[TextClassifier | TokenTagger], tmp_path: Path) -> None:
    config = (ENCODERS | DECODERS)[case]
    config = type(config).from_dict(config.to_dict() | {"num_labels": 2, "pad_token_id": PAD})
    theirs = AUTO[kind].from_config(config).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_head(tmp_path)
    assert ours.labels == ("LABEL_0", "LABEL_1")
    ids, mask = padded(PAD)
    expected = theirs(ids, attention_mask=mask.long()).logits
    logits = ours(ids, mask)
    if kind is TokenTagger:
        logits, expected = logits[mask], expected[mask]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [TextClassifier, TokenTagger])
@pytest.mark.parametrize("case", BASES)
@torch.no_grad()
def test_padding_and_neighbours_change_no_label(case: str, kind: type[TextClassifier | TokenTagger]) -> None:
    head = head_over(case, kind)
    ids, mask = padded(head.pad_id or 0)
    together = head(ids, mask)
    for row in range(3):
        alone = head(ids[row : row + 1, mask[row]], mask[row : row + 1, mask[row]])
        torch.testing.assert_close(
            together[row, mask[row]] if kind is TokenTagger else together[row], alone[0], atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("kind", [TextClassifier, TokenTagger])
@pytest.mark.parametrize("case", ["qwen3", "gpt2", "bert"])
def test_a_head_learns_with_its_base(case: str, kind: type[TextClassifier | TokenTagger]) -> None:
    head = head_over(case, kind).train()
    initialise(head.base, seed=0)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.003)
    ids, mask = padded(head.pad_id or 0)
    targets = torch.tensor([0, 1, 2]) if kind is TextClassifier else ids % 3
    losses = []
    for _ in range(20):
        logits = head(ids, mask)
        loss = torch.nn.functional.cross_entropy(
            logits[mask] if kind is TokenTagger else logits, targets[mask] if kind is TokenTagger else targets
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.7 * losses[0]


def test_the_matrix_is_drawn_from_the_seed() -> None:
    one, same, other = (TextClassifier(BASES["gpt2"](), LABELS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.score.weight, same.score.weight)
    assert not torch.equal(one.score.weight, other.score.weight)


def test_an_encoder_without_a_pooler_gets_one() -> None:
    from dataclasses import replace

    bare = Encoder(replace(encoder_config_from_hf(ENCODERS["bert"].to_dict()), pooler=False))
    randomise(bare)
    head = TextClassifier(bare, LABELS, seed=1)
    assert bare.config.pooler
    assert head.eval()(random_ids(2, 5)).isfinite().all()


@pytest.mark.parametrize("labels", [(), ("a", "a")])
def test_labels_are_distinct_and_some(labels: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="each once"):
        TextClassifier(BASES["gpt2"](), labels)


def test_a_model_of_labels_is_not_taken_for_one_that_writes(tmp_path: Path) -> None:
    save_head(head_over("qwen3", TextClassifier), tmp_path / "head")
    with pytest.raises(InvalidModelError, match=r"labels texts \(Qwen3ForSequenceClassification\) and writes none"):
        load_model(tmp_path / "head")
    info = describe_model(tmp_path / "head")
    assert (info.labels, info.writes_text, info.tags, info.has_chat_template) == (LABELS, False, False, False)
    save_head(head_over("qwen3", TokenTagger), tmp_path / "tagger")
    assert describe_model(tmp_path / "tagger").tags
    base = BASES["bert"]()
    assert isinstance(base, Encoder)
    write_encoder(base, tmp_path / "encoder")
    assert not describe_model(tmp_path / "encoder").writes_text
    with pytest.raises(InvalidModelError, match="is an encoder"):
        load_model(tmp_path / "encoder")
    save_head(head_over("bert", TextClassifier), tmp_path / "labels")
    with pytest.raises(InvalidModelError, match=r"labels texts \(BertForSequenceClassification\)"):
        load_model(tmp_path / "labels")
    assert describe_model(tmp_path / "labels").n_parameters == sum(
        weight.numel() for weight in load_file(tmp_path / "labels" / "model.safetensors").values()
    )


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | changes))

    return change


def change_weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_config(architectures=["Qwen3ForCausalLM"]), "not a model with a head"),
        (change_config(architectures=None), "not a model with a head"),
        (change_config(id2label={"0": "a", "2": "b"}), "id2label must"),
        (change_config(id2label=["a"]), "id2label must"),
        (change_config(id2label={"0": "a", "1": "a"}), "a label twice"),
        (change_config(id2label={"0": "a", "1": "b"}), "score.weight has the shape"),
        (change_weights(lambda w: w.pop("score.weight")), "lacks the tensor score.weight"),
        (change_weights(lambda w: w.update({"extra": torch.ones(1)})), "no place for"),
    ],
)
def test_broken_heads_are_refused(change: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    save_head(head_over("qwen3", TextClassifier), tmp_path / "head")
    change(tmp_path / "head")
    with pytest.raises(InvalidModelError, match=reason):
        load_head(tmp_path / "head")
    with pytest.raises(ModelNotFoundError):
        load_head(tmp_path / "absent")


def test_a_head_that_transformers_has_not_is_refused() -> None:
    with pytest.raises(UsageError, match="labels the tokens of Gemma 3"):
        check_can_tag(config_from_hf(DECODERS["gemma3"].to_dict()))
    check_can_tag(config_from_hf(DECODERS["qwen2"].to_dict()))
