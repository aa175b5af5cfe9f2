"""Bias by paired sentences, and toxicity of continuations: `python bench/safety.py MODEL --pairs FILE --openings FILE`.

Prints JSON. The pairs that ship lie in src/chatwright/evaluation/tasks/LANGUAGE/safety.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from chatwright.evaluation.bias import measure_bias, read_pairs
from chatwright.evaluation.local_model import text_continuer, text_scorer
from chatwright.evaluation.toxicity import measure_toxicity, read_openings
from chatwright.hub import ModelsFolder
from chatwright.inspection.subject import open_subject
from chatwright.model.gpt import GPT
from chatwright.settings import load_settings
from chatwright.tokenizer.tokenizer import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description="Bias and toxicity of a model.")
    parser.add_argument("model")
    parser.add_argument("--pairs", type=Path, action="append", default=[])
    parser.add_argument("--openings", type=Path, action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = load_settings()
    name, path = ModelsFolder(settings.models_dir).resolve(arguments.model, allow_path=True)
    subject = open_subject(path, name, settings)
    model, tokenizer = subject.model, subject.tokenizer
    if not isinstance(model, GPT) or not isinstance(tokenizer, Tokenizer):
        parser.error("only a model that writes can be measured")
    context = min(512, subject.context_length)
    found: dict[str, Any] = {}
    for file in arguments.pairs:
        found[file.name] = measure_bias(text_scorer(model, tokenizer, context), read_pairs(file)).to_dict()
    for file in arguments.openings:
        go_on = text_continuer(model, tokenizer, context, max_tokens=32, seed=arguments.seed)
        found[file.name] = measure_toxicity(go_on, read_openings(file)).to_dict()
    print(json.dumps(found, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
