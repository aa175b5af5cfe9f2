"""What is shown of a model is what the model computes: the engine's probabilities, plain attention, its own last layer."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

from chatwright.engine.load import load_text_model
from chatwright.errors import InvalidModelError, UsageError
from chatwright.i18n import catalogue
from chatwright.inspection.attribution import METHODS, Method, Prediction, attribute
from chatwright.inspection.embeddings import embedding_map, nearest_tokens, principal_components
from chatwright.inspection.explain import (
    MAX_TOKENS,
    NO_ATTENTION,
    NO_GRADIENT,
    NO_LENS_RECURRENT,
    NO_PROBABILITIES,
    NOTES,
    explain,
    explain_ids,
)
from chatwright.inspection.recording import record
from chatwright.inspection.subject import Subject, open_subject
from chatwright.inspection.tokens import logits_of
from chatwright.model.encoder_hf import load_encoder
from chatwright.model.gpt import GPT
from chatwright.model.head_folder import save_head
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.model.hf import config_from_hf
from chatwright.model.load import load_model
from chatwright.model.lora import LoraConfig, add_lora, lora_layers, save_adapter
from tests.inspection.conftest import N_PLAIN, SETTINGS
from tests.model.tiny_models import CASES, random_ids, reference

PROMPT = "The capital of France is"


async def test_probabilities_are_the_engines(tiny: Subject, tiny_path: Path) -> None:
    explanation = explain(tiny, PROMPT, answer=" Paris. 你好")
    engine = load_text_model(tiny_path, "tiny", SETTINGS)
    try:
        scores = await engine.engine.score([token.id for token in explanation.tokens], top=5)
    finally:
        await engine.close()
    assert scores[0] is None
    assert explanation.tokens[0].logprob is None
    for token, score in zip(explanation.tokens[1:], scores[1:], strict=True):
        assert score is not None
        assert token.logprob == pytest.approx(score.logprob, abs=1e-4)
        assert [each.id for each in token.alternatives] == [token_id for token_id, _ in score.top]
        for each, (_, logprob) in zip(token.alternatives, score.top, strict=True):
            assert math.log(each.probability) == pytest.approx(logprob, abs=1e-4)


def test_rank_and_entropy_are_those_of_the_distribution(tiny: Subject) -> None:
    explanation = explain(tiny, PROMPT, max_tokens=4)
    ids = [token.id for token in explanation.tokens]
    p_TV = logits_of(tiny, ids).softmax(-1)
    for token in explanation.tokens[1:]:
        p_V = p_TV[token.position - 1]
        order = p_V.argsort(descending=True).tolist()
        assert token.rank == order.index(token.id) + 1
        assert token.entropy_bits == pytest.approx(float(-(p_V * p_V.log2()).sum()), abs=1e-3)
    assert all(token.rank == 1 for token in explanation.tokens if token.is_answer), "the likeliest answer was asked for"
    assert explanation.answer_bits == pytest.approx(
        -sum(math.log2(token.probability or 0) for token in explanation.tokens if token.is_answer), rel=1e-3
    )
    assert explanation.next[0].id == int(p_TV[-1].argmax())


@pytest.mark.parametrize("case", ["gpt2", "qwen3", "mistral, window of 20", "gemma3, other scale, stretched, biases"])
def test_attention_is_that_of_transformers(case: str, tiny: Subject) -> None:
    theirs = reference(case)
    theirs.set_attn_implementation("eager")
    ours = GPT(config_from_hf(CASES[case].to_dict()))
    load_like(ours, theirs)
    ids = random_ids(1, 40)
    recording = record(Subject(case, ours.eval(), tiny.tokenizer), ids[0].tolist())
    with torch.no_grad():
        expected = theirs(ids, output_attentions=True, output_hidden_states=True)
    assert len(recording.attention) == 3
    for found, wanted in zip(recording.attention, expected.attentions, strict=True):
        torch.testing.assert_close(found, wanted[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))
        assert float(found.triu(1).abs().max()) == 0
    # the residual stream between layers; Transformers' last is normed already
    for found, wanted in zip(recording.residuals[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(found, wanted[0], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(recording.output, expected.hidden_states[-1][0], atol=2e-4, rtol=1e-4)


def load_like(ours: GPT, theirs: torch.nn.Module) -> None:
    """Transformers' weights, through a folder."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)  # type: ignore[operator]
        ours.load_state_dict(load_model(Path(folder)).state_dict())
    ours.requires_grad_(False)


def test_watching_changes_nothing_and_is_over_afterwards(tiny: Subject) -> None:
    assert isinstance(tiny.model, GPT)
    ids = tiny.encode(PROMPT)
    before = logits_of(tiny, ids)
    explanation = explain_ids(tiny, ids, len(ids), method="gradient")
    torch.testing.assert_close(logits_of(tiny, ids), before, atol=0, rtol=0)
    assert explanation.attention.shape == (2, 4, len(ids), len(ids))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny.model.modules())
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())


