"""Every model folder has a whole card with true sizes; figures are added to it once, and nobody's own words are lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chatwright.errors import UsageError
from chatwright.model.card import SECTIONS, ModelCard, add_safety, add_scores, folder_sizes, with_figures, write_card
from chatwright.model.describe import describe_model
from chatwright.model.encoder import Encoder
from chatwright.model.encoder_config import EncoderConfig
from chatwright.model.folder import write_model_folder
from chatwright.model.gpt import GPT
from chatwright.model.head_folder import save_head
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.model.init import initialise
from chatwright.model.lora import LoraConfig, add_lora, save_adapter
from chatwright.model.presets import config_for_size
from chatwright.model.rnn import RNN
from chatwright.model.rnn_config import RNNConfig
from tests.model.tiny_models import reference, write_gguf

CARD = ModelCard(title="tiny", pipeline_tag="text-generation", languages=["zh"]).render()


def headings(folder: Path) -> list[str]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


def gpt() -> GPT:
    model = GPT(config_for_size(40_000, 300, 32, "qwen3"))
    initialise(model, seed=0)
    return model


def bert() -> Encoder:
    config = EncoderConfig(
        vocab_size=96, n_layer=1, d_model=32, n_head=2, d_ff=64, context_length=32, n_token_types=2,
        norm_eps=1e-12, activation="gelu", pad_id=0,
    )  # fmt: skip
    encoder = Encoder(config)
    initialise(encoder, seed=0)
    return encoder


def write_decoder(folder: Path) -> None:
    write_model_folder(gpt(), folder, write_tokenizer=lambda _: None, generation={"eos_token_id": 0}, card=CARD)


def write_recurrent(folder: Path) -> None:
    model = RNN(RNNConfig(cell="lstm", vocab_size=300, n_layer=1, d_model=32, context_length=32))
    write_model_folder(model, folder, write_tokenizer=lambda _: None, generation={"eos_token_id": 0}, card=CARD)


def write_adapter(folder: Path) -> None:
    model, config = gpt(), LoraConfig(r=2, alpha=4)
    add_lora(model, config, seed=0)
    save_adapter(model, config, folder, "the-base", card=CARD)


def write_quantised(folder: Path) -> None:
    folder.mkdir()
    write_gguf(reference("qwen3"), folder / "model.gguf")
    write_card(folder, CARD)


WRITERS: dict[str, Callable[[Path], None]] = {
    "decoder": write_decoder,
    "recurrent": write_recurrent,
    "adapter": write_adapter,
    "gguf": write_quantised,
    "decoder with a head": lambda folder: save_head(TextClassifier(gpt(), ["a", "b"]), folder, card=CARD),
    "encoder with a head": lambda folder: save_head(TokenTagger(bert(), ["a", "b"]), folder, card=CARD),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_folder_has_a_whole_card(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    WRITERS[kind](folder)
    assert headings(folder) == list(SECTIONS)
    text = (folder / "README.md").read_text(encoding="utf-8")
    sizes = folder_sizes(folder)
    assert f"- parameters: {sizes['parameters']}\n" in text
    files = [file for file in folder.iterdir() if file.suffix in (".safetensors", ".gguf")]
    assert sizes["weights"].startswith(f"{sum(file.stat().st_size for file in files):,} bytes (F32")
    assert ("context" in sizes) == (kind != "adapter")
    assert text.count("_Not measured yet") == 2


def test_sizes_are_those_of_the_model(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model")
    sizes = folder_sizes(tmp_path / "model")
    assert sizes["parameters"] == f"{describe_model(tmp_path / 'model').n_parameters:,}"
    assert sizes["context"] == "32 tokens"


def test_a_card_that_is_copied_to_other_weights_has_their_sizes(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model")
    write_quantised(tmp_path / "other")
    write_card(tmp_path / "other", (tmp_path / "model" / "README.md").read_text(encoding="utf-8"))
    text = (tmp_path / "other" / "README.md").read_text(encoding="utf-8")
    assert f"- weights: {folder_sizes(tmp_path / 'other')['weights']}\n" in text
    assert folder_sizes(tmp_path / "model")["weights"] not in text
    assert headings(tmp_path / "other") == list(SECTIONS)


def test_figures_are_added_once_and_renewed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_decoder(folder)
    before = (folder / "README.md").read_text(encoding="utf-8")
    add_scores(folder, {"capitals, accuracy": "0.7500 [0.60, 0.90], n = 20"})
    once = (folder / "README.md").read_text(encoding="utf-8")
    assert "- capitals, accuracy: 0.7500 [0.60, 0.90], n = 20\n" in once
    assert once.count("_Not measured yet") == 1, "bias still is not"
    add_scores(folder, {"capitals, accuracy": "0.7500 [0.60, 0.90], n = 20"})
    assert (folder / "README.md").read_text(encoding="utf-8") == once
    add_scores(folder, {"capitals, accuracy": "0.8", "bits per byte": 1.25})
    twice = (folder / "README.md").read_text(encoding="utf-8")
    assert "0.7500" not in twice
    assert twice.index("- capitals, accuracy: 0.8\n") < twice.index("- bits per byte: 1.25\n")
    add_safety(folder, {"stereotyped sentence likelier": "52 %"})
    after = (folder / "README.md").read_text(encoding="utf-8")
    assert "_Not measured yet" not in after
    assert headings(folder) == list(SECTIONS)
    assert after.split("## Sizes")[0] == before.split("## Sizes")[0]
    assert yaml.safe_load(after.split("---")[1])["language"] == ["zh"]


def test_a_quick_look_does_not_take_the_place_of_a_measurement(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_decoder(folder)
    name = "facts-zh, accuracy"

    def shown_after(value: str, kept: bool) -> str:
        assert list(add_scores(folder, {name: value})) == [name] * kept
        [line] = [x for x in (folder / "README.md").read_text(encoding="utf-8").splitlines() if x.startswith("- facts")]
        return line.removeprefix(f"- {name}: ")

    few, some, whole, corrected = (
        "0.0000 [0.0000, 0.4345], n = 5 (engine, auto, 5 of 50 items)",
        "0.1000 [0.0279, 0.3010], n = 20 (engine, auto, 20 of 50 items)",
        "0.16 [0.08, 0.29], n = 50 (engine, auto)",
        "0.17 [0.09, 0.30], n = 48 (engine, auto; before: 0.5, n = 50)",
    )
    assert shown_after(some, kept=False) == some
    assert shown_after(few, kept=True) == some
    assert shown_after(some.replace("0.1000", "0.1500"), kept=False).startswith("0.1500")
    assert shown_after(whole, kept=False) == whole
    assert shown_after(some, kept=True) == whole
    assert shown_after(corrected, kept=False) == corrected, "two bad items are out of the task"
    assert shown_after(few, kept=True) == corrected


def test_a_persons_own_text_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_decoder(folder)
    card = folder / "README.md"
    own = card.read_bytes().replace(
        b"## Limits", "我的话。\r\n\r\n## My own\n\nNever for doctors.\n\n## Limits".encode()
    )
    own = own.replace(b"<!-- /chatwright:scores -->", b"Measured on a Tuesday.\n<!-- /chatwright:scores -->")
    card.write_bytes(own + b"\xff a byte that is no UTF-8")
    add_scores(folder, {"accuracy": 0.5})
    after = card.read_bytes()
    for kept in ("我的话。\r\n".encode(), b"Never for doctors.", b"Measured on a Tuesday.", b"\xff a byte"):
        assert kept in after
    assert b"- accuracy: 0.5" in after


@pytest.mark.parametrize(
    "text", ["", "# Mine\n", "# Mine\r\n\r\n## Scores\r\n\r\n- accuracy: 0.9\r\n", "no newline at the end"]
)
def test_a_card_of_somebody_else_gets_the_section_at_its_end(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(text.encode())
    add_scores(tmp_path, {"accuracy": 0.5})
    once = (tmp_path / "README.md").read_bytes()
    assert once.startswith(text.rstrip().encode())
    add_scores(tmp_path, {"accuracy": 0.5})
    assert (tmp_path / "README.md").read_bytes() == once
    assert once.count(b"- accuracy: 0.5") == 1


def test_a_folder_without_a_card_gets_one_and_a_file_does_not(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    add_scores(tmp_path / "model", {"accuracy": 0.5})
    assert headings(tmp_path / "model") == list(SECTIONS)
    (tmp_path / "x.gguf").write_text("")
    with pytest.raises(UsageError, match="no model folder"):
        add_scores(tmp_path / "x.gguf", {"accuracy": 0.5})
    assert not (tmp_path / "README.md").exists()


@given(st.dictionaries(st.text(), st.text(), max_size=4))
def test_whatever_a_figure_is_called_it_is_one_line_and_stays_one(figures: dict[str, str]) -> None:
    once, _kept = with_figures(CARD, "scores", figures)
    assert with_figures(once, "scores", figures)[0] == once
    assert [line for line in once.splitlines() if line.startswith("## ")] == [f"## {name}" for name in SECTIONS]
    safe, _kept = with_figures(once, "safety", {"a": 1})
    assert with_figures(safe, "scores", figures)[0].count("<!-- chatwright:scores -->") == 1
