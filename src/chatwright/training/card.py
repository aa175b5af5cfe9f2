"""The model card of a pretrained model: what it learned from, how, and what came of it."""

from __future__ import annotations

from chatwright.model.card import ModelCard
from chatwright.text.language import UNKNOWN
from chatwright.training.history import MEASURED, History, newest_figures
from chatwright.training.run import Run


def pretraining_card(run: Run) -> str:
    """The README.md for the model folder that is being written now: of the result with the figures of the held-out data, of a
    checkpoint with the newest there are."""
    dataset, model = run.section("dataset"), run.section("model")
    pretraining, training = run.section("pretraining"), run.section("training")
    history = History.read(run)
    figures = newest_figures(history.events, MEASURED) or {name: at[-1][1] for name, at in history.series.items()}
    scores = {f"held-out {name}": f"{value:.4f}" for name, value in figures.items() if name.startswith("bits_per_byte")}
    measured = [each.get("documents") for each in history.events if each.get("event") == MEASURED]
    n, n_all = (measured and measured[-1]) or (0, 0)
    recurrent = model["kind"] == "rnn"
    card = ModelCard(
        title=run.path.resolve().name,
        pipeline_tag="text-generation",
        languages=[language for language in dataset.get("languages", []) if language != UNKNOWN],
        library_name="chatwright" if recurrent else "transformers",
        dataset_fingerprint=str(dataset["fingerprint"]),
        tags=["pretrained"],
        data={"text": f"{dataset['n_bytes']:,} bytes, {pretraining['n_tokens']:,} tokens"},
        recipe={
            "architecture": model["kind"] if recurrent else model.get("family", model["kind"]),
            "steps": training["n_steps"],
            "optimizer": training["optimizer"],
            "seed": training["seed"],
        },
        scores=scores,
        notes=["A base model: it continues text, and was not taught to hold a conversation."]
        + ([f"The held-out figures are of {n} of {n_all} documents."] if n < n_all else [])
        + (["A recurrent model: only Chatwright's own loader reads it."] if recurrent else []),
    )
    return card.render()