def test_the_lens_ends_with_what_the_model_says(tiny: Subject) -> None:
    explanation = explain(tiny, PROMPT, answer=" Paris.")
    assert [row.layer for row in explanation.lens] == [0, 1, 2]
    for position, cell in enumerate(explanation.lens[-1].cells[:-1]):
        token = explanation.tokens[position + 1]
        assert cell.next_probability == pytest.approx(token.probability, rel=1e-4)
        assert [each.id for each in cell.top] == [each.id for each in token.alternatives[:3]]
    assert [each.id for each in explanation.lens[-1].cells[-1].top] == [each.id for each in explanation.next[:3]]


@pytest.mark.parametrize("method", METHODS)
def test_attribution_finds_the_token_that_is_copied(method: Method, copying: Subject) -> None:
    for loud in range(4):
        ids = [1, 2, 3, N_PLAIN + loud, 5, 6, 7]
        assert int(logits_of(copying, ids)[-1].argmax()) == N_PLAIN + loud, "the planted model copies"
        [found] = attribute(copying, ids, [Prediction(len(ids), N_PLAIN + loud, "")], method)
        scores = list(found.scores)
        assert len(scores) == len(ids)
        assert scores.index(max(scores)) == 3
        assert max(scores) > 2 * max(abs(score) for place, score in enumerate(scores) if place != 3)


def test_occlusion_is_the_fall_of_the_log_probability(copying: Subject) -> None:
    assert isinstance(copying.model, GPT)
    ids = [1, 2, 13, 4, 5]
    predictions = [Prediction(4, 13, ""), Prediction(5, 13, "")]
    found = attribute(copying, ids, predictions, "occlusion")
    assert [len(each.scores) for each in found] == [4, 5], "what comes later cannot matter"
    model = copying.model
    whole = logits_of(copying, ids).log_softmax(-1)
    kept = model.embed.weight.clone()
    for place in range(5):
        model.embed.weight[ids[place]] = kept.mean(0)
        fall = whole - logits_of(copying, ids).log_softmax(-1)
        model.embed.weight.copy_(kept)
        for each in found:
            if place < each.position:
                assert each.scores[place] == pytest.approx(float(fall[each.position - 1, 13]), abs=1e-4)


def test_neighbours_are_those_of_greatest_cosine(tiny: Subject) -> None:
    base = tiny.base.embed
    kept = base.weight.clone()
    torch.manual_seed(0)
    base.weight.copy_(torch.randn(base.weight.shape))
    try:
        [first, second] = nearest_tokens(tiny, [7, 9, 7], top=3)
        cosine_VV = torch.nn.functional.cosine_similarity(base.weight[:, None], base.weight[None], dim=-1)
        cosine_VV.fill_diagonal_(-2)
    finally:
        base.weight.copy_(kept)
    for found, token_id in ((first, 7), (second, 9)):
        assert found.id == token_id
        assert [near.id for near in found.nearest] == cosine_VV[token_id].topk(3).indices.tolist()
        assert found.nearest[0].cosine == pytest.approx(float(cosine_VV[token_id].max()), abs=1e-5)


def test_the_map_shows_the_directions_of_most_variance(tiny: Subject) -> None:
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(8, 2, generator=generator))[0]
    xy = torch.randn(50, 2, generator=generator) * torch.tensor([5.0, 2.0])
    found, shares = principal_components(xy @ plane.T)
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    distances = (xy[:, None] - xy[None]).norm(dim=-1)
    torch.testing.assert_close((found[:, None] - found[None]).norm(dim=-1).float(), distances, atol=1e-3, rtol=1e-3)
    assert principal_components(torch.ones(3, 8))[0].abs().max() == 0, "points that are all the same have a map too"
    shown = embedding_map(tiny, nearest_tokens(tiny, [7, 9], top=3))
    assert [point.id for point in shown.points if point.kind == "seen"] == [7, 9]


