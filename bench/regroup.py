"""The same model with its channels in another order, so that groups of 32 weights hold others than they did.

    python -m bench.regroup MODEL FOLDER [--seed 0]

A model that was published in 4 bits comes back from rounding to groups of 32 exactly as it was: its weights lie on those groups'
own grids, and nothing is measured. Here the channels of the residual stream, of the feed-forward and of each head's values are
permuted throughout, which changes no logit (but for the order of sums) and puts strangers together. FOLDER becomes an HF folder
in float32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from chatwright.model.folder import new_folder
from chatwright.model.gpt import GPT
from chatwright.model.save import write_model
from chatwright.training.base_model import BaseModel


@torch.no_grad()
def regroup(model: GPT, seed: int) -> None:
    """Permutes in place. For models with RMSNorm or LayerNorm alike: both are blind to the order of channels."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    stream = torch.randperm(config.d_model, generator=generator)
    for name, parameter in model.named_parameters():
        last = name.split(".")[-2]
        if last in ("embed", "position_embed", "head", "q", "k", "v", "gate", "up") and parameter.dim() == 2:
            parameter.copy_(parameter[:, stream].clone())
        elif (last in ("out", "down")) or ("norm" in last and last not in ("q_norm", "k_norm")):
            parameter.copy_(parameter[stream].clone())
    for layer in model.layers:
        inner = torch.randperm(config.d_ff, generator=generator)
        ffn, attention = layer.feed_forward, layer.attention
        for matrix in (ffn.gate, ffn.up):
            if matrix is not None:
                matrix.weight.copy_(matrix.weight[inner].clone())
                if matrix.bias is not None:
                    matrix.bias.copy_(matrix.bias[inner].clone())
        ffn.down.weight.copy_(ffn.down.weight[:, inner].clone())
        group = config.n_head // config.n_kv_head
        values = torch.cat(
            [
                torch.randperm(config.head_dim, generator=generator) + g * config.head_dim
                for g in range(config.n_kv_head)
            ]
        )
        attention.v.weight.copy_(attention.v.weight[values].clone())
        if attention.v.bias is not None:
            attention.v.bias.copy_(attention.v.bias[values].clone())
        within = (values % config.head_dim).view(config.n_kv_head, -1)
        heads = torch.cat([within[h // group] + h * config.head_dim for h in range(config.n_head)])
        attention.out.weight.copy_(attention.out.weight[:, heads].clone())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.regroup", description="Another order of channels.")
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    base = BaseModel.open(chosen.model, "")
    model = base.load_decoder(torch.device("cpu"), 0.0, trainable=False)
    ids = torch.arange(1, 33)[None]
    with torch.no_grad():
        before = model(ids)
        regroup(model, chosen.seed)
        print(f"logits differ by at most {float((model(ids) - before).abs().max()):.1e}")
    with new_folder(chosen.folder) as whole:
        write_model(model, whole)
        base.write_tokenizer(whole)


if __name__ == "__main__":
    main()
