"""The plain recipe that ours is measured against (performance of training): a nanoGPT-like loop, written from its description.

GPT-2 shape (6 layers, width 256, 4 heads, context 256, tied), byte-level BPE of 4,096 tokens trained on the same text by the
`tokenizers` library alone, AdamW (0.9, 0.95, weight decay 0.1 on matrices), learning rate 1e-3 by cosine to a tenth with 10 s of
warm-up, batches of 16 random windows of the documents joined by <|endoftext|>, gradients clipped at 1.0, no dropout. Nothing of
Chatwright trains it; `hidden` and `logits` are apart only so that one evaluator can score both.

    python -m bench.plain_recipe DATASET --seconds 300 [--lr 1e-3] [--seed 0]     trains one, prints its bits per byte
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers.implementations import ByteLevelBPETokenizer
from torch import Tensor, nn

from chatwright.evaluation.bits_per_byte import bits_per_byte
from chatwright.evaluation.documents import EncodedDocument
from chatwright.text.dataset import Dataset

END = "<|endoftext|>"


@dataclass(frozen=True)
class Shape:
    """GPT-2's, small."""

    vocab_size: int = 4096
    n_layer: int = 6
    n_head: int = 4
    d_model: int = 256
    context: int = 256


class Block(nn.Module):
    """Pre-norm attention and feed-forward, biases everywhere, as GPT-2."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.d_model
        self.n_head = shape.n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.projection = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for part in self.qkv(self.ln_1(x)).chunk(3, -1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(attended.transpose(1, 2).flatten(2))
        h: Tensor = self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))
        return x + h


class PlainGPT(nn.Module):
    """GPT-2 with nanoGPT's initialisation."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocab_size, shape.d_model)
        self.positions = nn.Embedding(shape.context, shape.d_model)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.norm = nn.LayerNorm(shape.d_model)
        for name, parameter in self.named_parameters():
            if name.endswith(("projection.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * shape.n_layer))
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hidden(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(x, self.tokens.weight)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(self.hidden(ids)).float().flatten(0, 1), targets.flatten())

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        matrices = [p for p in self.parameters() if p.ndim >= 2]
        vectors = [p for p in self.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


@dataclass
class PlainData:
    """The training text as one stream of ids, and the held-out documents."""

    stream: np.ndarray[tuple[int], np.dtype[np.uint16]]
    held_out: list[EncodedDocument]
    n_bytes: int


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Byte-level BPE as the library makes it."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=[END], show_progress=False)
    return tokenizers.Tokenizer.from_str(bpe.to_str())


def plain_data(dataset: Dataset, vocab_size: int) -> PlainData:
    """The documents of a dataset as the recipe sees them."""
    tokenizer = train_tokenizer(dataset.texts("train", ["documents"]), vocab_size)
    end = tokenizer.token_to_id(END)
    parts, n_bytes = [], 0
    texts = list(dataset.texts("train", ["documents"]))
    for start in range(0, len(texts), 256):
        for text, encoding in zip(
            texts[start : start + 256], tokenizer.encode_batch(texts[start : start + 256]), strict=True
        ):
            parts.append(np.array([*encoding.ids, end], dtype=np.uint16))
            n_bytes += len(text.encode())
    held_out = [
        EncodedDocument((end, *tokenizer.encode(text).ids, end), len(text.encode()))
        for text in dataset.texts("held_out", ["documents"])
    ]
    return PlainData(np.concatenate(parts), held_out, n_bytes)


@dataclass
class PlainResult:
    """A trained model, and what it took."""

    model: PlainGPT
    steps: int
    seconds: float
    losses: list[float]


def train_plain(
    stream: np.ndarray[tuple[int], np.dtype[np.uint16]],
    shape: Shape,
    *,
    seconds: float,
    lr: float = 1e-3,
    seed: int = 0,
    batch: int = 16,
    warmup_s: float = 10.0,
    bf16: bool = False,
) -> PlainResult:
    """Trains for so many seconds of wall-clock time; the schedule follows the clock, as the recipe's does."""
    torch.manual_seed(seed)
    model = PlainGPT(shape)
    optimizer = model.optimizer(lr)
    generator = np.random.default_rng(seed)
    losses: list[float] = []
    start = time.perf_counter()
    while (now := time.perf_counter() - start) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(now, seconds, lr, min(warmup_s, seconds / 10))
        losses.append(
            float(plain_step(model, optimizer, random_windows(stream, generator, batch, shape.context), bf16))
        )
    return PlainResult(model, len(losses), time.perf_counter() - start, losses)


def rate_at(now: float, seconds: float, lr: float, warmup_s: float) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    if now < warmup_s:
        return lr * now / warmup_s
    return lr * (0.1 + 0.45 * (1 + math.cos(math.pi * (now - warmup_s) / (seconds - warmup_s))))


def random_windows(
    stream: np.ndarray[tuple[int], np.dtype[np.uint16]], generator: np.random.Generator, batch: int, context: int
) -> Tensor:
    """(batch, context + 1) ids from anywhere in the stream."""
    starts = generator.integers(len(stream) - context - 1, size=batch)
    return torch.from_numpy(np.stack([stream[i : i + context + 1] for i in starts]).astype(np.int64))


def plain_step(model: PlainGPT, optimizer: torch.optim.Optimizer, windows: Tensor, bf16: bool = False) -> Tensor:
    """Forward, backward, clip, update."""
    autocast: AbstractContextManager[object] = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    with autocast:
        loss = model.loss(windows[:, :-1], windows[:, 1:])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def main() -> None:
    """One training, one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    shape = Shape()
    data = plain_data(Dataset.open(arguments.dataset), shape.vocab_size)
    result = train_plain(
        data.stream, shape, seconds=arguments.seconds, lr=arguments.lr, seed=arguments.seed, bf16=arguments.bf16
    )
    figure = {
        "figure": "plain recipe, held-out bits per byte",
        "value": round(bits_per_byte(result.model, data.held_out, shape.context), 4),
        "seconds": round(result.seconds, 1),
        "steps": result.steps,
        "lr": arguments.lr,
        "seed": arguments.seed,
        "train_bytes": data.n_bytes,
    }
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
