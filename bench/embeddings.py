"""How good a model's vectors are: Spearman's correlation with graded pairs of sentences, English and Chinese.

python -m bench.embeddings MODEL…     a folder, a .gguf file, or a model's name
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from chatwright.engine.load import load_text_model
from chatwright.evaluation.similarity import measure_similarity, sentence_pairs
from chatwright.hub import ModelsFolder
from chatwright.settings import Settings


async def measure(name: str, settings: Settings) -> None:
    """Print one line for each language."""
    shown, path = ModelsFolder(settings.models_dir).resolve(name, allow_path=True)
    model = load_text_model(path, shown, settings)

    async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return (await model.embed(texts)).vectors

    try:
        for language in ("en", "zh"):
            found = await measure_similarity(embed, sentence_pairs(language))
            print(f"{shown} {language}: {found.correlation:.3f} ({found.low:.3f} to {found.high:.3f}, n = {found.n})")
    finally:
        await model.close()


def main() -> None:
    """Every model named."""
    for name in sys.argv[1:]:
        asyncio.run(measure(name, Settings()))


if __name__ == "__main__":
    main()