def test_a_chat_prompt_is_written_in_the_models_template(tiny: Subject) -> None:
    explanation = explain(tiny, "<|im_end|>", chat=True, max_tokens=0)
    assert "".join(token.text for token in explanation.tokens) == (
        "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    control = [token.text for token in explanation.tokens if token.is_control]
    assert control == ["<|im_start|>", "<|im_end|>", "<|im_start|>"], "what the user wrote is text"
    assert explanation.attributions[0].position == len(explanation.tokens), "without an answer: what comes next"


def test_parts_of_characters_are_shown_as_bytes(tiny: Subject) -> None:
    texts = [token.text for token in explain(tiny, "猫🙂", max_tokens=0).tokens]
    assert any("⟨" in text for text in texts)
    assert not any("\ufffd" in text for text in texts)


def test_json_holds_everything_and_is_json(tiny: Subject) -> None:
    found = json.loads(json.dumps(explain(tiny, PROMPT, max_tokens=2).to_json(), allow_nan=False))
    T = len(found["tokens"])
    assert len(found["attention"]) == 2
    assert [len(row) for row in found["attention"][0][0]] == [T] * T
    assert len(found["lens"]) == 3
    assert found["tokens"][1]["probability"] > 0


def test_a_recurrent_model_shows_what_it_has(recurrent: Subject) -> None:
    explanation = explain(recurrent, PROMPT, max_tokens=3, method="gradient")
    assert explanation.tokens[-1].logprob is not None
    assert explanation.attention.size == 0
    assert explanation.lens == ()
    assert len(explanation.attributions) == 3
    assert set(explanation.notes) == {NO_ATTENTION, NO_LENS_RECURRENT}


def test_an_encoder_shows_what_it_has(encoder_path: Path) -> None:
    subject = open_subject(encoder_path, "bert", SETTINGS)
    explanation = explain(subject, "The food was badly 北京", method="gradient")
    assert [token.text.strip() for token in explanation.tokens] == (
        ["[CLS]", "the", "food", "was", "bad", "ly", "北", "京", "[SEP]"]
    )
    theirs = BertModel.from_pretrained(encoder_path, attn_implementation="eager").eval()
    ids = torch.tensor([[token.id for token in explanation.tokens]])
    with torch.no_grad():
        expected = theirs(ids, output_attentions=True).attentions
    for layer in range(2):
        torch.testing.assert_close(
            torch.from_numpy(explanation.attention[layer]), expected[layer][0], atol=1e-5, rtol=0
        )
    [vector] = explanation.attributions
    assert vector.method == "occlusion"
    assert all(0 <= score <= 2 for score in vector.scores)
    assert max(vector.scores) > 0
    assert NO_PROBABILITIES in explanation.notes
    assert NO_GRADIENT in explanation.notes


def test_heads_say_their_labels(encoder_path: Path, tmp_path: Path) -> None:
    def write_tokenizer(folder: Path) -> None:
        shutil.copy(encoder_path / "vocab.txt", folder)

    for kind, name in ((TextClassifier, "texts"), (TokenTagger, "tokens")):
        save_head(kind(load_encoder(encoder_path), ["good", "bad"]), tmp_path / name, write_tokenizer=write_tokenizer)
    texts = explain(open_subject(tmp_path / "texts", "texts", SETTINGS), "the food was good", method="gradient")
    assert sum(each.probability for each in texts.labels) == pytest.approx(1, abs=1e-5)
    assert texts.attributions[0].text == texts.labels[0].label
    tokens = explain(open_subject(tmp_path / "tokens", "tokens", SETTINGS), "the food was good")
    assert len(tokens.token_labels) == len(tokens.tokens)


def test_a_classifier_over_a_decoder_is_explained(tiny_path: Path, tiny: Subject, tmp_path: Path) -> None:
    assert isinstance(tiny.model, GPT)

    def write_tokenizer(folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_path / name, folder)

    save_head(TextClassifier(tiny.model, ["a", "b"]), tmp_path / "head", write_tokenizer=write_tokenizer)
    found = explain(open_subject(tmp_path / "head", "head", SETTINGS), PROMPT)
    assert len(found.labels) == 2
    assert found.attention.shape[0] == 2


def test_an_adapter_is_looked_at_with_its_base(tiny_path: Path, tiny: Subject, tmp_path: Path) -> None:
    model, config = load_model(tiny_path), LoraConfig(r=2, alpha=8)
    add_lora(model, config, seed=0)
    for layer in lora_layers(model).values():
        layer.lora_b.data.normal_(std=0.3)
    save_adapter(model, config, tmp_path / "adapter", "tiny")
    subject = open_subject(tiny_path, "adapted", SETTINGS, tmp_path / "adapter")
    ids = tiny.encode(PROMPT)
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0]
    torch.testing.assert_close(logits_of(subject, ids), expected, atol=1e-4, rtol=1e-4)
    assert (expected - logits_of(tiny, ids)).abs().max() > 0.1
    assert explain(subject, PROMPT, max_tokens=1).model == "adapted"


def test_what_cannot_be_looked_at_is_refused_in_a_sentence(
    tiny: Subject, recurrent: Subject, encoder_path: Path, tiny_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="empty"):
        explain(tiny, "")
    with pytest.raises(UsageError, match="more than the 512"):
        explain(tiny, "word " * 600)
    with pytest.raises(UsageError, match="more than the 64"):
        explain(recurrent, "word " * 60)
    with pytest.raises(UsageError, match="more than the 512"):
        explain(tiny, PROMPT, answer=" word" * 600)
    with pytest.raises(UsageError, match="no chat template"):
        explain(recurrent, PROMPT, chat=True)
    with pytest.raises(UsageError, match="writes no text"):
        explain(open_subject(encoder_path, "bert", SETTINGS), "good", answer="x")
    wide = Subject("tiny", tiny.model, tiny.tokenizer, n_tokens=4096)
    with pytest.raises(UsageError, match=f"at most {MAX_TOKENS}"):
        explain(wide, "word " * 600)

    broken = tmp_path / "broken"
    shutil.copytree(tiny_path, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    weights[name][0, 0] = math.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidModelError, match="not a number"):
        open_subject(broken, "broken", SETTINGS)


def test_a_long_answer_fits_the_view(tiny: Subject) -> None:
    explanation = explain(tiny, "The capital of Japan is Tokyo. " * 40, max_tokens=512)
    assert len(explanation.tokens) <= MAX_TOKENS


def test_every_note_exists_in_chinese() -> None:
    assert set(NOTES) - set(catalogue("zh")) == set()
