"""The text side of a pretraining run: its tokenizer and its token file, in the run's folder.

Both appear whole or not at all and say what they were made of, so that a start that was killed goes on from what is ready.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from chatwright.engine.tokenizers import copy_tokenizer
from chatwright.errors import StorageError, UsageError
from chatwright.evaluation.documents import document_boundary
from chatwright.i18n import _
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Kind
from chatwright.tokenizer.bulk import BulkEncoder
from chatwright.tokenizer.corpus import enough_bytes, sample
from chatwright.tokenizer.fim import FimTokens, fim_permute
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.train import train_tokenizer
from chatwright.training.memory import give_back
from chatwright.training.progress import Progress
from chatwright.training.recipe import Recipe
from chatwright.training.run import MARKS, TOKENIZER, TOKENS, publish
from chatwright.training.stats import TextStats
from chatwright.training.token_count import pattern_of
from chatwright.training.tokens import TokenFile, TokensKey, write_tokens


def prepare_tokenizer(out: Path, dataset: Dataset, stats: TextStats, recipe: Recipe, progress: Progress) -> None:
    """RUN/tokenizer: a copy of the one given, or one trained on the text; kept when a killed start has made it already."""
    folder, request = out / TOKENIZER, recipe.request
    wanted = {
        "dataset": None if request.tokenizer else dataset.fingerprint,
        "source": str(request.tokenizer.resolve()) if request.tokenizer else None,
        "vocab_size": recipe.vocab_size,
        "pattern": pattern_of(recipe),
    }
    try:
        if json.loads((folder / MARKS[TOKENIZER]).read_text(encoding="utf-8")) == wanted:
            return
    except (OSError, ValueError):
        pass
    temporary = out / ".tokenizer.writing"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        if request.tokenizer:
            copy_tokenizer(request.tokenizer, temporary)
        else:
            progress.stage(_("Training a tokenizer of {n} tokens", n=recipe.vocab_size), stats.n_bytes)
            texts = sample(
                _counted(dataset.texts("train", stats.kinds), progress),
                stats.n_bytes,
                enough_bytes(recipe.vocab_size),
            )
            train_tokenizer(texts, recipe.vocab_size, pattern_of(recipe)).save(temporary)
            give_back()
        (temporary / MARKS[TOKENIZER]).write_text(json.dumps(wanted), encoding="utf-8")
        publish(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError("The run cannot be written to {path}: {reason}", path=out, reason=error.strerror) from error


def _counted(texts: Iterable[str], progress: Progress) -> Iterator[str]:
    n_bytes = 0
    for text in texts:
        n_bytes += len(text.encode(errors="replace"))
        progress.advance(n_bytes)
        yield text


def prepare_tokens(
    folder: Path, dataset: Dataset, kinds: tuple[Kind, ...], fim_share: float, seed: int, progress: Progress
) -> TokenFile:
    """The token file of a run, made where it is not there. Raises StorageError, InvalidDatasetError."""
    tokenizer = load_tokenizer(folder / TOKENIZER)
    key = TokensKey(dataset.fingerprint, _hash(folder / TOKENIZER), kinds, fim_share, seed)
    if (tokens := TokenFile.open(folder / TOKENS, key)) is not None:
        return tokens
    fim = FimTokens.of(tokenizer)
    if fim_share and fim is None:
        raise UsageError("The tokenizer has no tokens for filling in (<|fim_prefix|> …): leave --fim out.")

    n_bytes = sum(dataset.n_bytes("train", kind) for kind in kinds)
    progress.stage(_("Tokenising"), n_bytes)
    bulk = BulkEncoder(tokenizer, n_bytes)

    def encode(text: str, number: int) -> list[int]:
        ids = bulk.encode(text)
        if fim_share and fim is not None:
            generator = random.Random(f"{seed} {number}")  # noqa: S311 — not for secrets
            ids = fim_permute(ids, generator, fim_share, fim, tokenizer, document_boundary(tokenizer))
        return ids

    return write_tokens(
        dataset.texts("train", kinds),
        encode,
        folder / TOKENS,
        key,
        separator=document_boundary(tokenizer),
        vocab_size=tokenizer.vocab_size,
        n_threads=torch.get_num_threads(),
        progress=progress,
    )


def _hash(folder: Path) -> str:
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
